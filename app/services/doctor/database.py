"""What the database tells: of its server, of our schema and our rights in it, and of what waits there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count, takewhile
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.config import Settings
from app.models.tables import metadata
from app.services import migrate, partitions
from app.services.connection import POOLED, driver_of, shares_sessions
from app.services.doctor import left_open
from app.services.doctor.finding import Finding
from app.services.doctor.waiting import of_what_waits

READER = "sendable_reader"
SKEW_MOST = timedelta(seconds=5)


async def of_database(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Finding]:
    """Everything that the database itself can tell. Raises what connecting raises."""
    if await shares_sessions(engine):
        yield Finding("wrong", "database", *POOLED)
        return
    async with engine.connect() as db:
        server = await _server(db)
        yield server
        if server.level == "wrong":
            return
        yield await _clock(db)
        for finding in await _encoding(db):
            yield finding
        shown = await _shown(db)
        for finding in [*_durable(shown), *(_logging(shown) if settings.database_url else ())]:
            yield finding
        schema = _schema(await migrate.version(engine))
        yield schema
        if schema.level == "wrong":
            return
        for finding in await _rights(db):
            yield finding
        yield _partitions(await partitions.days(await driver_of(db)))
        async for finding in left_open.findings(db):
            yield finding
    async for finding in of_what_waits(engine, settings):
        yield finding


# The server --------------------------------------------------------------------------------------------------------


async def _server(db: AsyncConnection) -> Finding:
    number = int((await db.execute(text("SHOW server_version_num"))).scalar_one())
    says = f"PostgreSQL {number // 10_000}.{number % 10_000}"
    if number // 10_000 < migrate.OLDEST_POSTGRES:
        mend = f"use PostgreSQL {migrate.OLDEST_POSTGRES} or newer"
        return Finding("wrong", "database", f"{says} is too old", mend)
    if (await db.execute(text("SHOW transaction_read_only"))).scalar_one() == "on":
        return Finding("wrong", "database", f"{says} takes no writes", "name the primary in SENDABLE_DATABASE_URL")
    return Finding("ok", "database", says)


async def _clock(db: AsyncConnection) -> Finding:
    before = datetime.now(UTC)
    theirs: datetime = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()
    apart = max(before - theirs, theirs - datetime.now(UTC), timedelta(0))
    says = f"{apart.total_seconds():.1f} s apart from the database"
    if apart > SKEW_MOST:
        return Finding("wrong", "clock", says, "let both machines follow a time server (NTP)")
    return Finding("ok", "clock", says)


async def _encoding(db: AsyncConnection) -> list[Finding]:
    encoding = (await db.execute(text("SHOW server_encoding"))).scalar_one()
    says = f"its encoding is {encoding}: a receipt with a letter that it lacks is never taken"
    return [] if encoding == "UTF8" else [Finding("wrong", "database", says, migrate.IN_UTF8)]


_SHOWN = text("""
SELECT name, setting FROM pg_settings WHERE name = ANY(CAST(:names AS text[]))
UNION ALL SELECT 'us', quote_ident(current_user)
""")
_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
_LOGGING = (
    "log_statement", "log_min_duration_statement", "log_min_duration_sample", "log_transaction_sample_rate",
    "log_parameter_max_length", "log_parameter_max_length_on_error", "log_error_verbosity", "log_destination",
    "log_min_messages",
    "auto_explain.log_min_duration", "auto_explain.log_parameter_max_length", "pgaudit.log_parameter",
)  # fmt: skip


async def _shown(db: AsyncConnection) -> Mapping[str, str]:
    rows = await db.execute(_SHOWN, {"names": [*_DURABLE, *_LOGGING]})
    return {row.name: row.setting for row in rows}


def _durable(shown: Mapping[str, str]) -> Iterator[Finding]:
    for name, bad in _DURABLE.items():
        if shown.get(name) == bad:
            says = f"{name} = {bad}: receipts that were answered may be lost"
            yield Finding("wrong", "database", says, f"set {name} = on")


_NO_STATEMENTS = {"log_statement": "none", "log_min_duration_statement": "-1", "log_min_duration_sample": "-1",
                  "log_transaction_sample_rate": "0"}  # fmt: skip
"""Settings by which no statement is logged, and so no value of its parameters."""


_NO_ERRORS = ("log", "fatal", "panic")
"""Levels of `log_min_messages` at which errors of sessions are told to their clients alone."""


def _logging(shown: Mapping[str, str]) -> Iterator[Finding]:
    """Which settings make PostgreSQL write what we sent into its log: parameters, and the DETAIL of errors."""
    bad = []
    if any(shown[name] != off for name, off in _NO_STATEMENTS.items()) and shown["log_parameter_max_length"] != "0":
        bad.append("log_parameter_max_length = 0")
    if shown["log_parameter_max_length_on_error"] != "0":
        bad.append("log_parameter_max_length_on_error = 0")
    explained = shown.get("auto_explain.log_min_duration", "-1") != "-1"
    if explained and shown.get("auto_explain.log_parameter_max_length") != "0":
        bad.append("auto_explain.log_parameter_max_length = 0")
    if shown.get("pgaudit.log_parameter") == "on":
        bad.append("pgaudit.log_parameter = off")
    if bad:
        yield Finding("wrong", "database log", "PostgreSQL writes phone numbers into its log", f"set {', '.join(bad)}")
    if shown["log_min_messages"] in _NO_ERRORS:
        return
    if shown["log_error_verbosity"] != "terse":
        yield Finding("note", "database log", "the DETAIL of an error may quote a phone number",
                      "set log_error_verbosity = terse")  # fmt: skip
    elif {"csvlog", "jsonlog"} & {*shown["log_destination"].replace(" ", "").split(",")}:  # for these nothing is terse
        mend = f"let an administrator run: ALTER ROLE {shown['us']} SET log_min_messages = 'log'"
        says = "logs in CSV and JSON hold the DETAIL of an error, which may quote a phone number"
        yield Finding("note", "database log", says, mend)


# Our schema --------------------------------------------------------------------------------------------------------


def _schema(found: str | None) -> Finding:
    head = migrate.head()
    if found == head:
        return Finding("ok", "schema", f"version {found}")
    if found is None:
        return Finding("wrong", "schema", "not there yet", "run `sendable migrate`")
    if not migrate.is_ours(found):
        return Finding("wrong", "schema", f"at {found!r}, which is another program's", migrate.OWN_DATABASE)
    if found not in migrate.versions():
        return Finding("wrong", "schema", f"version {found} is newer than this code ({head})", "start a newer Sendable")
    return Finding("wrong", "schema", f"version {found}; this code needs {head}", "run `sendable migrate`")


_RIGHTS = text("""
SELECT current_user AS we, quote_ident(current_user) AS us, quote_ident(current_schema()) AS schema,
       has_schema_privilege(current_schema(), 'CREATE') AS creates,
       (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class
        WHERE (oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'receipts'::regclass)
               OR pg_table_is_visible(oid) AND relname = ANY(CAST(:tables AS text[])))
          AND NOT pg_has_role(relowner, 'USAGE') ORDER BY relname LIMIT 1) AS owner,
       EXISTS (SELECT FROM pg_roles WHERE rolname = :reader) AS reader
