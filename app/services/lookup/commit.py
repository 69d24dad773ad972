"""Commits what lookups came to, on the same path as receipts: answers gather while a group of them commits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Change
from app.services import store
from app.services.apply import apply
from app.services.connection import Busy, Connection, is_lost, transaction
from app.services.intake import COMMIT_WITHIN
from app.services.logs import error_fields
from app.services.lookup import claims
from app.services.lookup.claims import Claim, Next
from app.services.lookup.outcome import Done, Outcome, Plan, Settled, later, settle
from app.services.meaning import Meaning
from app.services.opt_outs import opted_out
from app.services.settle import Held

log = structlog.get_logger(__name__)

GROUP_MOST = 500
AGAIN_AFTER = 1.0
AGAIN_WITHIN = 15.0
"""Seconds for which a lost database is tried again while callers wait: what is left of a lease at least, whoever was
slow to answer. After them for as long as the leases can be prolonged, as where only some other table is locked.
"""
HELD_FOR = 60.0
"""Seconds by which a lease is prolonged each time."""
ALARMS = ("lookup_outage", "lookup_budget")


class Commits:
    """Those of one process."""

    def __init__(self, engine: AsyncEngine, meaning: Meaning, plan: Plan) -> None:
        self._engine = engine
        self._meaning = meaning
        self._plan = plan
        self._done: list[Done] = []
        self._some = asyncio.Event()

    async def outcomes(self, done: Sequence[Done]) -> list[Outcome]:
        """Have these committed: they are paid for, so a lost database is waited for. Raises Busy when it stays away;
        while their numbers can be held, they are committed after that as well.
        """
        self._done += done
        self._some.set()
        return await asyncio.gather(*(one.outcome for one in done))

    async def run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._done:
                group, self._done = self._done[:GROUP_MOST], self._done[GROUP_MOST:]
                await self._commit(group)

    async def _commit(self, group: list[Done]) -> None:
        try:
            async with asyncio.timeout(COMMIT_WITHIN):
                outcomes = await self._settle(group)
        except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
            if len(group) > 1 and not is_lost(error):  # one of them is at fault, and must not fail its neighbours
                for one in group:
                    await self._commit([one])
                return
            again = is_lost(error) and monotonic() < group[0].since + AGAIN_WITHIN
            for one in group:
                if not again and not one.outcome.done():
                    one.outcome.set_exception(Busy() if is_lost(error) else error)
            if again or (is_lost(error) and await self._hold(group)):
                await asyncio.sleep(AGAIN_AFTER)
                self._done = group + self._done
        else:
            for one, outcome in zip(group, outcomes, strict=True):
                if not one.outcome.done():
                    one.outcome.set_result(outcome)

    async def _hold(self, group: Sequence[Done]) -> bool:
        """Whether their numbers are still ours, and stay so for a while."""
        try:
            async with transaction(self._engine) as db:
                return await claims.prolong(db, [one.claim for one in group], HELD_FOR)
        except Exception as error:  # noqa: BLE001 - their leases end, and they are made again
            log.warning("answers of lookups cannot be kept", lost=is_lost(error), **error_fields(error))
            return False

    async def _settle(self, group: Sequence[Done]) -> list[Outcome]:
        """One transaction: the answers, what follows from them, when to ask again. The feed comes last."""
        now, policy = datetime.now(UTC), self._meaning.policy
        async with transaction(self._engine) as db:
            numbers = sorted(one.claim.number for one in group)
            before = await store.lock_numbers(db, numbers, (), policy, now)
            ours = await claims.still_ours(db, [one.claim for one in group])
            erased = await store.drop_blank(db, [number for number in numbers if number not in ours])
            for one in group:
                one.claim = ours.get(one.claim.number, one.claim)
            settled = {
                number: settle(one, before[number].number, self._meaning, self._plan, now, ours=number in ours)
                for one in group
                for number in [one.claim.number]
            }
            flat = [(number, verdict) for number, one in settled.items() for verdict in one.verdicts]
            applied = await apply(db, [verdict for _, verdict in flat], policy, now, answered=True)
            await claims.keep(db, [pair for who, one in settled.items() if who not in erased for pair in one.keep])
            again, done, as_it_was = self._next(group, settled, before | applied.held, now)
            await claims.write_back(db, again, done)
            await claims.give_back(db, as_it_was)
            changes: dict[str, list[Change]] = {number: [] for number in settled}
            for (number, _), changed in zip(flat, applied.changes, strict=True):
                changes[number] += changed
            told = [change for changed in changes.values() for change in changed]
            await store.count(db, opted_out(applied, told))
            await self._alarms(db, settled.values(), now)
            await store.publish(db, told)
        return [settled[one.claim.number].outcome._replace(changes=changes[one.claim.number]) for one in group]

    def _next(self, group: Sequence[Done], settled: Mapping[str, Settled], held: Mapping[str, Held],
              now: datetime) -> tuple[list[Next], list[str], list[Claim]]:  # fmt: skip
        again, done, as_it_was = [], [], []
        for one in group:
            number, result = one.claim.number, settled[one.claim.number]
            if result.ours and held[number].shown.lookup is None:
                done.append(number)
            elif result.ours and (one.claim.early or result.overtaken):
                as_it_was.append(one.claim)
            elif result.ours:
                again.append(later(one.claim, result.waits, self._plan.timetable, now))
        return again, done, as_it_was

    async def _alarms(self, db: Connection, settled: Collection[Settled], now: datetime) -> None:
        """An answer ends them, whichever process raised them; one that was kept from before does not."""
        raised = Counter(alarm for one in settled for alarm in one.alarms)
        if raised:
            await store.alarm(db, dict(sorted(raised.items())), now)
        elif any(one.keep and one.waits is None for one in settled):
            await store.clear_alarms(db, ALARMS, now)
