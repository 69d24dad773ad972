"""Joins what is heard of a number to what is known of it, purely: each fact keeps its newest event by event time, so
any order and any repetition of the same events ends the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby

from msgspec.structs import replace

from app.models.number import (
    UNREACHED,
    Carrier,
    Cause,
    Fact,
    Number,
    OptIn,
    Reach,
    Stalled,
    Subscription,
    Verdict,
    Waiting,
)
from app.services import aside, ladders

STRIKE_DAYS = 9
"""Of how many days strikes are kept: a lapse of 24 h and the 7 days after it touch nine."""
UNNAMED: Waiting = "sender"
UNNAMED_MOST = 100
"""Failures of one number that wait for a sender's name one by one: all of them are looked at with each receipt."""


def merge(number: Number, verdict: Verdict) -> Number:
    """A verdict's facts joined to a number's. Associative, commutative and idempotent, but for a person's decisions,
    for what is kept aside, and for an event heard again with its send date: it replaces what was supposed of it.
    """
    if verdict.dated:
        return merge(_undated(number, verdict), replace(verdict, dated=False))
    if verdict.apart is not None:
        return aside.kept(number, verdict, merge)
    delivered = later(number.delivered, verdict.delivered)
    joined = replace(
        number,
        seen=number.seen or verdict.cause.kind != "register",
        conditions=_standing(_conditions(number.conditions, verdict), delivered),
        cleared=_cleared(number, verdict),
        strikes=_struck(number.strikes, verdict),
        deliveries=ladders.marked(number.deliveries, verdict.delivered),
        senders=_reached(number.senders, verdict),
        out=later(number.out, verdict.out) if verdict.scope == "all" else number.out,
        delivered=delivered,
        opted_in=latest(number.opted_in, verdict.opted_in.at if verdict.opted_in else None),
        carrier=_served_by(number.carrier, verdict.carrier),
        last_receipt_at=latest(number.last_receipt_at, verdict.received_at),
        stalled=_stalled(number.stalled, verdict.stalled),
    )
    if verdict.rung or (verdict.delivered and (number.ladders or number.unknown)):
        return ladders.climb(joined, number.deliveries, verdict)
    return joined


def _undated(number: Number, verdict: Verdict) -> Number:
    """A number without what was supposed of an event while nobody knew when its message was sent: that it was sent when
    it happened. An end of consent that has been merged for good stays: what lies beneath it is not known any more.
    """
    number = aside.without(number, verdict) if number.aside else number
    delivery, known = verdict.delivered, number.delivered
    number = replace(
        number,
        unknown=tuple(one for one in number.unknown if not _told_by(one, verdict)),
        conditions=_others(number.conditions, verdict),
        senders={name: _undated_reach(reach, verdict) if name == verdict.sender else reach
                 for name, reach in number.senders.items()},
    )  # fmt: skip
    if delivery is None:
        return number
    return replace(
        number,
        deliveries=tuple(at for at in number.deliveries if at != int(delivery.at.timestamp())),
        delivered=delivery if known and _told_by(known, verdict) else known,
    )


def _undated_reach(reach: Reach, verdict: Verdict) -> Reach:
    delivery = verdict.delivered
    supposed = delivery is not None and reach.delivered == delivery.at
    delivered = delivery.guard if delivery and supposed else reach.delivered
    return replace(reach, blocks=_others(reach.blocks, verdict), delivered=delivered)


def _others(facts: dict[str, Fact], verdict: Verdict) -> dict[str, Fact]:
    return {key: fact for key, fact in facts.items() if not _told_by(fact, verdict)}


def _told_by(fact: Fact, verdict: Verdict) -> bool:
    return (fact.at, fact.cause) == (verdict.at, verdict.cause)


def _conditions(conditions: dict[str, Fact], verdict: Verdict) -> dict[str, Fact]:
    if not verdict.conditions and verdict.named not in conditions:
        return conditions
    joined = {key: fact for key, fact in conditions.items() if key != verdict.named}
    joined |= {key: newest(joined.get(key), fact) for key, fact in verdict.conditions}
    return _few_unnamed(joined) if len(joined) > UNNAMED_MOST else joined


def _standing(conditions: dict[str, Fact], delivered: Fact | None) -> dict[str, Fact]:
    """Without failures to reach it of before the newest message that was delivered had been sent."""
    over = [
        key for key, fact in conditions.items()
        if delivered and fact.at < delivered.guard and key.startswith("unreachable/") and fact.cause.kind != "lookup"
    ]  # fmt: skip
    return {key: fact for key, fact in conditions.items() if key not in over} if over else conditions


