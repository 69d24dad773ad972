"""The sent-message register: what our platforms sent, so that receipts which carry only an id find their number."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Carrier, Cause, Verdict
from app.services import store
from app.services.apply import apply
from app.services.connection import transaction
from app.services.decide import Registered
from app.services.intake import NOTHING, Meaning, act, totals

AT_ONCE = 5_000
"""Messages in one transaction: the feed's order is the order of commits, so none may last long."""


class Sent(NamedTuple):
    """One sent message. `number` and `sender` in their one form; `carrier` None: none was named when sending."""

    gateway: str
    account: str
    message_id: str
    number: str
    sender: str
    carrier: str | None
    sent_at: datetime


async def register(engine: AsyncEngine, sent: Sequence[Sent], meaning: Meaning) -> int:
    """Keep sent messages, and apply the receipts that were waiting for them. Returns how many receipts that were."""
    applied = 0
    for start in range(0, len(sent), AT_ONCE):
        part = {one[:3]: one for one in sent[start : start + AT_ONCE]}
        applied += await _register(engine, sorted(part.values(), key=lambda one: one[:3]), meaning)
    return applied


async def _register(engine: AsyncEngine, sent: Sequence[Sent], meaning: Meaning) -> int:
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        await store.register(db, sent, now)
        entries = {one[:3]: Registered(one.number, one.sender, one.sent_at, one.carrier is not None) for one in sent}
        waited = [(a, entries[store.id_of(a.receipt)]) for a in await store.take_unnamed(db, entries)]
        await store.name_receipts(db, waited)
        carriers = [_served_by(one, meaning) for one in sent if one.carrier]
        learned = await apply(db, carriers, meaning.policy, now) if carriers else None
        told, undone, tripped, recounted = await act(db, waited, meaning, now, named=True) if waited else NOTHING
        await store.count(db, totals(told, recounted, named=True))
        changes = [change for changed in learned.changes for change in changed] if learned else []
        await store.alarm(db, tripped, now)
        await store.publish(db, changes + [change for one in told for change in one.changes] + undone)
    return len(waited)


def _served_by(sent: Sent, meaning: Meaning) -> Verdict:
    brand = meaning.carriers.name(sent.carrier or "")
    return Verdict(
        sent.number,
        sent.sent_at,
        Cause("register", sent.gateway, sent.account or None, message_id=sent.message_id),
        carrier=Carrier(sent.sent_at, "register", brand, sent.carrier),
    )
