"""Quarantines: what the breaker has taken out of a mass event, listed for a person, released or discarded.

A decision is written first and carried out in parts; if it is cut off, upkeep carries it on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Decision
from app.models.policy import Policy
from app.services import breaker, opt_outs, store
from app.services.apply import apply
from app.services.breaker import ALARM, Decided
from app.services.connection import Connection, Rows, read, transaction
from app.services.reading import NEWEST
from app.services.store import CountKey

AT_ONCE = 5_000

_LIST = text("""
SELECT q.id, q.gateway, q.code_space, q.code, q.reason, q.sender, q.carrier, q.opened_at, q.seen, q.allowed,
       (SELECT count(*) FROM breaker_hits h WHERE h.quarantine = q.id) AS waiting,
       q.decision, q.decided_at, q.decided_by
FROM quarantines q
WHERE (CAST(:open AS boolean) IS NULL OR (q.decision IS NULL) = :open) AND q.id < :before
ORDER BY q.id DESC LIMIT :limit
""")


async def quarantines(
    engine: AsyncEngine, *, is_open: bool | None = None, before: int = NEWEST, limit: int = 100
) -> Rows:
    """Newest first, those that wait and those that are decided."""
    return await read(engine, _LIST, {"open": is_open, "before": before, "limit": limit})


# Deciding ----------------------------------------------------------------------------------------------------------

_DECIDE = """
UPDATE quarantines SET decision = $2, decided_at = $3, decided_by = $4 WHERE id = $1 AND decision IS NULL
RETURNING key, sender, carrier
"""


async def decide(engine: AsyncEngine, id_: int, decision: Decision, policy: Policy, by: str) -> int | None:
    """What waits happens, with its original dates; or it is as if it had never come. Returns how many numbers waited;
    None for a quarantine that is not open. Counting begins anew for its key.
    """
    await _catch_all(engine, policy)  # what is not caught by then is in no quarantine, and nothing decides on it
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        row = await db.fetchrow(_DECIDE, id_, decision, now, by)
        if row is None:
            return None
        await store.clear_alarms(db, [ALARM], now, [row["key"]])
    return await _carry_out(engine, Decided(id_, row["key"], row["sender"], row["carrier"], decision, by), policy)


_WAITING = """
SELECT number FROM breaker_hits WHERE quarantine = $1 ORDER BY number LIMIT $2 FOR UPDATE
"""
_DONE = "DELETE FROM breaker_hits WHERE key = $1 AND number = ANY($2::text[])"


async def _carry_out(engine: AsyncEngine, case: Decided, policy: Policy) -> int:
    total = 0
    while True:
        async with transaction(engine) as db:
            numbers = [row["number"] for row in await db.fetch(_WAITING, case.id, AT_ONCE)]
            if not numbers:
                return total
            await db.execute(_DONE, case.key, numbers)
            await _let_go(db, numbers, case, policy)
        total += len(numbers)


async def _let_go(db: Connection, numbers: Sequence[str], case: Decided, policy: Policy) -> None:
    now = datetime.now(UTC)
    verdicts = case.closing(numbers, now)
    applied = await apply(db, verdicts, policy, now)
    counts: Counter[CountKey] = Counter()
    for verdict, changes in zip(verdicts, applied.changes, strict=True):
        counts.update(opt_outs.left(changes, opt_outs.served_by(case, applied.held[verdict.number])))
    await store.count(db, counts)
    await store.publish(db, applied.every_change)


# Upkeep ------------------------------------------------------------------------------------------------------------

_HANGING = """
SELECT q.id, q.key, q.sender, q.carrier, q.decision, q.decided_by FROM quarantines q
WHERE q.decision IS NOT NULL AND EXISTS (SELECT FROM breaker_hits h WHERE h.quarantine = q.id)
"""
_OPEN = "SELECT key, sender, carrier FROM quarantines WHERE decision IS NULL ORDER BY key"
# What leaves the window becomes what is usual; of a key in quarantine nothing is.
_AGE = """
WITH old AS (
    SELECT key, number FROM breaker_hits WHERE quarantine IS NULL AND at < statement_timestamp() - $1::interval
    ORDER BY key, number LIMIT $2 FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM breaker_hits h USING old WHERE h.key = old.key AND h.number = old.number RETURNING h.key, h.at),
counted AS (
    INSERT INTO breaker_windows AS w (key, starts, total)
    SELECT key, date_bin($1::interval, at, 'epoch'), count(*) FROM gone
    WHERE key NOT IN (SELECT key FROM quarantines WHERE decision IS NULL) GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (key, starts) DO UPDATE SET total = w.total + excluded.total)
SELECT count(*) FROM gone
"""


class _Open(NamedTuple):
    sender: str
    carrier: str


async def keep(engine: AsyncEngine, policy: Policy) -> None:
    """Carry on what a decision began, catch who was in flight when a quarantine opened, make baselines of the past."""
    async with transaction(engine) as db:
        hanging = await db.fetch(_HANGING)
    for row in hanging:
        await _carry_out(engine, Decided(*row), policy)
    await _catch_all(engine, policy)
    while await _age(engine, policy) == AT_ONCE:
        pass


async def _catch_all(engine: AsyncEngine, policy: Policy) -> None:
    while await _catch(engine, policy) == breaker.UNDONE_AT_ONCE:
        pass


async def _catch(engine: AsyncEngine, policy: Policy) -> int:
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        keys = {row["key"]: _Open(row["sender"], row["carrier"]) for row in await db.fetch(_OPEN)}
        if undoing := await breaker.catch(db, keys, policy.breaker, now):
            applied = await apply(db, undoing, policy, now)
            counts: Counter[CountKey] = Counter()
            for verdict, changes in zip(undoing, applied.changes, strict=True):
                carrier = opt_outs.served_by(keys[verdict.apart or ""], applied.held[verdict.number])
                counts.update(opt_outs.taken_back(changes, carrier))
            await store.count(db, counts)
            await store.publish(db, applied.every_change)
    return len(undoing)


async def _age(engine: AsyncEngine, policy: Policy) -> int:
    async with transaction(engine) as db:
        return int(await db.fetchval(_AGE, policy.breaker.window, AT_ONCE))
