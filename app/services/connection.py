"""The engine, and what counts as a lost database: its connections are replaced, and its callers come back."""

from __future__ import annotations

import asyncio
from asyncio.staggered import staggered_race
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, cast

import asyncpg
from asyncpg import InterfaceError, InternalClientError
from sqlalchemy import Dialect, Row, TextClause, event, text
from sqlalchemy.engine.interfaces import AdaptedConnection, ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import InterfaceError as SQLInterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.models.database_url import hosts

RETRY_AFTER = 2
"""Seconds after which a caller should come back."""
POOL_SIZE = 6
ACQUIRE_WITHIN = 5.0
"""Seconds that a caller waits for a connection: for a free one of the pool, and for a new one to be made."""
NEXT_HOST_AFTER = 0.5
"""Seconds after which the next of several hosts is asked beside one that has said nothing yet."""
STATEMENT_WITHIN = 10.0
"""Seconds after which a server that does not answer counts as away. With the 2 more that SQLAlchemy gives a connection
to say goodbye, callers hear of it before a gateway gives up, after 15."""
OLDEST_CONNECTION = 600
"""Seconds after which a connection is made anew before it is used again."""


class Busy(Exception):
    """Nothing durable can be written, or nothing read, just now. At the edge: 503 and Retry-After."""


# 25006: a demoted primary still answers but takes no writes (seen to last for days after a failover). 26000 and 42P05:
# behind a pooler of transactions the session is another's, which lacks our prepared statements or has others.
_GONE_STATES = ("08", "57P01", "57P02", "57P03", "25P03", "25006", "26000", "42P05")
# Deadlocks, full disks, too many connections, locks and statements given up, files that cannot be read, a password or a
# database that is being changed, or lets nobody in: another connection would hear the same.
_AGAIN_STATES = ("40", "53", "55P03", "57014", "58", "28", "3D", "55000")


def is_lost(error: BaseException) -> bool:
    """Whether the database, not the data, is at fault: what failed may be tried again as it was."""
    return _is_gone(error) or sqlstate(error).startswith(_AGAIN_STATES)


def _is_gone(error: BaseException) -> bool:
    """Whether the connection is of no more use."""
    return (
        sqlstate(error).startswith(_GONE_STATES)
        or isinstance(error, PoolTimeout | OSError | asyncio.TimeoutError | SQLInterfaceError)
        or _is_broken_client(driver_error(error))
    )


def driver_error(error: BaseException) -> BaseException:
    """What the driver raised, out of what SQLAlchemy made of it."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's own code of an error; empty where it has none."""
    return str(getattr(driver_error(error), "sqlstate", None) or "")


def _is_broken_client(error: BaseException | None) -> bool:
    """On a killed server asyncpg says "cannot switch to state 12" more often than that the connection is gone (asyncpg
    issue 1069: 60 of 80 kills).
    """
    while error is not None:
        if isinstance(error, InternalClientError | InterfaceError | OSError):
            return True
        error = error.__cause__
    return False


_NOT_AS_ASKED = asyncpg.TargetServerAttributeNotMatched


def engine_of(url: str, *, connect_args: Mapping[str, Any], **more: Any) -> AsyncEngine:  # noqa: ANN401 - SQLAlchemy's
    """An engine whose URL the driver reads: it knows `sslmode` and several hosts as psql does, SQLAlchemy does not."""
    dsn = url.replace("postgresql+asyncpg://", "postgresql://", 1)
    how = {"dsn": dsn, "async_creator_fn": _opened, **connect_args}
    return create_async_engine("postgresql+asyncpg://", connect_args=how, **more)


# In place of what an administrator has set for our role or database. Under `serializable` most of eight callers at once
# heard 503; when idle sessions are ended, the first ones after a quiet time did. Limits of statements are meant for
# questions: all of ours have their own, and among millions upkeep takes minutes. What forgets a connection that says
# nothing, as gateways of clouds do after 4 or 6 minutes, hears the server each minute: else the first receipt after a
# quiet time is lost in it. A process that is suspended in a transaction, or whose machine is, lets go of its locks: all
# others heard 503 until it woke. Said in the session and not as it is opened, where PgBouncer lets none of it pass.
_SETTLE = {
    0: "SET default_transaction_isolation = 'read committed'; SET jit = off; SET statement_timeout = 0; "
       "SET lock_timeout = 0; SET tcp_keepalives_idle = 60; "
       "SET idle_in_transaction_session_timeout = '30s'",
    14: "; SET idle_session_timeout = 0",
    17: "; SET transaction_timeout = 0",
}  # fmt: skip
"""By the version that knows it first."""
POOLED = (
    "a pooler of transactions stands before the database",
    "let it pool sessions, or name the database itself in SENDABLE_DATABASE_URL",
)
"""What it is, and how to mend it."""
_WHERE = text("SELECT pg_backend_pid()")


async def shares_sessions(engine: AsyncEngine) -> bool:
    """Whether a pooler hands sessions on between transactions: what one of two connections has left, the other gets,
    and the one comes back to another. Settings, prepared statements, locks and NOTIFY are then anybody's.
    """
    async with engine.connect() as one, engine.connect() as other:
        before: int = (await one.execute(_WHERE)).scalar_one()
        await one.rollback()
        theirs: int = (await other.execute(_WHERE)).scalar_one()
        after: int = (await one.execute(_WHERE)).scalar_one()
        return theirs == before or after != before


