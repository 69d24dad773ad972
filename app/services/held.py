"""Numbers that wait: listed for a person, released, or opted out, one by one or all that one code holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Cause, Fact, Verdict
from app.models.policy import Policy
from app.services import store
from app.services.apply import apply
from app.services.connection import Rows, read, transaction

AT_ONCE = 5_000


class Which(NamedTuple):
    """Which held numbers: one, or all that a code (of a space), a reason or a kind of waiting holds."""

    number: str | None = None
    code: str | None = None
    space: str | None = None
    reason: str | None = None
    waiting_for: str | None = None


_HELD = text("""
SELECT number, reason, waiting_for, until, changed_at AS since, cause ->> 'gateway' AS gateway,
       cause ->> 'code_space' AS code_space, cause ->> 'code' AS code
FROM numbers CROSS JOIN LATERAL (SELECT steps -> 0 -> 'fact' -> 'cause' AS cause) AS shown
WHERE state = 'held' AND noted_by IS NULL AND (until IS NULL OR until > clock_timestamp())
  AND (CAST(:number AS text) IS NULL OR number = :number)
  AND (CAST(:reason AS text) IS NULL OR reason = :reason)
  AND (CAST(:waiting_for AS text) IS NULL OR waiting_for = :waiting_for)
  AND (CAST(:code AS text) IS NULL OR cause ->> 'code' = :code)
  AND (CAST(:space AS text) IS NULL OR cause ->> 'code_space' = :space)
  AND number > :after
ORDER BY number LIMIT :limit
""")


async def held(engine: AsyncEngine, which: Which, after: str = "", limit: int = 100) -> Rows:
    """Held numbers in order of number, from the one behind `after`."""
    return await read(engine, _HELD, {**which._asdict(), "after": after, "limit": limit})


async def release(engine: AsyncEngine, which: Which, policy: Policy, by: str) -> int:
    """A person decides that these numbers may be texted again. Returns how many were held."""
    return await _decide(engine, which, policy, Cause("person", source=by), opt_out=False)


async def opt_out(engine: AsyncEngine, which: Which, policy: Policy, by: str) -> int:
    """A person decides that these numbers are lost: the hold ends, and consent on every list with it."""
    return await _decide(engine, which, policy, Cause("person", source=by), opt_out=True)


async def _decide(engine: AsyncEngine, which: Which, policy: Policy, cause: Cause, *, opt_out: bool) -> int:
    after, total = "", 0
    while rows := await held(engine, which, after, AT_ONCE):
        now = datetime.now(UTC)
        out = Fact(now, now, "permanent_failure", cause) if opt_out else None
        verdicts = [
            Verdict(row.number, now, cause, cleared=(("held", now),), out=out, scope="all", released=True)
            for row in rows
        ]
        async with transaction(engine) as db:
            applied = await apply(db, verdicts, policy, now)
            await store.publish(db, applied.every_change)
        after, total = rows[-1].number, total + len(rows)
    return total
