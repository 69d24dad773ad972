"""What another policy would have made of the time that is kept: each number's receipts again, in the order of their
arrival, once under the policy in force and once under the other, from the same beginning. Nothing is written.

The beginning is what the feed had told of the number by then. Calls, files, lookups' answers and people's decisions of
the time are heard in both. The breaker stands outside: what it held and nobody released is left out of both, and
counted. A lookup that only the other policy would have asked for has no answer: such numbers wait, and are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from itertools import zip_longest
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.feed import Event, Kind
from app.models.number import Carrier, Change, Fact, Number, OptIn, Reach, Scope, Subscription, Verdict
from app.models.opt_in import Place
from app.models.policy import Policy
from app.models.receipt import FAILED, Status
from app.services import store
from app.services.consent import agreed
from app.services.deactivations.events import LAST, reason_of, when
from app.services.decide import Registered, decide, reported
from app.services.heard import Said
from app.services.meaning import Meaning
from app.services.merge import latest
from app.services.past import Dated, Past, count_heard_of, heard_of, looking, past
from app.services.resolve import Moment, resolve
from app.services.settle import Held, catch_up, hold, outlives, settle
from app.services.shown import consent, show
from app.services.store import Arrival
from app.services.taken_out import TakenOut, taken_out

Tell = Callable[[int, int], None]
"""Hears how many numbers are done, out of how many."""


class Item(NamedTuple):
    """One thing that happens to a number: `opted_out`, `blocked`, a state it enters; or `sendable`, at the end."""

    what: str
    reason: str | None = None
    sender: str | None = None
    list: str | None = None


class Line(NamedTuple):
    """How many numbers it happened to only under the policy in force, only under the other, and under both."""

    item: Item
    only_old: int
    only_new: int
    both: int


class Simulated(NamedTuple):
    """What came of it. `numbers` had receipts in the time, or a file told of them; `differ`: of how many of them
    anything differs. `quarantined`: receipts that the breaker took apart; `unanswered`: numbers that wait, under the
    other policy alone, for a lookup that nobody has made.
    """

    since: datetime
    numbers: int
    receipts: int
    differ: int
    quarantined: int
    unanswered: int
    lines: list[Line]


class Ran(NamedTuple):
    """What happened to one number under one policy."""

    items: set[Item]
    quarantined: int
    unanswered: bool


@dataclass(frozen=True, slots=True)
class Between:
    """The two policies, and what both are read with. `steps`: how many lookups decide in the end."""

    old: Policy
    new: Policy
    meaning: Meaning
    steps: int = 5
    home: str = "US"


async def simulate(engine: AsyncEngine, between: Between, since: datetime, now: datetime, tell: Tell) -> Simulated:
    """Replay what has arrived since then. One page of numbers is in memory at a time."""
    only_old, only_new, both = Counter[Item](), Counter[Item](), Counter[Item]()
    done = receipts = differ = quarantined = unanswered = 0
    async with looking(engine) as db:
        total = await count_heard_of(db, since)
        taken = await taken_out(db, between.meaning, now, released=False)
        async for page in heard_of(db, since):
            for one in await past(db, page, since, between.meaning):
                old, new = (_run(one, policy, between, taken, (since, now)) for policy in (between.old, between.new))
                only_old.update(old.items - new.items)
                only_new.update(new.items - old.items)
                both.update(old.items & new.items)
                receipts, differ = receipts + len(one.receipts), differ + (old.items != new.items)
                quarantined += max(old.quarantined, new.quarantined)
                unanswered += new.unanswered and not old.unanswered
            done += len(page)
            tell(done, total)
    found = sorted(only_old.keys() | only_new.keys() | both.keys(), key=lambda item: tuple(map(str, item)))
    lines = [Line(i, only_old[i], only_new[i], both[i]) for i in found]
    return Simulated(since, done, receipts, differ, quarantined, unanswered, lines)


# One number, one policy --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Life:
    """A number on its way through the time, under one policy."""

    held: Held
    policy: Policy
    between: Between
    taken: TakenOut
    parts: dict[tuple[str, str, str], set[int]] = field(default_factory=dict)
    asked: int = 0
    quarantined: int = 0

    def hear(self, at: datetime, said: Heard) -> list[Change]:
        changes: list[Change] = []
        self.held = hold(self.held.number, self.held.told, self.held.lists, self.policy, at)
        for verdict in self.verdicts(at, said):
            self.held, told = settle(self.held, verdict, self.policy, at)
            changes += told
        return changes

    def verdicts(self, at: datetime, said: Heard) -> Sequence[Verdict]:
        match said:
            case Verdict():
                return [said]
            case Event():
                return [reported(said, self.policy)]
            case Said():
                return self.answered(at, said)
            case Arrival(), (Registered() | None):
                return self.received(*said)
        raise AssertionError(said)

    def received(self, arrival: Arrival, known: Registered | None) -> list[Verdict]:
        if self.taken_out(arrival, known):
            self.quarantined += 1
            return []
        verdict = self.decided(arrival, known, self.policy)
        if arrival.receipt.status is Status.DELIVERED and not self.whole(arrival):
            verdict = replace(verdict, delivered=None)
        return [verdict]

    def taken_out(self, arrival: Arrival, known: Registered | None) -> bool:
        """Whether the breaker has: it counted what the policy in force made of it, whatever another one would."""
        if arrival.receipt.status not in FAILED or not self.taken:
            return False
        policy = self.between.old
        return self.taken.has(arrival, known, self.decided(arrival, known, policy), policy)

    @staticmethod
    def decided(arrival: Arrival, known: Registered | None, policy: Policy) -> Verdict:
        return decide(arrival.receipt, arrival.reason, arrival.arrived, policy, known, brand=arrival.brand)

    def whole(self, arrival: Arrival) -> bool:
        receipt = arrival.receipt
        if receipt.segment is None:
            return True
        parts = self.parts.setdefault(store.id_of(receipt), set())
        parts.add(receipt.segment)
        return not receipt.is_part or len(parts) >= (receipt.segments or max(parts))

    def answered(self, at: datetime, said: Said) -> list[Verdict]:
        """A provider's answer decides where this policy has asked; the last of the timetable decides in the end."""
        if self.held.shown.lookup is None:
            self.asked = 0
            return []
        self.asked += 1
        moment = Moment(at, self.asked >= self.between.steps, self.between.home)
        return resolve(self.held.number, said, moment, self.policy, self.between.meaning.carriers).verdicts


