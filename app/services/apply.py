"""Verdicts applied: lock what they touch, settle them one by one, save what changed. The caller owns the transaction,
and publishes the changes as its last statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from app.models.number import Cause, Change, Fact, Verdict
from app.models.policy import Policy
from app.services import aside, store
from app.services.connection import Connection
from app.services.ladders import ENDS_CONSENT
from app.services.merge import merge
from app.services.settle import Held, settle


class Applied(NamedTuple):
    """The numbers as they now stand, and the changes of each verdict, in the verdicts' order."""

    before: dict[str, Held]
    held: dict[str, Held]
    changes: list[list[Change]]

    @property
    def every_change(self) -> list[Change]:
        """All of them in order, as they are published."""
        return [change for changed in self.changes for change in changed]


async def apply(db: Connection, verdicts: Sequence[Verdict], policy: Policy, now: datetime,
                *, lacking: set[str] | None = None, answered: bool = False,
                again: bool = False) -> Applied:  # fmt: skip
    """A fixed number of statements, however many verdicts; those about the same number act in the order given.
    `answered`: they are a lookup's. `again`: they tell nothing new, but the policy may be another than before.
    """
    with_lists = {v.number for v in verdicts if v.out or v.opted_in or v.ladder == ENDS_CONSENT}
    before = await store.lock_numbers(db, (v.number for v in verdicts), with_lists, policy, now, lacking=lacking)
    before = await store.with_blocks(db, before) if again else before
    applied = _settled(await _remembered(db, before, verdicts), verdicts, policy, now)
    await store.save_numbers(db, before, applied.held, _since(applied.changes, now))
    await store.save_lists(db, before, applied.held)
    await store.save_lookups(db, before, applied.held, answered=answered)
    return applied


def _since(changes: Iterable[Sequence[Change]], now: datetime) -> dict[str, datetime]:
    """When a number came to the state it is in: a lapse holds from its instant, as readers have seen it."""
    return {
        change.number: change.occurred_at if change.cause.kind == "lapse" else now
        for changed in changes
        for change in changed
        if change.kind == "number.state" and not change.before == change.after == "active"
    }


async def foresee(db: Connection, verdicts: Sequence[Verdict], policy: Policy, now: datetime) -> Applied:
    """What `apply` would do, without a lock and without a trace."""
    before = await store.look(db, sorted({v.number for v in verdicts}), policy, now)
    return _settled(await _remembered(db, before, verdicts), verdicts, policy, now)


def _settled(before: dict[str, Held], verdicts: Sequence[Verdict], policy: Policy, now: datetime) -> Applied:
    held = dict(before)
    changes = list[list[Change]]()
    for verdict in verdicts:
        waited = aside.released(held[verdict.number].number, verdict) if verdict.closed else ()
        held[verdict.number], changed = settle(held[verdict.number], verdict, policy, now)
        for act in waited:
            held[verdict.number], happened = settle(held[verdict.number], act, policy, now)
            changed += happened
        changes.append(changed)
    return Applied(before, held, changes)


async def _remembered(db: Connection, before: dict[str, Held], verdicts: Sequence[Verdict]) -> dict[str, Held]:
    """What is held, in which numbers that were erased once have left everything then. Only opt-ins ask for it."""
    opting = sorted({v.number for v in verdicts if v.opted_in})
    erased = await store.erased(db, opting) if opting else {}
    return before | {number: _erased(before[number], at) for number, at in erased.items()}


def _erased(held: Held, at: datetime) -> Held:
    cause = Cause("person", source="erasure")
    verdict = Verdict(held.number.number, at, cause, out=Fact(at, at, "erased", cause), scope="all")
    return replace(held, number=merge(held.number, verdict), acting=merge(held.acting, verdict))