async def _opened(dsn: str, **how: Any) -> Connection:  # noqa: ANN401 - the driver's
    named = hosts(dsn)
    db = await (_of_several(named, dsn, how) if len(named) > 1 else asyncpg.connect(dsn, **how))
    try:
        known = (settle for since, settle in _SETTLE.items() if db.get_server_version().major >= since)
        await db.execute("".join(known), timeout=ACQUIRE_WITHIN)
    except BaseException:
        db.terminate()
        raise
    return db


async def _of_several(named: Sequence[tuple[str, int | None]], dsn: str, how: Mapping[str, Any]) -> Connection:
    """The first that is as it was asked for. The driver asks them in turn within one time for all: of a machine that
    died, and so refuses nobody, all of it was waited for, and the standby that had taken its place never asked.
    """
    asking = [partial(asyncpg.connect, dsn, host=host, port=port, **how) for host, port in named]
    db, _, errors = await staggered_race(asking, NEXT_HOST_AFTER)
    if db is None:
        failed = [error for error in errors if error]
        raise next((error for error in failed if not isinstance(error, _NOT_AS_ASKED)), failed[-1])
    return cast("Connection", db)


def connect(url: str, *, pool: int = POOL_SIZE) -> AsyncEngine:
    """An engine whose broken connections never go back to its pool, and whose waits all end."""
    engine = engine_of(
        url,
        pool_size=pool,
        max_overflow=0,
        pool_timeout=ACQUIRE_WITHIN,
        pool_recycle=OLDEST_CONNECTION,
        hide_parameters=True,
        json_deserializer=_as_text,
        connect_args={
            "timeout": ACQUIRE_WITHIN,
            "command_timeout": STATEMENT_WITHIN,
            "server_settings": {"application_name": "sendable", "timezone": "UTC"},
        },
    )
    event.listen(engine.sync_engine, "checkout", _replace_if_ended)
    event.listen(engine.sync_engine, "do_connect", partial(_note_pool, engine))
    event.listen(engine.sync_engine, "checkin", partial(_close_if_outlived, engine))
    event.listen(engine.sync_engine, "handle_error", _drop_if_gone)
    return engine


Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
"""The driver's own connection. The write path runs on it: a statement costs 21 µs there, 148 µs through the engine."""


Rows: TypeAlias = Sequence[Row[Any]]


def heard(reading: asyncio.Task[Any]) -> None:
    """For `add_done_callback`: what fails after all who waited for it have gone is nobody's error any more."""
    if not reading.cancelled():
        reading.exception()


async def read(engine: AsyncEngine, statement: TextClause, given: Mapping[str, Any] | None = None) -> Rows:
    """All that one statement answers."""
    async with engine.connect() as db:
        return (await db.execute(statement, given)).all()


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """One transaction on one of the engine's connections: committed when the block ends, undone when it raises."""
    async with engine.connect() as pooled:
        raw = await driver_of(pooled)
        try:
            async with raw.transaction():
                yield raw
        except BaseException as error:
            if _is_gone(error) or isinstance(error, asyncio.CancelledError):
                await pooled.invalidate(error)
            if _is_gone(error) and not isinstance(error, TimeoutError):
                await engine.dispose()  # the pool's other connections led to the same server
            raise


async def driver_of(pooled: AsyncConnection) -> Connection:
    """The driver's connection behind one of the engine's."""
    raw = (await pooled.get_raw_connection()).driver_connection
    assert isinstance(raw, asyncpg.Connection)  # noqa: S101 - the engine has no other driver
    return raw


def touched(tag: str) -> int:
    """How many rows a statement has touched, by the tag that it ended with: `DELETE 3`, `INSERT 0 3`."""
    return int(tag.rpartition(" ")[2])


def _as_text(json: str) -> str:
    """JSON stays text on its way: who reads it knows its type (and parses it once, or not at all)."""
    return json


def _replace_if_ended(kept: AdaptedConnection, *_: object) -> None:
    """What ended while nobody used it, as all do when the server starts again, is replaced before anybody has it: the
    driver has heard of it, so it costs no round trip. The first receipt after a restart was refused, however long ago.
    """
    if kept.driver_connection.is_closed():
        raise DisconnectionError


def _note_pool(engine: AsyncEngine, _: Dialect, entry: ConnectionPoolEntry, *__: object) -> None:
    assert entry.record_info is not None  # noqa: S101 - only what was detached has none
    entry.record_info.setdefault("pool", engine.pool)


def _close_if_outlived(engine: AsyncEngine, _: object, entry: ConnectionPoolEntry) -> None:
    """What was in use while its pool was given up would come back to nobody, and keep its session of the server."""
    assert entry.record_info is not None  # noqa: S101 - only what was detached has none
    if entry.record_info.get("pool") is not engine.pool:
        entry.invalidate()


def _drop_if_gone(context: ExceptionContext) -> None:
    if context.original_exception and _is_gone(context.original_exception):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = True