def _run(one: Past, policy: Policy, between: Between, taken: TakenOut, time: tuple[datetime, datetime]) -> Ran:
    """What happens to a number in the time, and on which lists it may be texted at its end."""
    since, now = time
    number, lists = beginning(one, since, between.old)
    life = _Life(hold(number, show(number, policy, since).steps[0], lists, policy, since), policy, between, taken)
    changes: list[Change] = []
    for at, said in _heard(one, since, between.meaning):
        changes += life.hear(at, said)
    held = hold(life.held.number, life.held.told, life.held.lists, policy, now)
    changes += catch_up(held, policy, now)
    items = {item for change in changes if (item := _item(change))} | {*_sendable(held)}
    return Ran(items, life.quarantined, held.shown.lookup is not None and not life.asked)


def _item(change: Change) -> Item | None:
    if change.kind == "list.opted_out" and change.before == "opted_in":
        return Item("opted_out", change.reason, change.sender, change.list)
    if change.kind == "sender.blocked":
        return Item("blocked", change.reason, change.sender)
    if change.kind == "number.state" and change.after not in {"active", "unseen"}:
        return Item(str(change.after), change.reason)
    return None


def _sendable(held: Held) -> Iterator[Item]:
    if held.shown.steps[0].state not in {"active", "unseen"}:
        return
    for (sender, name), one in held.lists.items():
        if outlives(one, held.shown) and sender not in held.shown.blocks and consent(held.number, one)[0] == "opted_in":
            yield Item("sendable", None, sender, name)