""")
_READER = text("""
SELECT has_schema_privilege(:reader, 'published', 'USAGE')
           AND (SELECT bool_and(has_table_privilege(:reader, c.oid, 'SELECT')) FROM pg_class c
                WHERE c.relnamespace = 'published'::regnamespace AND c.relkind = 'v') AS reads,
       (SELECT rolcanlogin FROM pg_roles WHERE rolname = :reader) AS logs_in,
       has_table_privilege(:reader, 'numbers', 'SELECT') OR has_table_privilege(:reader, 'receipts', 'SELECT')
           OR has_table_privilege(:reader, 'api_keys', 'SELECT') AS reads_more,
       has_schema_privilege(:reader, current_schema(), 'CREATE') AS creates, current_schema() AS schema
""")
_GRANT = (f"GRANT USAGE ON SCHEMA published TO {READER}; "
          f"GRANT SELECT ON ALL TABLES IN SCHEMA published TO {READER}")  # fmt: skip


async def _rights(db: AsyncConnection) -> list[Finding]:
    row = (await db.execute(_RIGHTS, {"reader": READER, "tables": [*metadata.tables]})).one()
    found = [Finding("ok", "rights", f"as {row.we}")] if row.creates and not row.owner else []
    if not row.creates:
        says = f"{row.we} may not create tables: tomorrow's receipts get none"
        mend = f"let the owner run: GRANT CREATE ON SCHEMA {row.schema} TO {row.us}"
        found.append(Finding("wrong", "rights", says, mend))
    if row.owner:
        says = f"tables are owned by {row.owner}: tomorrow's receipts cannot be added, or the oldest not dropped"
        mend = f"start Sendable as {row.owner}, or let an administrator run: GRANT {row.owner} TO {row.us}"
        found.append(Finding("wrong", "rights", says, mend))
    if not row.reader:
        mend = f"let an administrator run: CREATE ROLE {READER} LOGIN; {_GRANT}"
        return [*found, Finding("wrong", "reader", f"there is no role {READER}, and we may not make it", mend)]
    return [*found, _reader((await db.execute(_READER, {"reader": READER})).one())]


def _reader(row: Row[Any]) -> Finding:
    if not row.reads:
        return Finding("wrong", "reader", f"{READER} cannot read the views", f"run: {_GRANT}")
    if row.reads_more:
        mend = f"revoke what was granted to {READER} and to PUBLIC on the tables"
        return Finding("wrong", "reader", f"{READER} can read more than the views", mend)
    if row.creates:  # as in every database that was made before version 15, and brought along since
        mend = f"let its owner run: REVOKE CREATE ON SCHEMA {row.schema} FROM PUBLIC, {READER}"
        return Finding("wrong", "reader", f"{READER} can make tables where ours are made, and take their names", mend)
    if not row.logs_in:
        return Finding("wrong", "reader", f"{READER} cannot log in", f"run: ALTER ROLE {READER} LOGIN")
    return Finding("ok", "reader", f"{READER} reads the views, and nothing else")


def _partitions(days: Sequence[date]) -> Finding:
    if not days:
        return Finding("note", "partitions", "none yet: the first `sendable serve` makes them")
    today = datetime.now(UTC).date()
    coming = (today + timedelta(days=ahead) for ahead in count())
    ahead = sum(1 for _ in takewhile(days.__contains__, coming)) - 1  # a clock that was ahead may have left later ones
    last = max((day for day in days if day <= today), default=days[-1])
    says = f"receipts have room for {ahead} more days" if ahead > 0 else f"receipts have room until {last} only"
    if ahead < 1:
        return Finding("wrong", "partitions", says, "start `sendable serve`; its log says why it makes none")
    return Finding("ok", "partitions", says)
