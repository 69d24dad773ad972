"""What would have been answered about a number at a moment of the past, and why: by the changes that were committed by
then. A lapse counts from its own instant, whenever the feed told it, as it did for whoever asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.feed import SPACE
from app.models.number import Cause, Fact, Number, OptIn, Reach, Step, Subscription
from app.services import store
from app.services.aside import acting
from app.services.breaker import BREAKER
from app.services.connection import Connection
from app.services.merge import later, merge
from app.services.past import looking
from app.services.shown import DEAD
from app.services.status import Asked, Told, answer, in_utc

_CHANGES = """
SELECT sender, list, kind, before, after, reason, cause, occurred_at, committed_at FROM changes
WHERE number = $1 ORDER BY seq
"""
_NOW = """
SELECT facts, steps, state, reason, dead_since, changed_at, noted_by IS NOT NULL AS noted,
       coalesce(carrier ->> 'name', carrier ->> 'name_raw') AS carrier, carrier ->> 'source' AS source,
       (carrier ->> 'at')::timestamptz AS carried_at
FROM numbers WHERE number = $1
"""
_BLOCKS = "SELECT sender, reason FROM sender_blocks WHERE number = $1"
_LISTS = "SELECT sender, list, consent, opted_in_at, reason, at FROM subscriptions WHERE number = $1"
_RECEIPTS = """
SELECT gateway, account, message_id, code, min(received_at) AS first, max(received_at) FILTER (WHERE received_at <= $2)
AS last FROM receipts WHERE number = $1 GROUP BY 1, 2, 3, 4
"""
Rows = Iterable[Sequence[Any]]
Axis = tuple[str | None, str | None, str]
Arrivals = Mapping[tuple[str | None, str | None, str | None, str | None], datetime]


async def as_of(engine: AsyncEngine, number: str, at: datetime, asked: Asked) -> Told:
    """The answer in the shape of the present one. What no change tells of is null: `waiting_for`, `until`, and of the
    carrier all but its name.
    """
    async with looking(engine) as db:
        receipts = await db.fetch(_RECEIPTS, number, at)
        arrivals = {(row[0], row[1] or None, row[2], row[3]): row["first"] for row in receipts}
        then = await _then(db, number, at, arrivals)
    last = max((row["last"] for row in receipts if row["last"]), default=None)
    steps = [{"state": then.state, "reason": then.reason, "fact": then.fact}] if then.fact else []
    lists = orjson.dumps([*then.judged()]).decode() if then.lists else None
    row = (
        number, then.state, then.reason, None, None, orjson.dumps(steps).decode() if steps else "[]", then.changed_at,
        last, at, then.carrier and orjson.dumps(then.carrier).decode(), orjson.dumps(then.blocks).decode(), lists,
    )  # fmt: skip
    return answer(row, asked)


async def _then(db: Connection, number: str, at: datetime, arrivals: Arrivals) -> _Then:
    rows = [*await db.fetch(_CHANGES, number)]
    present = await db.fetchrow(_NOW, number)
    then = _Then(at)
    if present and present["noted"]:
        then.noted(present)
        return then
    if present:
        first = {_axis(row): row for row in reversed(rows)}
        then.stand(present, first)
        then.reach(await db.fetch(_BLOCKS, number), await db.fetch(_LISTS, number), first)
    told = [row for row in rows if _known_at(row) <= at]
    for row in told:
        then.hear(row)
    states = [row for row in rows if row["kind"] == "number.state"]
    if present and (not states or states[-1] in told):
        then.lapse(store.steps_of(present["steps"]))
    if present and present["facts"]:
        dated = (row for row in rows if row["kind"] in {"number.state", "list.opted_in"})
        moved = {row["occurred_at"]: _known_at(row) for row in dated}
        lists = [*(await store.lists(db, [number])).get(number, {}).values()]
        heard = _Heard(moved, arrivals, [*_unfit(states)])
        then.remember(acting(store.number_of(present["facts"]), merge), lists, heard)
    return then


def _axis(row: Mapping[str, Any]) -> Axis:
    """What a change is about: the state or the carrier of the number, a sender, or one of its lists."""
    return (row["sender"], row["list"], row["kind"] if row["sender"] is None else "")


def _known_at(row: Mapping[str, Any]) -> datetime:
    """From when on readers were told: a lapse holds from its instant, everything else from its commit."""
    cause = store.cause_of(row["cause"])
    told: datetime = row["occurred_at"] if cause.kind == "lapse" else row["committed_at"]
    return told


def _unfit(states: Iterable[Mapping[str, Any]]) -> Iterator[tuple[datetime, datetime]]:
    """From when to when readers were told that a number may not be texted."""
    since, was = _BEGINNING, ""
    for row in states:
        if row["before"] not in _FIT:
            yield since, _known_at(row)
        since, was = _known_at(row), row["after"]
    if was not in _FIT:
        yield since, _END


_FIT = frozenset({"active", "unseen"})
_BEGINNING, _END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Heard:
    """When something was heard of that changed nothing then: with a change of the state or an opt-in at that moment,
    with its receipt while that is kept, else when it happened; a death not before the number was `unfit`, since it
    would have changed one that could be texted.
    """

    moved: Mapping[datetime, datetime]
    arrivals: Arrivals
    unfit: Sequence[tuple[datetime, datetime]]

    def at(self, when: datetime, cause: Cause | None) -> datetime:
        if cause and cause.kind == "receipt":
            came = self.arrivals.get((cause.gateway, cause.account, cause.message_id, cause.code))
            if came:
                return came
        return self.moved.get(when, when)

    def death(self, fact: Fact) -> datetime:
        at = self.at(fact.at, fact.cause)
        return at if at != fact.at else next((max(at, since) for since, upto in self.unfit if at <= upto), at)


@dataclass(slots=True)
class _List:
    consent: str
    at: datetime
    reason: str | None
    came: datetime | None


@dataclass(slots=True)
class _Then:
    """A number as it was told of at that moment. `deaths`: when it left its subscriber, unless a port disproves it."""

    at: datetime
    state: str = "unseen"
    reason: str | None = None
    fact: Told | None = None
    changed_at: datetime | None = None
    carrier: Told | None = None
    blocks: dict[str, str | None] = field(default_factory=dict)
    lists: dict[tuple[str, str], _List] = field(default_factory=dict)
    deaths: set[datetime] = field(default_factory=set)

    def stand(self, present: Mapping[str, Any], first: Mapping[Axis, Mapping[str, Any]]) -> None:
        """As it was before the first change that is still kept; what none of those has moved, it was as it is now."""
        if moved := first.get((None, None, "number.state")):
            self.state = moved["before"]
        else:
            step = next(iter(store.steps_of(present["steps"])), None)
            self.state, self.reason, self.changed_at = present["state"], present["reason"], present["changed_at"]
            self.fact = _fact(step.fact.at, step.fact.cause) if step and step.fact else None
        if (None, None, "number.carrier") not in first and present["carrier"]:
            self.carrier = _named(present["carrier"], present["source"], present["carried_at"])

    def reach(self, blocks: Rows, lists: Rows, first: Mapping[Axis, Mapping[str, Any]]) -> None:
        """The same of senders and lists. An opt-in that ended since counts where its date is still known."""
        self.blocks |= {sender: reason for sender, reason in blocks if (sender, None, "") not in first}
        self.blocks |= {row["sender"]: row["reason"] for row in first.values() if row["kind"] == "sender.unblocked"}
        for sender, name, consent, came, reason, at in lists:
            moved = first.get((sender, name, ""))
            if moved is None:
                self.lists[sender, name] = _List(consent, at, reason, came)
            elif moved["before"] == "opted_in" and came and came <= self.at:
                self.lists[sender, name] = _List("opted_in", came, None, came)

    def hear(self, row: Mapping[str, Any]) -> None:
        cause = store.cause_of(row["cause"])
        match row["kind"]:
            case "number.state":
                self._state(row, cause)
            case "number.carrier":
                self.carrier = _carrier(row, cause)
            case "sender.blocked":
                self.blocks[row["sender"]] = row["reason"]
            case "sender.unblocked":
                self.blocks.pop(row["sender"], None)
            case _:
                self._list(row, cause)

    def _state(self, row: Mapping[str, Any], cause: Cause) -> None:
        if row["before"] == row["after"] == "active":
            self.deaths.clear()  # a port disproves a death that was outlived
            return
        self.state, self.changed_at = row["after"], _known_at(row)
        shown = self.state not in _FIT
        self.reason = row["reason"] if shown else None
        self.fact = _fact(row["occurred_at"], cause) if shown else None
        if self.state in DEAD:
            if self.state != "reassigned" or row["before"] not in DEAD:  # else it is the date of a delivery
                self.deaths.add(row["occurred_at"])
        elif cause.source == BREAKER:
            self.deaths.clear()  # a mass event is undone
        elif row["before"] in DEAD and cause.kind in {"lookup", "file"} and row["occurred_at"] not in self.deaths:
            self.deaths.clear()  # a port was proven; what had been outlived is told with the date of the death itself

    def _list(self, row: Mapping[str, Any], cause: Cause) -> None:
        key = (row["sender"], row["list"])
        old = self.lists.get(key)
        came = old.came if old else None
        if row["after"] == "opted_in":
            came = row["occurred_at"] if cause.kind == "call" or came is None else came
            self.lists[key] = _List("opted_in", came, None, came)
        else:
            self.lists[key] = _List("opted_out", row["occurred_at"], row["reason"], came)

    def lapse(self, steps: Sequence[Step]) -> None:
        """The present state, where it has lapsed by that moment and the feed has not told it yet."""
        ended = None
        for step in steps:
            if ended:
                self.state, self.reason, self.changed_at = step.state, step.reason, ended
                self.fact = _fact(step.fact.at, step.fact.cause) if step.fact else None
            ended = step.until if step.until and step.until <= self.at else None
            if ended is None:
                return

    def remember(self, facts: Number, lists: Sequence[Subscription], heard: _Heard) -> None:
        """What changed nothing when it came and counted all the same: a death that a newer opt-in outlived, a second
        opt-in, a second opt-out.
        """
        for key, fact in facts.conditions.items():
            state = key.split("/", 1)[0]
            port = facts.cleared.get(state)
            disproved = port is not None and fact.at <= port <= self.at
            if state in DEAD and not disproved and heard.death(fact) <= self.at:
                self.deaths.add(fact.at)
        for held in lists:
            if known := self.lists.get((held.sender, held.list)):
                self._renewed(known, held.opted_in, heard)
                reach = facts.senders.get(held.sender, Reach())
                self._left_again(known, (held.out, reach.out, reach.struck, facts.out), heard)

    def _renewed(self, known: _List, given: OptIn | None, heard: _Heard) -> None:
        if given and known.came and known.came < given.at and heard.at(given.at, None) <= self.at:
            known.came = given.at
            known.at = given.at if known.consent == "opted_in" else known.at

    def _left_again(self, known: _List, outs: Iterable[Fact | None], heard: _Heard) -> None:
        told = [fact for fact in outs if fact and heard.at(fact.at, fact.cause) <= self.at]
        out = reduce(later, told, None) if known.consent == "opted_out" else None
        if out and out.at >= known.at:
            known.at, known.reason = out.at, out.reason

    def noted(self, present: Mapping[str, Any]) -> None:
        """A number that only a deactivation file has spoken of."""
        if present["changed_at"] <= self.at:
            kind = "TRANSFER" if present["reason"] == "number_changed" else "DEACT"
            self.state, self.reason, self.changed_at = present["state"], present["reason"], present["changed_at"]
            self.fact = _fact(present["dead_since"], Cause("file", code_space=SPACE, code=kind))

    def judged(self) -> Iterator[Told]:
        """Each list by its own consent alone, in the words of the present answer."""
        dead = max(self.deaths, default=None)
        for (sender, name), one in sorted(self.lists.items()):
            older = dead is not None and (one.came is None or one.came <= dead)
            opted_in = one.consent == "opted_in"
            yield {
                "sender": sender, "list": name, "consent": one.consent, "sendable": opted_in and not older,
                "reason": one.reason if not opted_in else "deactivated" if older else None, "at": in_utc(one.at),
            }  # fmt: skip


def _carrier(row: Mapping[str, Any], cause: Cause) -> Told | None:
    if row["after"] is None:
        return None
    return _named(row["after"], cause.source or cause.gateway or cause.kind, row["occurred_at"])


def _named(name: str, source: str, at: datetime) -> Told:
    rest = dict.fromkeys(("name_raw", "mcc", "mnc", "line_type", "ported", "ported_at"))
    return {"name": name, **rest, "source": source, "as_of": in_utc(at)}


def _fact(at: datetime, cause: Cause) -> Told:
    told = {
        "gateway": cause.gateway,
        "code_space": cause.code_space,
        "code": cause.code,
        "message_id": cause.message_id,
    }
    return {"at": in_utc(at), "cause": told}
