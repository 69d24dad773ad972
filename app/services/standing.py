"""What waits and what stands just now, in a few counts: for `/metrics` and for `sendable doctor`."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services.connection import Rows

_HELD = text("""
SELECT coalesce(waiting_for, 'time') AS waiting_for, count(*) AS total,
       extract(epoch FROM clock_timestamp() - min(changed_at))::float8 AS oldest
FROM numbers WHERE state = 'held' AND noted_by IS NULL GROUP BY 1 ORDER BY 1
""")
_LOOKUPS = text("""
SELECT count(*) AS total, extract(epoch FROM clock_timestamp() - min(due_at))::float8 AS oldest
FROM lookups WHERE due_at <= statement_timestamp()
""")
ALARMS_TOLD = 20
"""Of each kind, the newest: a code that is read from the wrong place raises one with each receipt."""
_ALARMS = text(f"""
SELECT kind, key, since, count, standing FROM (
    SELECT *, count(*) OVER (PARTITION BY kind) AS standing,
           row_number() OVER (PARTITION BY kind ORDER BY last_at DESC, key) AS place
    FROM alarms WHERE cleared_at IS NULL) AS alarms
WHERE place <= {ALARMS_TOLD} ORDER BY since, kind, key
""")  # noqa: S608 - a constant of this file
_STOPS = text("SELECT provider, error, min(since) AS since FROM lookup_stops GROUP BY 1, 2 ORDER BY 1, 2")
_UNREAD = text("""
SELECT gateway, count(*) AS total, extract(epoch FROM clock_timestamp() - min(first_at))::float8 AS oldest
FROM unread GROUP BY 1 ORDER BY 1
""")
_REFUSED = text("SELECT gateway, count(*) AS total, max(arrived_at) AS newest FROM refused GROUP BY 1 ORDER BY 1")
_UNNAMED = text("""
SELECT count(*) AS total, extract(epoch FROM clock_timestamp() - min(received_at))::float8 AS oldest FROM unnamed
""")
_QUARANTINES = text("""
SELECT count(*) AS total, (SELECT count(*) FROM (
           SELECT DISTINCT number FROM breaker_hits WHERE quarantine IS NOT NULL) AS apart) AS numbers,
       extract(epoch FROM clock_timestamp() - min(opened_at))::float8 AS oldest
FROM quarantines WHERE decision IS NULL
""")


class Standing(NamedTuple):
    """Rows of counts; `oldest` is an age in seconds, None where nothing waits. Alarms one by one, oldest first, and how
    many of their kind are `standing`.
    """

    held: Rows
    lookups: Row[Any]
    stops: Rows
    alarms: Rows
    unread: Rows
    refused: Rows
    unnamed: Row[Any]
    quarantines: Row[Any]


async def standing(engine: AsyncEngine) -> Standing:
    async with engine.connect() as db:
        return Standing(
            held=(await db.execute(_HELD)).all(),
            lookups=(await db.execute(_LOOKUPS)).one(),
            stops=(await db.execute(_STOPS)).all(),
            alarms=(await db.execute(_ALARMS)).all(),
            unread=(await db.execute(_UNREAD)).all(),
            refused=(await db.execute(_REFUSED)).all(),
            unnamed=(await db.execute(_UNNAMED)).one(),
            quarantines=(await db.execute(_QUARANTINES)).one(),
        )
