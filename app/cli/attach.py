"""How commands reach the database: the one that the settings name, or the embedded one, joined where it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from asyncpg import DataError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.show import Refused
from app.config import Settings, read_settings
from app.main import gateways_of, url_of
from app.services import migrate
from app.services.connection import connect

T = TypeVar("T")
POOL = 3


def a_gateway(name: str | None) -> None:
    """Raises Refused for a name that neither a file nor the settings give to a gateway."""
    if name is not None and name not in (known := gateways_of(read_settings())):
        raise Refused(f"{name!r} is no gateway; there are {', '.join(known)}")


@asynccontextmanager
async def attached(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine on a database that is there. A command that only looks creates none."""
    if settings.database_url is None and not settings.data_dir.exists():
        raise Refused(f"there is no data in {settings.data_dir}: run `sendable serve`, or set SENDABLE_DATA_DIR", 1)
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
    """Whether the server answered but lets us not in: a wrong password, no such database, no such role."""
    return _state(error).startswith(("28", "3D"))


def why_not(error: BaseException) -> str:
    """Why the database could not be used, in words that quote no statement."""
    if is_refusal(error):
        return f"the database refuses us: {_cause(error)}"
    return f"the database does not answer ({type(_cause(error)).__name__})"


def _cause(error: BaseException) -> BaseException:
    return (error.orig if isinstance(error, DBAPIError) else None) or error


def _state(error: BaseException) -> str:
    return str(getattr(_cause(error), "sqlstate", None) or "")
