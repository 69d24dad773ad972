"""Consent by call: a person's opt-in to a list, and their opt-out of a list, a sender or everything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Cause, Consent, Fact, OptIn, Scope, Verdict
from app.models.policy import Policy
from app.services import store
from app.services.apply import apply
from app.services.connection import transaction
from app.services.shown import consent


class Stands(NamedTuple):
    """Consent on one list after a call. `reason`, `at`: of the opt-out that stands, else of the opt-in."""

    consent: Consent
    at: datetime
    reason: str | None
    was_blocked: bool


class Place(NamedTuple):
    """Whose consent, and where: number and sender in their one form."""

    number: str
    sender: str
    list: str


async def opt_in(engine: AsyncEngine, place: Place, given: OptIn, policy: Policy) -> Stands:
    """Keep an opt-in. An opt-out that is as new or newer stands all the same: the list then stands as opted out."""
    return await _call(engine, place, agreed(place, given), policy)


def agreed(place: Place, given: OptIn) -> Verdict:
    """What an opt-in says: the same from one call as from a line of a file."""
    cause = Cause("call", source=given.source, evidence=given.evidence)
    return Verdict(place.number, given.at, cause, sender=place.sender, list=place.list, opted_in=given)


async def opt_out(engine: AsyncEngine, place: Place, fact: Fact, scope: Scope, policy: Policy) -> Stands:
    """Keep an opt-out. It outlives every opt-in that is not newer, also on lists that do not exist yet."""
    number, sender, name = place
    verdict = Verdict(number, fact.at, fact.cause, sender=sender, list=name, out=fact, scope=scope)
    return await _call(engine, place, verdict, policy)


async def _call(engine: AsyncEngine, place: Place, verdict: Verdict, policy: Policy) -> Stands:
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        applied = await apply(db, [verdict], policy, now)
        await store.publish(db, applied.changes[0])
    before, held = applied.before[place.number], applied.held[place.number]
    subscription = held.lists[place.sender, place.list]
    stands, out = consent(held.number, subscription)
    opted_in_at = subscription.opted_in.at if subscription.opted_in else verdict.at
    unblocked = place.sender in before.shown.blocks and place.sender not in held.shown.blocks
    return Stands(stands, out.at if out else opted_in_at, out.reason if out else None, unblocked)
