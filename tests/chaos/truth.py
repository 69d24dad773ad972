"""What must be in the database after a set of facts, by the pure half of the service alone; and what is not so.

Every function gives lines that say what is wrong: none is what a test wants to see.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from itertools import groupby
from typing import Any, NamedTuple

import asyncpg
from msgspec.json import Decoder
from msgspec.structs import replace

from app.models.number import Carrier, Cause, Number, Subscription, Verdict
from app.models.number import Fact as Dated
from app.models.receipt import FAILED, Broken, Receipt, Status
from app.services.aside import acting
from app.services.decide import Registered as Known
from app.services.decide import decide, reason_of
from app.services.meaning import Meaning
from app.services.merge import merge, merge_list
from app.services.register import Sent
from app.services.shown import DEAD, consent, show
from tests.chaos.facts import Fact, OptedIn, OptedOut, Posted, Registered
from tests.chaos.load import Log

_number_of = Decoder(Number).decode
Rows = Sequence[asyncpg.Record]


class Name(NamedTuple):
    """What tells one receipt from another: never its time, but where it has no message id."""

    gateway: str
    message_id: str | None
    status: str
    code: str | None
    number: str | None
    occurred_at: datetime | None

    @classmethod
    def of(cls, receipt: Receipt) -> Name:
        return cls(receipt.gateway, receipt.message_id, receipt.status.value, receipt.code,
                   *((None, None) if receipt.message_id else (receipt.number, receipt.occurred_at)))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """A receipt that is stored: as its gateway meant it, with its arrival, and what the register knows of it."""

    receipt: Receipt
    arrived: datetime
    reason: str | None
    unmapped: bool
    brand: str | None
    known: Known | None

    @property
    def number(self) -> str | None:
        return self.receipt.number or (self.known.number if self.known else None)

    def verdict(self, meaning: Meaning) -> Verdict:
        return decide(self.receipt, self.reason, self.arrived, meaning.policy, self.known, brand=self.brand)


@dataclass(frozen=True, slots=True)
class Kept:
    """The tables as they stand."""

    receipts: Rows
    numbers: Rows
    blocks: Rows
    lists: Rows
    counts: Rows
    changes: Rows
    alarms: Rows
    messages: Rows
    unread: Rows
    lookups: set[str]
    keys: int
    unnamed: int


async def kept(url: str) -> Kept:
    """Read in one transaction."""
    session = await asyncpg.connect(url)
    try:
        async with session.transaction(isolation="repeatable_read", readonly=True):

            async def table(name: str, order: str) -> Rows:
                return await session.fetch(f"SELECT * FROM {name} ORDER BY {order}")  # noqa: S608 - ours

            return Kept(
                receipts=await table("receipts", "received_at, key"), numbers=await table("numbers", "number"),
                blocks=await table("sender_blocks", "number, sender"), changes=await table("changes", "seq"),
                lists=await table("subscriptions", "number, sender, list"), alarms=await table("alarms", "kind, key"),
                counts=await table("hourly_counts", "hour, sender, carrier, outcome"),
                messages=await table("messages", "gateway, account, message_id"), unread=await table("unread", "id"),
                lookups={row["number"] for row in await session.fetch("SELECT number FROM lookups")},
                keys=await session.fetchval("SELECT count(*) FROM receipt_keys"),
                unnamed=await session.fetchval("SELECT count(*) FROM unnamed"),
            )  # fmt: skip
    finally:
        await session.close()


async def stored(url: str) -> Counter[Name]:
    """The receipts that are there now, by name; each should be there once."""
    session = await asyncpg.connect(url)
    try:
        return Counter(_name(row) for row in await session.fetch("SELECT * FROM receipts"))
    finally:
        await session.close()


def wrong(log: Log, held: Kept, meaning: Meaning) -> list[str]:
    """Everything at once: no answer was a lie, and every effect of what is stored happened once."""
    said = [*_said(log, held, meaning)]
    numbers, lists = _numbers(log.said, said, meaning), _lists(log.said)
    return [
        *log.faults,
        *_answered(log, held),
        *_as_said(said, held),
        *_registered(log.said, held),
        *_unread(log, held),
        *_differences("numbers", _shown(numbers, meaning), {row["number"]: _row(row) for row in held.numbers}),
        *_differences("blocks", _blocks(numbers, meaning), {tuple(r)[:2]: (r["reason"], r["at"]) for r in held.blocks}),
        *_differences("lists", _consents(numbers, lists), {tuple(row)[:3]: _stands(row) for row in held.lists}),
        *_differences("lookups", dict.fromkeys(_asked(numbers, meaning)), dict.fromkeys(held.lookups)),
        *_differences("counts", _counts(said, held, meaning), _counted(held)),
        *_differences("alarms", _alarms(said, meaning), {(r["kind"], r["key"]): r["count"] for r in held.alarms}),
        *_feed(held, numbers, meaning),
    ]


def _differences(what: str, should: Mapping[Any, Any], found: Mapping[Any, Any]) -> Iterator[str]:
    for key in sorted(should.keys() | found.keys(), key=str):
        if key not in found:
            yield f"{what}: {key} is missing, should be {should[key]}"
        elif key not in should:
            yield f"{what}: {key} should not be there, is {found[key]}"
        elif should[key] != found[key]:
            yield f"{what}: {key} should be {should[key]}, is {found[key]}"


# Receipts ------------------------------------------------------------------------------------------------------------


@cache
def names(fact: Posted) -> frozenset[Name]:
    """The receipts that a callback brings."""
    return frozenset(Name.of(one) for one in fact.understood() if isinstance(one, Receipt))


def _name(row: asyncpg.Record) -> Name:
    message = row["message_id"]
    known = (None, None) if message else (row["number"], row["occurred_at"])
    return Name(row["gateway"], message, row["status"], row["code"], *known)


def _answered(log: Log, held: Kept) -> Iterator[str]:
    """Every receipt that got a 2xx is there, once; and none that nobody sent."""
    there = Counter(map(_name, held.receipts))
    yield from lost(log, there)
    yield from (f"receipts: {name} is there {times} times" for name, times in there.items() if times > 1)
    sent = {name for fact in log.said if isinstance(fact, Posted) for name in names(fact)}
    yield from (f"receipts: nobody sent {name}" for name in there.keys() - sent)
    if held.keys != len(held.receipts):
        yield f"receipt_keys: {held.keys} for {len(held.receipts)} receipts"
    if held.unnamed:
        yield f"unnamed: {held.unnamed} receipts wait although the register knows all messages"


def lost(log: Log, there: Mapping[Name, int]) -> Iterator[str]:
    """Receipts that were answered with a 2xx and are not there."""
    answered = {name for fact in log.taken if isinstance(fact, Posted) for name in names(fact)}
    yield from (f"receipts: {name} was answered and is lost" for name in answered - there.keys())


def unanswered(log: Log, there: Mapping[Name, int]) -> Iterator[str]:
    """Receipts that are there although none of their posts was answered."""
    for fact in log.said:
        if isinstance(fact, Posted) and fact not in log.taken:
            yield from (f"receipts: {name} was taken and not answered" for name in names(fact) & there.keys())


def _said(log: Log, held: Kept, meaning: Meaning) -> Iterator[Said]:
    register = {one[:3]: one for fact in log.said if isinstance(fact, Registered) for one in fact.entries}
    meant = {
        Name.of(one): one
        for fact in log.said if isinstance(fact, Posted)
        for one in fact.understood() if isinstance(one, Receipt)
    }  # fmt: skip
    for row in held.receipts:
        if receipt := meant.get(_name(row)):
            receipt = replace(receipt, occurred_at=row["occurred_at"])  # that of the repetition which came first
            code = meaning.catalogue.find(receipt.code_space, receipt.code)
            failed = receipt.status in FAILED
            entry = register.get((receipt.gateway, receipt.account, receipt.message_id or ""))
            yield Said(
                receipt, row["received_at"], reason_of(receipt, code) if failed else None,
                failed and code is None and receipt.code is not None,
                meaning.carriers.name(receipt.carrier) if receipt.carrier else None,
                Known(entry.number, entry.sender, entry.sent_at, entry.carrier) if entry else None,
            )  # fmt: skip


def _as_said(said: Iterable[Said], held: Kept) -> Iterator[str]:
    """A stored receipt names whom the gateway named, or the register."""
    there = {_name(row): row for row in held.receipts}
    for one in said:
        row = there[Name.of(one.receipt)]
        if row["number"] != one.number:
            yield f"receipts: {Name.of(one.receipt)} names {row['number']}, should name {one.number}"
        sender = one.receipt.sender or (one.known.sender if one.known else None)
        if row["sender"] != sender and _is_final(one.receipt):
            yield f"receipts: {Name.of(one.receipt)} names sender {row['sender']}, should name {sender}"


def _registered(said: Iterable[Fact], held: Kept) -> Iterator[str]:
    entries = [one for fact in said if isinstance(fact, Registered) for one in fact.entries]
    should = {one[:3]: one[3:] for one in entries}
    yield from _differences("messages", should, {tuple(row)[:3]: tuple(row)[3:7] for row in held.messages})


def _unread(log: Log, held: Kept) -> Iterator[str]:
    """What could not be read is kept once, whichever post brought it."""

    def raw(facts: Iterable[Fact]) -> set[bytes]:
        posted = (fact for fact in facts if isinstance(fact, Posted))
        return {one.raw for fact in posted for one in fact.understood() if isinstance(one, Broken)}

    there = Counter(row["body"] for row in held.unread)
    yield from (f"unread: {body!r} is lost" for body in raw(log.taken) - there.keys())
    yield from (f"unread: nobody sent {body!r}" for body in there.keys() - raw(log.said))
    yield from (f"unread: {body!r} is kept {times} times" for body, times in there.items() if times > 1)


# Numbers, blocks, lists -----------------------------------------------------------------------------------------------


def _numbers(facts: Iterable[Fact], said: Iterable[Said], meaning: Meaning) -> dict[str, Number]:
    verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in [*(one.verdict(meaning) for one in said if one.number), *_told(facts, meaning)]:
        verdicts[verdict.number].append(verdict)
    return {number: reduce(merge, many, Number(number)) for number, many in verdicts.items()}


def _told(facts: Iterable[Fact], meaning: Meaning) -> Iterator[Verdict]:
    """What calls and the register say."""
    for fact in facts:
        match fact:
            case OptedIn() | OptedOut():
                yield _called(fact)
            case Registered(entries=entries):
                yield from (_served_by(one, meaning) for one in entries if one.carrier)


def _called(fact: OptedIn | OptedOut) -> Verdict:
    if isinstance(fact, OptedIn):
        cause = Cause("call", source=fact.given.source, evidence=fact.given.evidence)
        return Verdict(fact.number, fact.given.at, cause, sender=fact.sender, list=fact.list, opted_in=fact.given)
    out = Dated(fact.at, fact.at, "unsubscribed", Cause("call", source="api"))
    return Verdict(fact.number, fact.at, out.cause, sender=fact.sender, list=fact.list, out=out, scope=fact.scope)


def _served_by(sent: Sent, meaning: Meaning) -> Verdict:
    carrier = Carrier(sent.sent_at, "register", meaning.carriers.name(sent.carrier or ""), sent.carrier)
    cause = Cause("register", sent.gateway, sent.account or None, message_id=sent.message_id)
    return Verdict(sent.number, sent.sent_at, cause, carrier=carrier)


def _shown(numbers: Mapping[str, Number], meaning: Meaning) -> dict[str, tuple[Any, ...]]:
    found = {}
    for key, number in numbers.items():
        shown = show(number, meaning.policy, datetime.now(UTC))
        step = shown.steps[0]
        found[key] = (number, step.state, step.reason, step.waiting_for, step.until, shown.dead_since)
    return found


def _row(row: asyncpg.Record) -> tuple[Any, ...]:
    """What could still be undone when it was written acts as if it were merged."""
    facts = _number_of(row["facts"]) if row["facts"] != "{}" else Number(row["number"])
    facts = acting(facts, merge)
    return (facts, row["state"], row["reason"], row["waiting_for"], row["until"], row["dead_since"])


def _blocks(numbers: Mapping[str, Number], meaning: Meaning) -> dict[tuple[str, str], tuple[str, datetime]]:
    shown = {key: show(number, meaning.policy, datetime.now(UTC)) for key, number in numbers.items()}
    return {(key, sender): (fact.reason, fact.at) for key, one in shown.items() for sender, fact in one.blocks.items()}


def _asked(numbers: Mapping[str, Number], meaning: Meaning) -> set[str]:
    return {key for key, number in numbers.items() if show(number, meaning.policy, datetime.now(UTC)).lookup}


def _lists(facts: Iterable[Fact]) -> dict[tuple[str, str, str], Subscription]:
    lists: dict[tuple[str, str, str], Subscription] = {}
    for fact in facts:
        if isinstance(fact, OptedIn | OptedOut):
            key = (fact.number, fact.sender, fact.list)
            lists[key] = merge_list(lists.get(key) or Subscription(*key), _called(fact))
    return lists


def _consents(numbers: Mapping[str, Number], lists: Mapping[Any, Subscription]) -> dict[Any, tuple[Any, ...]]:
    found = {}
    for key, one in lists.items():
        stands, out = consent(numbers[one.number], one)
        opted_in_at = one.opted_in.at if one.opted_in else None
        reason, code, at = (out.reason, out.cause.code, out.at) if out else (None, None, opted_in_at)
        found[key] = (stands, opted_in_at, reason, code, at)
    return found


def _stands(row: asyncpg.Record) -> tuple[Any, ...]:
    return (row["consent"], row["opted_in_at"], row["reason"], row["code"], row["at"])


# Counts and alarms ----------------------------------------------------------------------------------------------------


def _is_final(receipt: Receipt) -> bool:
    return receipt.status in FAILED or receipt.status is Status.DELIVERED


def _counts(said: Iterable[Said], held: Kept, meaning: Meaning) -> Counter[tuple[Any, ...]]:
    """Each final receipt once, by the hour of its event; and each that ended consent once for each sender it ended."""
    counts: Counter[tuple[Any, ...]] = Counter()
    places = {}
    for one in said:
        if _is_final(one.receipt) and one.number:
            verdict = one.verdict(meaning)
            hour = verdict.at.replace(minute=0, second=0, microsecond=0)
            carrier = one.brand or one.receipt.carrier or ""
            places[_event(one.number, verdict.at, verdict.cause)] = (hour, carrier)
            for outcome in ("sent", one.reason or "delivered"):
                counts[hour, verdict.sender or "", carrier, outcome] += 1
    for event, sender in _ended(held):
        hour, carrier = places[event]
        counts[hour, sender, carrier, "list.opted_out"] += 1
    return counts


def _ended(held: Kept) -> set[tuple[tuple[Any, ...], str]]:
    """Which receipts ended consent, on which senders' lists: only the feed knows which of several came first. A list
    that a remembered one keeps shut had no consent to end.
    """
    ended = set()
    for row in held.changes:
        cause = _cause_of(row["cause"])
        if row["kind"] == "list.opted_out" and row["before"] and cause.kind == "receipt":
            ended.add((_event(row["number"], row["occurred_at"], cause), row["sender"]))
    return ended


_cause_of = Decoder(Cause).decode


def _event(number: str, at: datetime, cause: Cause) -> tuple[Any, ...]:
    """What tells one receipt from another where only its traces are left."""
    return (number, at, cause.gateway, cause.message_id, cause.code)


def _counted(held: Kept) -> dict[tuple[Any, ...], int]:
    return {(r["hour"], r["sender"], r["carrier"], r["outcome"]): r["total"] for r in held.counts if r["total"]}


def _alarms(said: Iterable[Said], meaning: Meaning) -> Counter[tuple[str, str]]:
    raised: Counter[tuple[str, str]] = Counter()
    for one in said:
        key = f"{one.receipt.gateway}/{one.receipt.code_space}/{one.receipt.code}"
        if one.unmapped:
            raised["unknown_code", key] += 1
        elif one.reason and meaning.policy.rule(one.reason).alarm:
            raised[one.reason, key] += 1
    return raised


# The feed -------------------------------------------------------------------------------------------------------------


def _feed(held: Kept, numbers: Mapping[str, Number], meaning: Meaning) -> Iterator[str]:
    """Each change begins where the one before it ended, each changes something, and the last one is what stands. Of a
    number that has died a list may be texted again, or no longer, while it is active and the person is in all along.
    """
    told: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def place(row: asyncpg.Record) -> tuple[Any, ...]:
        return (row["number"], row["kind"].split(".")[0], row["kind"] == "number.carrier", row["sender"], row["list"])

    ordered = sorted(held.changes, key=lambda row: (str(place(row)), row["seq"]))
    for key, rows in groupby(ordered, key=place):
        first = {"number": None if key[2] else "unseen", "sender": "open", "list": None}[key[1]]
        last = (first, None)
        for row in rows:
            now = (row["after"], row["reason"] if key[1] == "number" and row["after"] != "active" else None)
            if row["before"] != last[0]:
                yield f"changes: {row['seq']} of {key} begins at {row['before']}, the one before it ended at {last[0]}"
            if now == last and not (now[0] in {"active", "opted_in"} and _died(numbers.get(row["number"]))):
                yield f"changes: {row['seq']} of {key} changes nothing: {now}"
            last = now
        told[key] = last
    yield from _differences("the feed, folded", _standing(held, numbers, meaning), _ends(told))


def _died(number: Number | None) -> bool:
    return number is not None and any(key.split("/", 1)[0] in DEAD for key in acting(number, merge).conditions)


def _standing(held: Kept, numbers: Mapping[str, Number], meaning: Meaning) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """What a reader of the feed must have learned, by the tables."""
    should: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in held.numbers:
        if row["state"] != "unseen":
            should[row["number"], "number", False, None, None] = (row["state"], row["reason"])
        known = numbers.get(row["number"], Number(row["number"]))
        if carrier := show(known, meaning.policy, datetime.now(UTC)).carrier:
            should[row["number"], "number", True, None, None] = (carrier.name or carrier.name_raw, None)
    for row in held.blocks:
        should[row["number"], "sender", False, row["sender"], None] = ("blocked", None)
    for row in held.lists:
        should[row["number"], "list", False, row["sender"], row["list"]] = (row["consent"], None)
    return should


def _ends(told: Mapping[tuple[Any, ...], tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Without what went and came back to where it began."""
    return {key: end for key, end in told.items() if end[0] not in {None, "open"}}
