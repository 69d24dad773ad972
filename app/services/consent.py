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
from app.services.decide import consent


class Stands(NamedTuple):
    """Consent on one list after a call. `reason`, `at`: of the opt-out that stands, else of the opt-in."""

    consent: Consent
    at: datetime
    reason: str | None
    was_blocked: bool


async def opt_in(engine: AsyncEngine, number: str, sender: str, list_: str, given: OptIn, policy: Policy) -> Stands:
    """Keep an opt-in. An opt-out that is as new or newer stands all the same: the list then stands as opted out."""
    cause = Cause("call", source=given.source, evidence=given.evidence)
    verdict = Verdict(number, given.at, cause, sender=sender, list=list_, opted_in=given)
    return await _call(engine, verdict, policy, sender, list_)


async def opt_out(engine: AsyncEngine, number: str, sender: str, list_: str, fact: Fact, scope: Scope,
                  policy: Policy) -> Stands:  # fmt: skip
    """Keep an opt-out. It outlives every opt-in that is not newer, also on lists that do not exist yet."""
    verdict = Verdict(number, fact.at, fact.cause, sender=sender, list=list_, out=fact, scope=scope)
    return await _call(engine, verdict, policy, sender, list_)


async def _call(engine: AsyncEngine, verdict: Verdict, policy: Policy, sender: str, list_: str) -> Stands:
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        applied = await apply(db, [verdict], policy, now)
        await store.publish(db, applied.changes[0])
    before, held = applied.before[verdict.number], applied.held[verdict.number]
    subscription = held.lists[sender, list_]
    stands, out = consent(held.number, subscription)
    opted_in_at = subscription.opted_in.at if subscription.opted_in else verdict.at
    unblocked = sender in before.shown.blocks and sender not in held.shown.blocks
    return Stands(stands, out.at if out else opted_in_at, out.reason if out else None, unblocked)
