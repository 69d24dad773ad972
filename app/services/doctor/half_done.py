"""What somebody began and nobody goes on with, for `sendable doctor`: whoever was killed in the middle cannot tell."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services.deactivations import files
from app.services.doctor.finding import Finding, age

# Whoever takes a file in holds its lock; its lines are kept for so long.
_FILES = text(f"""
SELECT feed, day, extract(epoch FROM clock_timestamp() - started_at)::float8 AS since FROM feed_files f
WHERE finished_at IS NULL AND started_at > clock_timestamp() - CAST(:kept AS interval) AND NOT EXISTS (
    SELECT FROM pg_locks JOIN pg_database d ON d.oid = database AND d.datname = current_database()
    WHERE locktype = 'advisory' AND (classid::bigint, objid::bigint) = ({files.LOCK}, f.id % {2**31}))
ORDER BY id
""")  # noqa: S608 - a constant of another file
_IMPORTS = text("""
SELECT extract(epoch FROM clock_timestamp() - touched_at)::float8 AS since FROM imports i
WHERE touched_at < clock_timestamp() - interval '10 minutes'
  AND EXISTS (SELECT FROM import_lines l WHERE l.import = i.id)
ORDER BY touched_at
""")
_DECISIONS = text("""
SELECT count(DISTINCT h.number) FROM breaker_hits h JOIN quarantines q ON q.id = h.quarantine
WHERE q.decided_at < clock_timestamp() - interval '10 minutes'
""")


async def findings(engine: AsyncEngine) -> AsyncIterator[Finding]:
    async with engine.connect() as db:
        for file in await db.execute(_FILES, {"kept": files.LEFT_FOR}):
            name = f"{file.feed} of {file.day}" if file.day else file.feed
            says = f"one of {name}, begun {age(file.since)} ago, was not taken in to its end"
            yield Finding("note", "files", says, "bring it in again: it goes on where it stopped")
        for list_ in await db.execute(_IMPORTS):
            says = f"an import of subscribers stopped {age(list_.since)} ago, before all of its lines had acted"
            yield Finding("note", "files", says, "start it again with the same file, unless somebody has")
        if numbers := (await db.execute(_DECISIONS)).scalar_one():
            says = f"{numbers} numbers wait for what a person has decided on their mass event"
            yield Finding("note", "quarantine", says, "start `sendable serve`, which carries it on")
