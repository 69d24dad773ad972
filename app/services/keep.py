"""Keeps receipts, with everything that follows from them, in the caller's transaction: a fixed number of statements,
however many they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from app.models.number import Change, Verdict
from app.models.policy import Policy
from app.models.receipt import FINAL, Receipt, Status
from app.services import breaker, opt_outs, store
from app.services.apply import Applied, apply
from app.services.aside import UNDATED
from app.services.breaker import Guard
from app.services.connection import Connection
from app.services.decide import Registered, decide
from app.services.meaning import Meaning
from app.services.shown import network_of
from app.services.store import Arrival, CountKey, Kept

Entry = TypeVar("Entry", Registered, Registered | None)

PARTS_WITHIN = timedelta(days=14)
"""How long the parts of one message are looked for."""


async def keep(db: Connection, arrivals: Iterable[Arrival], unread: Sequence[Kept], meaning: Meaning, now: datetime,
               *, read: Sequence[int] = (), proven: Sequence[int] = ()) -> tuple[list[Arrival], int]:  # fmt: skip
    """Keep these receipts and everything that follows from them, in the caller's transaction. `read` are the ids of
    unread callbacks, `proven` those of refused ones, that they come from: those go.

    Returns the receipts that had not been taken before, and how many of `read` and `proven` were still there.
    """
    keyed: dict[UUID, Arrival] = {}
    for one in arrivals:
        keyed.setdefault(one.key, one)  # of two kept callbacks that say the same, the first to arrive
    fresh = await store.add_keys(db, keyed, now) if keyed else set()
    taken = [one for key, one in keyed.items() if key in fresh]
    acted = await _take(db, taken, meaning, now) if taken else _NOTHING
    await store.keep_unread(db, unread, now)
    gone = await store.drop_unread(db, read) + await store.drop_refused(db, proven)
    await store.count(db, totals(acted.told, acted.recounted))
    await store.alarm(db, alarms(taken, meaning.policy) + Counter(acted.alarms), now)
    await store.note_unknown(db, taken, now)
    await store.publish(db, acted.every_change)
    return taken, gone


async def _take(db: Connection, taken: list[Arrival], meaning: Meaning, now: datetime) -> Acted:
    identified = [a.receipt for a in taken if a.receipt.message_id is not None]
    ids = {store.id_of(receipt) for receipt in identified}
    awaited = {store.id_of(receipt) for receipt in identified if _lacks_a_name(receipt) or _delivers_a_part(receipt)}
    numbers = {a.receipt.number for a in taken if a.receipt.number}
    known, lacking = await store.find_messages(db, ids, awaited, numbers, now) if ids else ({}, None)
    pairs = [by_register(a, known.get(store.id_of(a.receipt))) for a in taken]
    await store.add_receipts(db, pairs)
    await store.add_unnamed(db, [a for a, entry in pairs if entry is None and _lacks_a_name(a.receipt)])
    named = [(a, entry) for a, entry in pairs if a.receipt.number or entry]
    return await act(db, named, meaning, now, lacking=lacking)


def by_register(one: Arrival, entry: Entry) -> tuple[Arrival, Entry]:
    """A receipt beside what the register tells of its message: whose sender was merely supposed has the one told."""
    if entry and one.receipt.supposed:
        one = replace(one, receipt=replace(one.receipt, sender=entry.sender, supposed=False))
    return one, entry


async def act(db: Connection, pairs: Sequence[Pair], meaning: Meaning, now: datetime, *, again: bool = False,
              besides: Sequence[Verdict] = (), lacking: set[str] | None = None) -> Acted:  # fmt: skip
    """Decide on receipts that have a number, and keep what follows. `again`: they were heard before their messages
    were in the register. `besides`: what else is known of numbers. `lacking`: those of the numbers that have no row
    yet, where that is known.
    """
    policy = meaning.policy
    verdicts = await _decided(db, pairs, policy, now)
    if again:
        verdicts = [
            replace(verdict, named=f"held/{a.reason}/{a.receipt.message_id}", dated=bool(a.receipt.number))
            for (a, _), verdict in zip(pairs, verdicts, strict=True)
        ]
    arrivals = [a for a, _ in pairs]
    carriers = [_carrier(a, entry, meaning, again=again) for a, entry in pairs]
    keys = [breaker.key_of(*one, policy) for one in zip(arrivals, carriers, verdicts, strict=True)]
    if again:
        await breaker.heard_again(db, arrivals, keys, verdicts, policy.breaker)
    watched = await breaker.watch(db, keys, verdicts, Guard(policy, meaning.tally), now)
    acting = [_undoable(v, entry) for v, (_, entry) in zip(watched.verdicts, pairs, strict=True)]
    every = [*watched.closing, *acting, *besides, *watched.undoing]
    applied = await apply(db, every, policy, now, lacking=lacking)
    first, last = len(watched.closing), len(every) - len(watched.undoing)
    rows = zip(arrivals, carriers, verdicts, applied.changes[first:], strict=False)
    told = [Told(a, v, changes, c or _network(applied, a, v, again=again)) for a, c, v, changes in rows]
    recounted, changed = Counter[CountKey](), applied.changes[:first] + applied.changes[last:]
    for verdict, changes in zip(watched.closing + watched.undoing, changed, strict=True):
        carrier = opt_outs.served_by(watched.keys[verdict.apart or ""], applied.held[verdict.number])
        recounted.update(opt_outs.left(changes, carrier))
        recounted.update(opt_outs.taken_back(changes, carrier))
    return Acted(told, applied.every_change, watched.alarms, recounted)


async def _decided(db: Connection, pairs: Sequence[Pair], policy: Policy, now: datetime) -> list[Verdict]:
    """What each receipt says. A message in parts is delivered when all of them are."""
    verdicts = [decide(a.receipt, a.reason, a.arrived, policy, entry, brand=a.brand) for a, entry in pairs]
    partial = {store.id_of(a.receipt) for a, _ in pairs if _delivers_a_part(a.receipt)}
    whole = await store.whole_messages(db, partial, now - PARTS_WITHIN) if partial else set()
    if incomplete := partial - whole:
        verdicts = [
            replace(verdict, delivered=None) if store.id_of(a.receipt) in incomplete else verdict
            for (a, _), verdict in zip(pairs, verdicts, strict=True)
        ]
    return verdicts


def _carrier(one: Arrival, entry: Registered | None, meaning: Meaning, *, again: bool) -> str:
    """The carrier that the receipt names, else the register; of one that acted before, as far as was known then."""
    return breaker.carrier_of(one, None if again and _has_acted(one) else entry, meaning.carriers)


def _network(applied: Applied, one: Arrival, verdict: Verdict, *, again: bool) -> str:
    """The carrier that serves the number, where the sender is known; of one that acted before, the same as then."""
    if not verdict.sender:
        return ""
    held = applied.before if again and _has_acted(one) else applied.held
    return network_of(held[verdict.number].shown.carrier) or ""


def _has_acted(one: Arrival) -> bool:
    """Whether a receipt that is heard again acted the first time: it lacked neither number nor sender then."""
    return bool(one.receipt.number and one.receipt.sender)


def _undoable(verdict: Verdict, entry: Registered | None) -> Verdict:
    """Kept aside when it ends consent and the register may still tell that its message was sent before an opt-in."""
    supposed = verdict.out and verdict.out.guard == verdict.at and verdict.cause.message_id
    if (supposed and entry is None) or (verdict.out and verdict.dated):
        return verdict if verdict.apart is not None else replace(verdict, apart=UNDATED)
    return verdict


def _lacks_a_name(receipt: Receipt) -> bool:
    """Whether the register could still add something: a number, or the sender of a final receipt."""
    if receipt.message_id is None:
        return False
    return receipt.number is None or (receipt.sender is None and receipt.status in FINAL)


def _delivers_a_part(receipt: Receipt) -> bool:
    """Whether other receipts decide with it if its message is delivered."""
    return receipt.is_part and receipt.status is Status.DELIVERED


Pair: TypeAlias = tuple[Arrival, Registered | None]


class Told(Struct, frozen=True, gc=False):
    """One receipt that acted: what was decided, what changed, and under which carrier it counts: the one that it tells
    of, else the one that its message was sent by, else, where its sender is known, the one that serves the number.
    """

    arrival: Arrival
    verdict: Verdict
    changes: list[Change]
    carrier: str


class Acted(NamedTuple):
    """What came of a group: its receipts one by one; every change in order, also those of what else was known or of a
    mass event that is undone or was decided; the alarms that it raised; and by how much the counts of opt-outs are to
    be corrected for mass events.
    """

    told: list[Told]
    every_change: list[Change]
    alarms: dict[tuple[str, str], int]
    recounted: Counter[CountKey]


_NOTHING = Acted([], [], {}, Counter())


def totals(told: Sequence[Told], recounted: Mapping[CountKey, int], *, named: bool = False) -> Counter[CountKey]:
    """What to add to the hourly counts: final receipts and the opt-outs they brought, by sender, carrier and hour of
    the event, beside what is `recounted`. `named`: those that had a number but no sender were counted under no sender,
    and the carrier that they told of, when they came; they move to the sender that they have now.
    """
    counts = Counter(recounted)
    counts.update(key for one in told for key in _outcomes(one, one.verdict.sender or "", one.carrier))
    if named:
        moved = [one for one in told if one.arrival.receipt.number and not one.arrival.receipt.sender]
        counts.subtract(key for one in moved for key in _outcomes(one, "", breaker.own_carrier(one.arrival)))
    counts.update(corrected(told))
    return counts


def _outcomes(one: Told, sender: str, carrier: str) -> Sequence[CountKey]:
    if one.arrival.receipt.status not in FINAL:
        return ()
    hour = store.hour_of(one.verdict.at)
    return (hour, sender, carrier, "sent"), (hour, sender, carrier, one.arrival.reason or "delivered")


def corrected(told: Sequence[Told]) -> Counter[CountKey]:
    """The opt-outs that receipts brought, and took back."""
    counts = Counter[CountKey]()
    for one in told:
        if any(change.list for change in one.changes):
            counts.update(opt_outs.left(one.changes, one.carrier))
            counts.update(opt_outs.taken_back(one.changes, one.carrier))
    return counts


def alarms(taken: Sequence[Arrival], policy: Policy) -> Counter[tuple[str, str]]:
    """Codes that nobody has mapped, and errors that are ours to mend."""
    raised: Counter[tuple[str, str]] = Counter()
    for a in taken:
        kind = "unknown_code" if a.unmapped else a.reason
        if kind and (a.unmapped or policy.rule(kind).alarm):
            r = a.receipt
            raised[kind, "/".join(filter(None, (r.gateway, r.account, r.code_space, a.spelled or r.code)))] += 1
    return raised