def _few_unnamed(conditions: dict[str, Fact]) -> dict[str, Fact]:
    """Of too many holds that wait for a name the oldest become one for each reason, that only a person lifts."""
    unnamed = [key for key in conditions if key.startswith("held/") and key.count("/") > 1 and key[-1] != "/"]
    kept = dict(conditions)
    for key in sorted(unnamed, key=lambda one: (conditions[one].at, one))[:-UNNAMED_MOST]:
        whole = f"held/{key.split('/')[1]}/"
        kept[whole] = newest(kept.get(whole), kept.pop(key))
    return kept


def _cleared(number: Number, verdict: Verdict) -> dict[str, datetime]:
    if not verdict.cleared and not verdict.released:
        return number.cleared
    cleared = number.cleared | {state: max(number.cleared.get(state, at), at) for state, at in verdict.cleared}
    if verdict.released:
        standing = aside.acting(number, merge).conditions
        last = max([verdict.at, *(f.at for key, f in standing.items() if key.startswith(("held/", aside.QUARANTINE)))])
        cleared |= {"held": last, UNNAMED: last}
    return cleared


def merge_list(held: Subscription, verdict: Verdict) -> Subscription:
    """The same for one list: only what was said of that list itself."""
    opted_in = max((o for o in (held.opted_in, verdict.opted_in) if o), key=_opted_key, default=None)
    out = later(held.out, verdict.out) if verdict.scope == "list" else held.out
    return replace(held, opted_in=opted_in, out=out)


def _reached(senders: dict[str, Reach], verdict: Verdict) -> dict[str, Reach]:
    if not verdict.sender or not (verdict.block or verdict.out or verdict.delivered or verdict.opted_in):
        return senders
    old = senders.get(verdict.sender, UNREACHED)
    blocks = old.blocks
    if verdict.block:
        blocks = blocks | {verdict.block.reason: newest(blocks.get(verdict.block.reason), verdict.block)}
    new = Reach(
        blocks,
        later(old.out, verdict.out) if verdict.scope == "sender" else old.out,
        latest(old.delivered, verdict.delivered.guard if verdict.delivered else None),
        latest(old.opted_in, verdict.opted_in.at if verdict.opted_in else None),
        old.struck,
    )
    return senders if new == old else senders | {verdict.sender: new}


def _struck(strikes: dict[str, tuple[datetime, ...]], verdict: Verdict) -> dict[str, tuple[datetime, ...]]:
    if not verdict.strike:
        return strikes
    return strikes | {verdict.strike: _kept((*strikes.get(verdict.strike, ()), verdict.at))}


def _kept(times: Iterable[datetime]) -> tuple[datetime, ...]:
    """The first and the last strike of each of the newest UTC days: a burst must not push out the days before it."""
    days = [[*day] for _, day in groupby(sorted(times), key=lambda time: time.astimezone(UTC).date())]
    return tuple(sorted({time for day in days[-STRIKE_DAYS:] for time in (day[0], day[-1])}, reverse=True))


def cause_key(cause: Cause) -> tuple[str, ...]:
    return (cause.kind, cause.gateway or "", cause.account or "", cause.code_space or "", cause.code or "",
            cause.message_id or "", cause.source or "", cause.evidence or "")  # fmt: skip


def fact_key(fact: Fact) -> tuple[datetime, str, datetime, tuple[str, ...], str]:
    return (fact.at, fact.reason, fact.guard, cause_key(fact.cause), fact.sender or "")


def newest(old: Fact | None, new: Fact) -> Fact:
    """The newer by event time; of two at the same moment always the same one, whichever came first."""
    return (
        new
        if old is None
        else max(old, new, key=lambda f: (f.at, f.guard, not f.lookup, cause_key(f.cause), f.sender or ""))
    )


def later(old: Fact | None, new: Fact | None) -> Fact | None:
    """The one that outlives more: by guard, then as `newest`."""
    if old is None or new is None:
        return old or new
    if old.guard != new.guard:
        return old if old.guard > new.guard else new
    return max(old, new, key=lambda f: (f.at, f.reason, cause_key(f.cause)))


def latest(old: datetime | None, new: datetime | None) -> datetime | None:
    return max(old, new) if old and new else old or new


def _stalled(old: Stalled | None, new: Stalled | None) -> Stalled | None:
    if old is None or new is None:
        return old or new
    return max(old, new, key=lambda s: (s.at, s.waiting_for, s.reasons))


def _opted_key(opt_in: OptIn) -> tuple[datetime, str, str]:
    return (opt_in.at, opt_in.source, opt_in.evidence or "")


def _served_by(old: Carrier | None, new: Carrier | None) -> Carrier | None:
    if old is None or new is None:
        return old or new
    if old.at != new.at:
        return old if old.at > new.at else new
    return max(
        old,
        new,
        key=lambda c: (c.source, c.name_raw or "", c.mcc or "", c.mnc or "", c.line_type or "", str(c.ported)),
    )
