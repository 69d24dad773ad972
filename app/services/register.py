"""The sent-message register: what our platforms sent, so that receipts which carry only an id find their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple, TypeAlias

from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Carrier, Cause, Verdict
from app.models.receipt import NEVER
from app.services import store
from app.services.arrival import arrival
from app.services.connection import Connection, transaction
from app.services.decide import Registered, believed
from app.services.keep import act, by_register, corrected, totals
from app.services.meaning import Meaning
from app.services.store import Arrival

AT_ONCE = 5_000
"""Messages in one transaction: the feed's order is the order of commits, so none may last long."""
KEPT = timedelta(days=14)
"""For which a message's number is found by its id, and a receipt waits for it."""
UNTOLD = ""
"""The carrier of a message of which the register says nothing: to have named none when sending would say something."""

Named: TypeAlias = tuple[Arrival, Registered]


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
        entries = {one[:3]: Registered(one.number, one.sender, one.sent_at, one.carrier) for one in sent}
        waiting = _in_turn(await store.take_unnamed(db, entries))
        waited = [by_register(a, entries[store.id_of(a.receipt)]) for a in waiting]
        undated = [(a, entries[store.id_of(a.receipt)]) for a in _in_turn(await _undated(db, entries, meaning, now))]
        carriers = [_served_by(one, meaning) for one in sent if one.carrier]
        await _apply(db, waited, meaning, now, undated=undated, besides=carriers)
    return len(waited)


async def _apply(db: Connection, waited: Sequence[Named], meaning: Meaning, now: datetime, *,
                 undated: Sequence[Named] = (), besides: Sequence[Verdict] = ()) -> None:  # fmt: skip
    """Receipts that `waited` count from now on; the `undated` have been counted, but for what they opt out by now."""
    await store.name_receipts(db, waited)
    acted = await act(db, [*waited, *undated], meaning, now, again=True, besides=besides)
    acted.recounted.update(corrected(acted.told[len(waited) :]))
    await store.count(db, totals(acted.told[: len(waited)], acted.recounted, named=True))
    await store.alarm(db, acted.alarms, now)
    await store.publish(db, acted.every_change)


async def name_senders(engine: AsyncEngine, gateway: str, account: str, sender: str, meaning: Meaning) -> int:
    """Apply the receipts that were waiting for a sender, now that the settings of their link name one."""
    applied = 0
    while done := await _name_senders(engine, gateway, account, sender, meaning):
        applied += done
    return applied


async def _name_senders(engine: AsyncEngine, gateway: str, account: str, sender: str, meaning: Meaning) -> int:
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        waited = [
            (a, Registered(a.receipt.number or "", sender, NEVER, UNTOLD))
            for a in await store.take_senderless(db, gateway, account, AT_ONCE)
        ]
        if waited:
            await _apply(db, waited, meaning, now)
    return len(waited)


async def _undated(db: Connection, entries: Mapping[store.MessageId, Registered], meaning: Meaning,
                   now: datetime) -> list[Arrival]:  # fmt: skip
    """Receipts that acted on the supposition that their message was sent when they happened, or that a carrier had been
    named. Not those that were merged for good since, nor those of a reason that spares badly written numbers: whether
    theirs was is not kept.
    """
    policy = meaning.policy
    unrouted = [reason for reason, rule in policy.rules.items() if rule.unrouted_consent]
    came = await store.undated(db, entries, unrouted, now - policy.breaker.window)
    arrivals = [arrival(one, at, meaning) for one, at in came
                if one.sent_at is None or entries[store.id_of(one)].carrier is None]  # fmt: skip
    return [a for a in arrivals if a.reason is None or not policy.rule(a.reason).malformed_spares]


def _in_turn(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """As they are to be heard: behind those that never acted the others, the last to have happened first. Of deliveries
    its supposed date hides the dates of those before it.
    """

    def turn(one: Arrival) -> float:
        at = believed(one.receipt.occurred_at, one.arrived) or one.arrived
        return -at.timestamp() if one.receipt.number else -inf

    return sorted(arrivals, key=turn)


def _served_by(sent: Sent, meaning: Meaning) -> Verdict:
    brand = meaning.carriers.name(sent.carrier or "", sent.number)
    return Verdict(
        sent.number,
        sent.sent_at,
        Cause("register", sent.gateway, sent.account or None, message_id=sent.message_id),
        carrier=Carrier(sent.sent_at, "register", brand, sent.carrier),
    )
