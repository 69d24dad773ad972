"""Consent by call: a person's opt-in to a list, and their opt-out of a list, a sender or everything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Cause, Consent, Fact, OptIn, Scope, Verdict
from app.models.opt_in import Place
from app.models.policy import Policy
from app.services import store
from app.services.apply import apply
from app.services.connection import Connection, transaction
from app.services.shown import consent


class Stands(NamedTuple):
    """Consent on one list after a call. `reason`, `at`: of the opt-out that stands, else of the opt-in."""

    consent: Consent
    at: datetime
    reason: str | None
    was_blocked: bool


async def opt_in(engine: AsyncEngine, place: Place, given: OptIn, policy: Policy) -> Stands:
    """Keep an opt-in. An opt-out that is as new or newer stands all the same: the list then stands as opted out."""
    async with transaction(engine) as db:
        return await _keep(db, place, agreed(place, given), policy)


def agreed(place: Place, given: OptIn) -> Verdict:
    """What an opt-in says: the same from one call as from a line of a file."""
    cause = Cause("call", source=given.source, evidence=given.evidence)
    return Verdict(place.number, given.at, cause, sender=place.sender, list=place.list, opted_in=given)


async def opt_out(engine: AsyncEngine, place: Place, reason: str, scope: Scope, policy: Policy,
                  *, at: datetime | None) -> Stands:  # fmt: skip
    """Keep an opt-out. It outlives every opt-in that is not newer, also on lists that do not exist yet. Without `at`
    it is newer than all that were heard of.
    """
    number, sender, name = place
    async with transaction(engine) as db:
        at = at or await _after_all(db, place, scope, policy)
        fact = Fact(at, at, reason, Cause("call", source="api"))
        verdict = Verdict(number, at, fact.cause, sender=sender, list=name, out=fact, scope=scope)
        return await _keep(db, place, verdict, policy)


_NEWEST = """
SELECT max(opted_in_at) FROM subscriptions
WHERE number = $1 AND ($4 = 'all' OR sender = $2 AND ($4 = 'sender' OR list = $3))
"""


async def _after_all(db: Connection, place: Place, scope: Scope, policy: Policy) -> datetime:
    """Now, or when the clock of whoever told of an opt-in ran ahead of ours, as late as that one. The number is locked
    first: an opt-in that is being written just now has been heard of.
    """
    await store.lock_numbers(db, [place.number], (), policy, datetime.now(UTC))
    now, newest = datetime.now(UTC), await db.fetchval(_NEWEST, *place, scope)
    return max(now, newest) if newest else now


async def _keep(db: Connection, place: Place, verdict: Verdict, policy: Policy) -> Stands:
    applied = await apply(db, [verdict], policy, datetime.now(UTC))
    await store.publish(db, applied.changes[0])
    before, held = applied.before[place.number], applied.held[place.number]
    subscription = held.lists[place.sender, place.list]
    stands, out = consent(held.number, subscription)
    opted_in_at = subscription.opted_in.at if subscription.opted_in else verdict.at
    unblocked = place.sender in before.shown.blocks and place.sender not in held.shown.blocks
    return Stands(stands, out.at if out else opted_in_at, out.reason if out else None, unblocked)
