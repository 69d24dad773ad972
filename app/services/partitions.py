"""The partitions of `receipts`, one for each UTC day of arrival: made ahead, and dropped by retention."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import structlog
from asyncpg import LockNotAvailableError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services.connection import Connection, transaction

log = structlog.get_logger(__name__)

DAYS_AHEAD = 7
DROP_WITHIN = "200ms"
LOCK = 7_316_003

_DAYS = """
SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'receipts'::regclass AND c.relname ~ '^receipts_[0-9]{8}$' ORDER BY 1
"""


async def days(db: Connection) -> list[date]:
    """The days that have a partition, oldest first. A receipt of any other day of arrival is not taken."""
    return [date.fromisoformat(row[0]) for row in await db.fetch(_DAYS)]


async def slower_clock(engine: AsyncEngine, ours: datetime) -> datetime:
    """Ours or the database's, whichever is behind: what is deleted for good must be old by both. One that was years
    ahead, after a reset or on one machine of several, would delete all there is.
    """
    async with transaction(engine) as db:
        theirs: datetime = await db.fetchval("SELECT clock_timestamp()")
    return min(ours, theirs)


async def make_room(engine: AsyncEngine, kept: timedelta, now: datetime) -> None:
    """Make the coming days' partitions, drop those that are older than `kept`."""
    async with transaction(engine) as db:
        await db.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await db.execute("SET LOCAL lock_timeout = '5s'")
        await _make_days(db, now.date())
    await _drop_days(engine, (await slower_clock(engine, now) - kept).date())


async def _make_days(db: Connection, today: date) -> None:
    """Attached, and not made as parts: that would lock out whoever reads receipts, and wait for a `pg_dump` to end."""
    there = await days(db)
    for day in (today + timedelta(days=ahead) for ahead in range(-1, DAYS_AHEAD + 1)):
        if day not in there:
            name, until = _name(day), day + timedelta(days=1)
            await db.execute(f"CREATE TABLE {name} (LIKE receipts)")
            # Receipts have no key of their own; without this no publication of all tables lets one be named or erased.
            await db.execute(f"ALTER TABLE {name} REPLICA IDENTITY FULL")
            await db.execute(f"ALTER TABLE receipts ATTACH PARTITION {name} FOR VALUES FROM ('{day}Z') TO ('{until}Z')")


async def _drop_days(engine: AsyncEngine, oldest: date) -> None:
    """Whoever writes receipts waits as long as we do; while somebody reads them, the days stay until the next look."""
    try:
        async with transaction(engine) as db:
            await db.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            await db.execute(f"SET LOCAL lock_timeout = '{DROP_WITHIN}'")
            for day in await days(db):
                if day < oldest:
                    await db.execute(f"DROP TABLE {_name(day)}")
    except LockNotAvailableError:
        log.info("old receipts are dropped later: somebody reads them")


async def has_room(engine: AsyncEngine) -> bool:
    """For today and tomorrow. Not after a machine slept for a week, or woke with a clock that was set right only later,
    forward or back.
    """
    today = datetime.now(UTC).date()
    async with transaction(engine) as db:
        return {today, today + timedelta(days=1)} <= {*await days(db)}


def _name(day: date) -> str:
    return f"receipts_{day:%Y%m%d}"
