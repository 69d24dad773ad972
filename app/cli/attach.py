"""How commands reach the database: the one that the settings name, or the embedded one, joined where it runs."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeGuard, TypeVar

from asyncpg import ClientConfigurationError, DataError, ProtocolViolationError, TargetServerAttributeNotMatched
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.show import Refused
from app.config import Settings, read_settings
from app.services import migrate
from app.services.connection import POOLED, Busy, connect, driver_error, sqlstate
from app.services.embedded.home import is_made
from app.wiring import gateways_of, url_of

T = TypeVar("T")
POOL = 3


def a_gateway(name: str | None) -> None:
    """Raises Refused for a name that neither a file nor the settings give to a gateway."""
    if name is not None and name not in (known := gateways_of(read_settings())):
        raise Refused(f"{name!r} is no gateway; there are {', '.join(known)}")


def a_database(settings: Settings) -> None:
    """Raises Refused where the settings name none and none was ever made here: a command that only looks makes none."""
    if settings.database_url is None and not is_made(settings.data_dir):
        raise Refused(f"there is no data in {settings.data_dir}: run `sendable serve`, or set SENDABLE_DATA_DIR", 1)


@asynccontextmanager
async def attached(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine on a database that is there."""
    a_database(settings)
    async with url_of(settings) as url:
        engine = connect(url, pool=POOL)
        try:
            yield engine
        finally:
            await engine.dispose()


def with_database(act: Callable[[AsyncEngine, Settings], Coroutine[Any, Any, T]]) -> T:
    """Run one command's work on a database whose schema is this code's."""

    async def run() -> T:
        settings = read_settings()
        async with attached(settings) as engine:
            if (found := await migrate.version(engine)) != migrate.head():
                raise migrate.SchemaError(
                    f"the database is at version {found}, this code at {migrate.head()}: run `sendable migrate`, "
                    "or a newer Sendable where the database is ahead"
                )
            return await act(engine, settings)

    return asyncio.run(run())


def is_unkeepable(error: BaseException | None) -> bool:
    """Whether a value could not even be sent: bytes of the command line that are no UTF-8, a number too large."""
    while error is not None and not isinstance(error, DataError):
        error = error.__cause__
    return error is not None and isinstance(error.__cause__, UnicodeEncodeError | OverflowError)


def is_refusal(error: BaseException) -> bool:
    """Whether the server answered but lets us not: a wrong password, no such database or role, no right to do it."""
    return sqlstate(error).startswith(("28", "3D", _NO_RIGHT))


_NO_RIGHT = "42501"
_OWN_IT = (
    "start Sendable as the owner of the database and its tables; an administrator makes one by ALTER DATABASE … OWNER, "
    "or does what `sendable doctor` says about `rights`"
)
_START_IT = "start the database, or mend SENDABLE_DATABASE_URL"
_RUN_AGAIN = "the embedded PostgreSQL ends with the process that started it: run the command again"
_MEND_IT = "mend SENDABLE_DATABASE_URL"
_FILES = "sslrootcert, sslcert or sslkey"
_SAID = {
    "25006": ("the database takes no writes", "name the primary in SENDABLE_DATABASE_URL"),
    "26000": POOLED,
    "42P05": POOLED,
    "53100": ("the disk of the database is full", "make room there"),
    "53300": ("the database has no connection left for us", "raise max_connections, or the limit of our role"),
    "55000": ("the database lets nobody in", "let an administrator run: ALTER DATABASE … ALLOW_CONNECTIONS true"),
    "57P03": ("the database is starting or stopping", "try again"),
}
"""By PostgreSQL's own code: what it says, and what mends it."""


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Of a file that is open and written. Sockets have none of these, and their errors name no file either."""


def _is_of_a_file(error: BaseException) -> TypeGuard[OSError]:
    """Whether a file of the caller's is at fault, and no connection."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _NO_ROOM)


def why_not(error: BaseException) -> tuple[str, str]:
    """Why the database could not be used, in words that quote no statement, and how to mend it."""
    cause = driver_error(error)
    if isinstance(error, Busy):
        return "nothing can be written just now", "run it again"
    if _is_of_a_file(cause):
        return f"{cause.filename or 'what is written'} cannot be used ({cause.strerror})", "mend it, or name another"
    if is_refusal(error):
        return f"the database refuses us: {_root(cause)}", _OWN_IT if sqlstate(error) == _NO_RIGHT else _MEND_IT
    if isinstance(_root(cause), ProtocolViolationError):  # PgBouncer's, of what it does not pass on, or of its mode
        return f"the database refuses us: {_root(cause)}", f"{_MEND_IT}; docs/operating.md tells which poolers do"
    unknown = f"the database does not answer ({type(cause).__name__})", _start_it()
    return _SAID.get(sqlstate(error)) or _of_the_line(_root(cause)) or unknown


def _start_it() -> str:
    return _START_IT if read_settings().database_url else _RUN_AGAIN


_NO_HOST = {
    socket.gaierror: "the host of the database has no address",
    TargetServerAttributeNotMatched: "of the hosts that answer none is as target_session_attrs asks",
}


def _of_the_line(root: BaseException) -> tuple[str, str] | None:
    """What keeps us from so much as reaching a server that understands us."""
    for kind, words in _NO_HOST.items():
        if isinstance(root, kind):
            return words, _MEND_IT
    if isinstance(root, ssl.SSLError):
        unproven = isinstance(root, ssl.SSLCertVerificationError)
        says = "the database does not prove who it is" if unproven else "no TLS comes about with the database"
        return f"{says} ({root.reason or type(root).__name__})", f"{_MEND_IT}: its sslmode, {_FILES}"
    if isinstance(root, FileNotFoundError | PermissionError):
        why = "may not be opened by us" if isinstance(root, PermissionError) else "is not there"
        return f"the socket of the database, or a file that its {_FILES} names or ~/.postgresql holds, {why}", _START_IT
    if type(root) is ConnectionError:  # asyncpg's own, of a server that answers otherwise than it was asked
        return "what listens there takes no SSL, or is no PostgreSQL", _MEND_IT
    if isinstance(root, ClientConfigurationError):
        return f"SENDABLE_DATABASE_URL cannot be used: {str(root).splitlines()[0]}", "mend it"
    return None


def _root(error: BaseException) -> BaseException:
    """What the driver said before others put their words around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