# The beginning -----------------------------------------------------------------------------------------------------


def beginning(one: Past, since: datetime, policy: Policy) -> tuple[Number, dict[tuple[str, str], Subscription]]:
    """A number as the feed had told of it by then: the last word on its state, its carrier, each block, each list."""
    number, lists = Number(one.number), dict[tuple[str, str], Subscription]()
    last = {(c.kind.split(".")[0], c.kind == "number.carrier", c.sender, c.list): c
            for c, at in one.changes if at < since}  # fmt: skip
    for change in last.values():
        fact = Fact(change.occurred_at, change.occurred_at, change.reason or change.after or "", change.cause)
        if change.kind == "number.state":
            number = _state(number, change, fact, policy)
        elif change.kind == "number.carrier":
            number = replace(number, carrier=_carrier(change))
        elif change.kind == "sender.blocked":
            number = _reach(number, change.sender or "", blocks={fact.reason: fact})
    for change, at in one.changes:
        if change.list is not None and (at < since or _was_refused(change, since)):
            _list(lists, change)
    for (sender, _), held in lists.items():
        if held.opted_in:
            came = held.opted_in.at
            known = number.senders.get(sender, Reach())
            number = _reach(number, sender, opted_in=latest(known.opted_in, came))
            number = replace(number, opted_in=latest(number.opted_in, came), seen=True)
    return number, lists


def _was_refused(change: Change, since: datetime) -> bool:
    """Whether an opt-in met an end of consent from before the time, of which no list had told yet."""
    return change.kind == "list.opted_out" and change.before is None and change.occurred_at < since


def _state(number: Number, change: Change, fact: Fact, policy: Policy) -> Number:
    if change.after in {"active", "unseen"}:
        return replace(number, seen=change.after == "active")
    asks = policy.rule(fact.reason).lookup
    # Of the strikes that made it unreachable nothing is known: it stands by itself, whatever comes of that reason now.
    key = "unreachable/before" if change.after == "unreachable" else f"{change.after}/{fact.reason}"
    return replace(number, seen=True, conditions={key: replace(fact, lookup=asks)})


def _carrier(change: Change) -> Carrier | None:
    source = change.cause.source or change.cause.gateway or change.cause.kind
    return Carrier(change.occurred_at, source, change.after) if change.after else None


def _reach(number: Number, sender: str, **known: object) -> Number:
    reach = replace(number.senders.get(sender, Reach()), **known)
    return replace(number, senders=number.senders | {sender: reach})


def _list(lists: dict[tuple[str, str], Subscription], change: Change) -> None:
    key = (change.sender or "", change.list or "")
    held = lists.get(key) or Subscription(change.number, *key)
    if change.kind == "list.opted_in":
        given = OptIn(change.occurred_at, change.cause.source or "", change.cause.evidence)
        # Who stands as opted in again by a decision, not by an opt-in, has the opt-in of before.
        lists[key] = replace(held, out=None, opted_in=given if change.cause.kind == "call" else held.opted_in or given)
    else:
        out = Fact(change.occurred_at, change.occurred_at, change.reason or "", change.cause)
        lists[key] = replace(held, out=out)


# What was heard ----------------------------------------------------------------------------------------------------

Heard = Verdict | Event | Said | tuple[Arrival, Registered | None]


def _heard(one: Past, since: datetime, meaning: Meaning) -> list[tuple[datetime, Heard]]:
    """Everything of the time, in the order in which it came."""
    heard: list[tuple[datetime, Heard]] = [(pair[0].arrived, pair) for pair in one.receipts]
    heard += one.answers
    heard += [(at, said) for change, at in one.changes if at >= since for said in _told(change, meaning)]
    heard += [(at, said) for at, said in _released(one.changes) if at >= since]
    heard += [(max(at, since), said) for at, said in _calls(one)]
    return sorted(heard, key=lambda pair: pair[0])


