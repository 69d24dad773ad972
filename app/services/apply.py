"""Verdicts applied: lock what they touch, settle them one by one, save what changed. The caller owns the transaction,
and publishes the changes as its last statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from app.models.number import Change, Verdict
from app.models.policy import Policy
from app.services import store
from app.services.connection import Connection
from app.services.decide import Held, settle
from app.services.ladders import ENDS_CONSENT


class Applied(NamedTuple):
    """The numbers as they now stand, and the changes of each verdict, in the verdicts' order."""

    before: dict[str, Held]
    held: dict[str, Held]
    changes: list[list[Change]]


async def apply(db: Connection, verdicts: Sequence[Verdict], policy: Policy, now: datetime) -> Applied:
    """A fixed number of statements, however many verdicts; those about the same number act in the order given."""
    with_lists = {v.number for v in verdicts if v.out or v.opted_in or v.ladder == ENDS_CONSENT}
    before = await store.lock_numbers(db, (v.number for v in verdicts), with_lists, policy, now)
    held, changes = dict(before), []
    for verdict in verdicts:
        held[verdict.number], changed = settle(held[verdict.number], verdict, policy, now)
        changes.append(changed)
    await store.save_numbers(db, before, held, now)
    await store.save_lists(db, before, held)
    await store.save_lookups(db, before, held, now)
    return Applied(before, held, changes)
