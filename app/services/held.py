"""Numbers that wait: listed for a person, released, or opted out, one by one or all that one code holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Cause, Fact, Verdict
from app.models.policy import Policy
from app.services import store
from app.services.apply import apply
from app.services.connection import transaction

AT_ONCE = 5_000


class Which(NamedTuple):
    """Which held numbers: one, or all that a code (of a space), a reason or a kind of waiting holds."""

    number: str | None = None
    code: str | None = None
    space: str | None = None
    reason: str | None = None
    waiting_for: str | None = None


_HELD = """
SELECT number, reason, waiting_for, until, changed_at AS since, cause ->> 'gateway' AS gateway,
       cause ->> 'code_space' AS code_space, cause ->> 'code' AS code
FROM numbers CROSS JOIN LATERAL (SELECT steps -> 0 -> 'fact' -> 'cause' AS cause) AS shown
WHERE state = 'held' AND noted_by IS NULL AND (until IS NULL OR until > clock_timestamp())
  AND ($1::text IS NULL OR number = $1)
  AND ($2::text IS NULL OR cause ->> 'code' = $2)
  AND ($3::text IS NULL OR cause ->> 'code_space' = $3)
  AND ($4::text IS NULL OR reason = $4)
  AND ($5::text IS NULL OR waiting_for = $5)
  AND number > $6
ORDER BY number LIMIT $7
"""
_LOCK_HELD = f"{_HELD} FOR UPDATE OF numbers"


async def held(engine: AsyncEngine, which: Which, after: str = "", limit: int = 100) -> list[dict[str, Any]]:
    """Held numbers in order of number, from the one behind `after`."""
    async with transaction(engine) as db:
        return [dict(row) for row in await db.fetch(_HELD, *which, after, limit)]


async def release(engine: AsyncEngine, which: Which, policy: Policy, by: str) -> int:
    """A person decides that these numbers may be texted again. Returns how many were held."""
    return await _decide(engine, which, policy, Cause("person", source=by), opt_out=False)


async def opt_out(engine: AsyncEngine, which: Which, policy: Policy, by: str) -> int:
    """A person decides that these numbers are lost: the hold ends, and consent on every list with it."""
    return await _decide(engine, which, policy, Cause("person", source=by), opt_out=True)


async def _decide(engine: AsyncEngine, which: Which, policy: Policy, cause: Cause, *, opt_out: bool) -> int:
    after, total = "", 0
    while True:
        async with transaction(engine) as db:  # locked as they are found: by then another reason may hold one, or none
            numbers = [row["number"] for row in await db.fetch(_LOCK_HELD, *which, after, AT_ONCE)]
            if not numbers:
                return total
            now = datetime.now(UTC)
            out = Fact(now, now, "permanent_failure", cause) if opt_out else None
            verdicts = [
                Verdict(number, now, cause, cleared=(("held", now),), out=out, scope="all", released=True)
                for number in numbers
            ]
            applied = await apply(db, verdicts, policy, now)
            await store.publish(db, applied.every_change)
        after, total = numbers[-1], total + len(numbers)
