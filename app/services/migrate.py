"""Brings the schema to this code's version: under an advisory lock, so that many processes may start at once, and a
short lock timeout, so that a busy table is waited for outside, not inside, a queue of blocked writers.
"""

from __future__ import annotations

import re
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from app.services.connection import ACQUIRE_WITHIN, POOLED, engine_of, shares_sessions, sqlstate

OLDEST_POSTGRES = 15
MIGRATIONS = Path(__file__).parents[2] / "migrations"
LOCK_TIMEOUT = "2s"
PATIENCE = 60
"""Seconds for which a migration that could not get its locks is tried again."""
_LOCK = 7_316_001
_LOCKED = {"55P03", "40P01"}
"""SQLSTATEs: a lock that does not come in time, and a deadlock with those who write meanwhile."""
_THERE_ALREADY = {"42P06", "42P07", "42710"}
"""SQLSTATEs: a schema, a table, a type of that name exists."""
_OURS = re.compile(r"\d{4}")
"""How our versions are written."""
NO_SCHEMA = (
    "no schema of the search_path is there and open to us: let an administrator run CREATE SCHEMA … AUTHORIZATION …, "
    "or ALTER ROLE … SET search_path"
)
IN_UTF8 = "make it anew: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
OWN_DATABASE = "give Sendable a database of its own"
_IN_USE = (
    "tables that must change are kept locked by others, as a backup or a long query does: let those end "
    "(pg_stat_activity names them), then try again"
)


class SchemaError(RuntimeError):
    """The database cannot be used with this code. One line: why, and how to mend it."""


async def upgrade(url: str) -> str:
    """Apply what is missing and return the version. Raises SchemaError for a database newer than this code, or one that
    others do not let us change.
    """
    engine = engine_of(url, connect_args={"timeout": ACQUIRE_WITHIN})
    try:
        if await shares_sessions(engine):
            raise SchemaError(": ".join(POOLED))
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_busy), stop=stop_after_delay(PATIENCE), wait=wait_random_exponential(max=2),
            reraise=True,
        ):  # fmt: skip
            with attempt:
                async with engine.begin() as db:
                    await db.run_sync(_upgrade)
        return head()
    except DBAPIError as error:
        if _busy(error):
            raise SchemaError(_IN_USE) from error
        raise
    finally:
        await engine.dispose()


async def version(engine: AsyncEngine) -> str | None:
    """The database's version; None for one that has never been migrated."""
    async with engine.connect() as db:
        return await db.run_sync(_version)


def head() -> str:
    """The version of this code."""
    return _scripts().get_current_head() or ""


def versions() -> set[str]:
    """The versions that this code knows: its own and all before."""
    return {script.revision for script in _scripts().walk_revisions()}


def is_ours(version: str) -> bool:
    """Whether it is one of Sendable's, of whatever release; else another program migrates there."""
    return _OURS.fullmatch(version) is not None


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    server = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
    if server < OLDEST_POSTGRES:
        raise SchemaError(f"PostgreSQL {server} is too old: use PostgreSQL {OLDEST_POSTGRES} or newer")
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if connection.execute(text("SELECT current_schema()")).scalar() is None:
        raise SchemaError(NO_SCHEMA)
    found = _version(connection)
    if found and not is_ours(found):
        raise SchemaError(f"the database is another program's: its schema is at {found!r}; {OWN_DATABASE}")
    if found and found not in versions():
        raise SchemaError(
            f"the database is at version {found}, newer than this code ({head()}): start a newer Sendable"
        )
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if found is None and encoding != "UTF8":
        raise SchemaError(f"the encoding of the database is {encoding}, which lacks letters: {IN_UTF8}")
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except DBAPIError as error:
        if found is None and sqlstate(error) in _THERE_ALREADY:
            said = str(error.orig).rpartition(": ")[2]
            raise SchemaError(f"the database is another program's: {said}; {OWN_DATABASE}") from error
        raise


def _busy(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and sqlstate(error) in _LOCKED