def _told(change: Change, meaning: Meaning) -> Iterator[Heard]:
    """What a change tells of a call, a file, the register or a person's decision: they stand whatever the policy is."""
    cause, at = change.cause, change.occurred_at
    place = Place(change.number, change.sender or "", change.list or "")
    if cause.kind == "call" and change.kind == "list.opted_in":
        yield agreed(place, OptIn(at, cause.source or "", cause.evidence))
    elif cause.kind in {"call", "person"} and change.kind == "list.opted_out":
        yield _left(place, Fact(at, at, change.reason or "", cause))
    elif cause.kind in {"register", "file"} and change.kind == "number.carrier":
        yield Verdict(change.number, at, cause, carrier=_carrier(change))
    elif cause.kind == "file" and change.kind in {"number.state", "list.opted_out"}:
        yield _record(change, meaning)


def _released(changes: Sequence[Dated]) -> Iterator[tuple[datetime, Verdict]]:
    """The holds that a person has ended. Where something older holds the number at once, it was a mass event that the
    person let happen.
    """
    states = [dated for dated in changes if dated.change.kind == "number.state"]
    for (change, committed_at), following in zip_longest(states, states[1:]):
        at, then = change.occurred_at, following.change if following else None
        happened = then is not None and then.after == "held" and then.occurred_at <= at
        if change.cause.kind == "person" and change.before == "held" != change.after and not happened:
            yield committed_at, Verdict(change.number, at, change.cause, cleared=(("held", at),), released=True)


def _record(change: Change, meaning: Meaning) -> Heard:
    """A file's record. A port that ended something named the new carrier; what stands at the end of a day was of it."""
    cause, at = change.cause, change.occurred_at
    kind: Kind = cause.code or "DEACT"  # type: ignore[assignment] # as it was written
    if kind == "PORT" and change.after != "held":
        return Verdict(change.number, at, cause, cleared=tuple((state, at) for state in ("port", "held", "porting")))
    day = datetime.combine(at.astimezone(UTC), time(), UTC)
    _, guard = when(day.date() if at == day + LAST else at, kind, at)
    return Event(change.number, kind, reason_of(kind, meaning), at, guard, cause.source or "")


def _calls(one: Past) -> Iterator[tuple[datetime, Verdict]]:
    """Calls that changed nothing when they came, and would have under another policy: one about a list that was not
    there yet came with it, an opt-out of several lists with what it changed; of all others only the date is known.
    """
    began = {(d.change.sender, d.change.list): d.committed_at for d in reversed(one.changes) if d.change.list}
    told = {(d.change.kind, d.change.occurred_at): d.committed_at for d in reversed(one.changes)}
    of_lists = {(c.kind, c.occurred_at, c.sender, c.list) for c, _ in one.changes}  # one form may sign up to many
    for held in one.lists:
        place, given, out = Place(held.number, held.sender, held.list), held.opted_in, held.out
        if given and ("list.opted_in", given.at, *place[1:]) not in of_lists:
            yield max(given.at, began.get(place[1:], given.at)), agreed(place, given)
        if out and out.cause.kind == "call" and ("list.opted_out", out.at, *place[1:]) not in of_lists:
            yield out.at, _left(place, out)
    reached = {sender: reach.out for sender, reach in one.known.senders.items()} | {None: one.known.out}
    for sender, out in reached.items():
        if out and out.cause.kind in {"call", "person"}:
            scope: Scope = "sender" if sender else "all"
            verdict = Verdict(one.number, out.at, out.cause, sender=sender, out=out, scope=scope)
            yield told.get(("list.opted_out", out.at), out.at), verdict


def _left(place: Place, out: Fact) -> Verdict:
    return Verdict(place.number, out.at, out.cause, sender=place.sender, list=place.list, out=out, scope="list")
