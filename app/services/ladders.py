"""Ladders, purely: what follows when a failure comes again and again. Nothing here is counted; each time the dated
strikes are read anew, so a strike or a delivery that is heard of late moves what it should have moved.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime
from itertools import groupby

from msgspec.structs import replace

from app.models.number import UNREACHED, Cause, Fact, LadderName, Number, Strike, Verdict
from app.models.policy import Ladder, Policy

TO_UNREACHABLE = frozenset({"soft", "no_detail"})
"""Ladders whose top makes a number unreachable: until then its failures are kept, and not in force."""
ENDS_CONSENT: LadderName = "unknown_subscriber"
DAYS_KEPT = 32
"""Of how many days strikes are kept: no ladder asks for more than 30."""
DAYS_MORE = 6
"""Strikes towards the end of consent are kept of so many UTC days more than end it: each whole, since it may become an
opt-out.
"""
DELIVERIES_KEPT = 8
"""Deliveries that are known one by one. A strike older than all of them comes too late to count."""


def message_of(cause: Cause) -> str:
    """A short mark of the message, the same for each of its parts; "" without a message id."""
    if cause.message_id is None:
        return ""
    words = "\x1f".join((cause.gateway or "", cause.account or "", cause.message_id))
    return hashlib.blake2b(words.encode(), digest_size=4).hexdigest()


# Counting ----------------------------------------------------------------------------------------------------------


def climbed(strikes: Iterable[Strike]) -> list[Strike]:
    """Of strikes in order those that count: one a UTC day, and one a message."""
    days, messages, counted = set(), set(), []
    for strike in strikes:
        day = _day(strike.at)
        if day not in days and not (strike.message and strike.message in messages):
            counted.append(strike)
            days.add(day)
            messages.add(strike.message)
    return counted


def row(number: Number, name: LadderName) -> list[Strike]:
    """The strikes in a row up to now: those that no delivery has cleared."""
    since = number.delivered.guard if number.delivered else None
    return climbed(one for one in number.ladders.get(name, ()) if since is None or one.at >= since)


def unreachable(number: Number, name: LadderName, policy: Policy) -> bool:
    """Whether the top of a ladder is reached."""
    ladder = policy.ladders.get(name)
    return ladder is not None and _topped(row(number, name), ladder)


def counted(number: Number, fact: Fact) -> list[LadderName]:
    """The ladders on which something counts of the day of a failure."""
    return [name for name, strikes in number.ladders.items() if _day(fact.at) in _days_of(strikes)]


def _topped(strikes: list[Strike], ladder: Ladder) -> bool:
    if len(strikes) < ladder.strikes or (ladder.over and strikes[-1].at - strikes[0].at < ladder.over):
        return False
    spans = zip(strikes, strikes[ladder.strikes - 1 :], strict=False)
    return ladder.within is None or any(last.at - first.at <= ladder.within for first, last in spans)


def asked(name: LadderName) -> str:
    """The key in `cleared` that says up to which moment the question of a ladder is answered."""
    return f"asked/{name}"


def asks(number: Number, policy: Policy) -> list[LadderName]:
    """The ladders on which a lookup is to be made: once in a row of strikes."""
    wanted = []
    for name in number.ladders:
        ladder = policy.ladders.get(name)
        if ladder is None or ladder.lookup is None:
            continue
        strikes, answered = row(number, name), number.cleared.get(asked(name))
        if len(strikes) >= ladder.lookup and (answered is None or answered < strikes[0].at):
            wanted.append(name)
    return wanted


# The one that ends consent -----------------------------------------------------------------------------------------


def ends(strikes: Iterable[Fact], deliveries: tuple[int, ...], rungs: int) -> dict[str, Fact]:
    """By sender the strike that ends its consent: the last of so many or more that no delivery stands between. How many
    was settled when a strike was heard of; `rungs` where that is not known.
    """
    found: dict[str, Fact] = {}
    counted: list[Strike] = []
    before: Fact | None = None
    for fact in strikes:
        if before and _cut(before.at, fact.at, deliveries):
            counted = []
        before = fact
        counted = climbed([*counted, Strike(fact.at, message_of(fact.cause))])
        if len(counted) >= (fact.rungs or rungs) and fact.sender:
            old = found.get(fact.sender)
            found[fact.sender] = max(old, fact, key=lambda f: (f.guard, _order(f))) if old else fact
    return {sender: replace(fact, sender=None, rungs=None) for sender, fact in found.items()}


def _cut(earlier: datetime, later: datetime, deliveries: tuple[int, ...]) -> bool:
    """Whether a message that was sent between two strikes was delivered."""
    place = bisect_right(deliveries, int(earlier.timestamp()))
    return place < len(deliveries) and deliveries[place] < int(later.timestamp())


def _order(fact: Fact) -> tuple[datetime, datetime, str, str]:
    return (fact.at, fact.guard, repr(fact.cause), fact.sender or "")


# Keeping -----------------------------------------------------------------------------------------------------------


def marked(deliveries: tuple[int, ...], delivered: Fact | None) -> tuple[int, ...]:
    """The newest send times of delivered messages, oldest first."""
    if delivered is None or (at := int(delivered.guard.timestamp())) in deliveries:
        return deliveries
    return tuple(sorted((*deliveries, at)))[-DELIVERIES_KEPT:]


def climb(number: Number, before: tuple[int, ...], verdict: Verdict) -> Number:
    """A number with a strike more, or a delivery more, in which what rests on its ladders is computed anew. `before`:
    the deliveries that were known until now.
    """
    number = _in_a_row(number, verdict)
    if not number.unknown and verdict.ladder != ENDS_CONSENT:
        return number
    unknown = {*number.unknown}
    if verdict.rung and verdict.ladder == ENDS_CONSENT:
        unknown.add(verdict.rung)
    return _with_ends(number, sorted(unknown, key=_order), before, verdict) if unknown else number


def _in_a_row(number: Number, verdict: Verdict) -> Number:
    strikes = number.ladders
    if verdict.rung and verdict.ladder and verdict.ladder != ENDS_CONSENT:
        new = Strike(verdict.rung.at, message_of(verdict.rung.cause))
        strikes = strikes | {verdict.ladder: _kept((*strikes.get(verdict.ladder, ()), new))}
    if number.delivered:
        day = _day(number.delivered.guard)
        strikes = {name: left for name, times in strikes.items() if (left := _from(day, times))}
    return replace(number, ladders=strikes)


def _kept(strikes: Iterable[Strike]) -> tuple[Strike, ...]:
    """The first and the last strike of each of the newest UTC days."""
    days = [[*day] for _, day in groupby(sorted(strikes), key=lambda one: _day(one.at))]
    return tuple(sorted({one for day in days[-DAYS_KEPT:] for one in (day[0], day[-1])}))


def _from(day: date, strikes: tuple[Strike, ...]) -> tuple[Strike, ...]:
    """Without the days before the last delivery."""
    return strikes if _day(strikes[0].at) >= day else tuple(one for one in strikes if _day(one.at) >= day)


def _day(at: datetime) -> date:
    return at.date() if at.tzinfo is UTC else at.astimezone(UTC).date()


def _with_ends(number: Number, strikes: list[Fact], before: tuple[int, ...], verdict: Verdict) -> Number:
    """What can be judged no more, for want of the deliveries around it, is settled for good and forgotten."""
    strikes = _telling(strikes)
    known = tuple(sorted({*before, *number.deliveries}))
    full = len(number.deliveries) == DELIVERIES_KEPT
    days = {*_days_of(strikes)[-verdict.rungs - DAYS_MORE :]}
    kept = [fact for fact in strikes
            if _day(fact.at) in days and (not full or int(fact.at.timestamp()) >= number.deliveries[0])]  # fmt: skip
    gone = ends(strikes, known, verdict.rungs) if len(kept) < len(strikes) else {}
    came = ends(kept, number.deliveries, verdict.rungs)
    struck = {name for name, reach in number.senders.items() if reach.struck}
    senders = number.senders | {
        name: replace(
            reach := number.senders.get(name, UNREACHED), struck=came.get(name), out=_newer(reach.out, gone.get(name))
        )
        for name in struck | gone.keys() | came.keys()
    }
    told = {name: reach for name, reach in senders.items() if reach != UNREACHED}  # its end may have been undone
    return replace(number, unknown=tuple(kept), senders=told)


def _telling(strikes: list[Fact]) -> list[Fact]:
    """Of each day and sender the first, the last and the one that outlives most: a burst must not push out the days
    before it.
    """
    days: dict[tuple[date, str | None], list[Fact]] = {}
    for fact in strikes:
        days.setdefault((_day(fact.at), fact.sender), []).append(fact)
    told = {one for day in days.values() for one in (day[0], day[-1], max(day, key=lambda f: (f.guard, _order(f))))}
    return sorted(told, key=_order)


def is_full(strikes: Iterable[Fact], rungs: int) -> bool:
    """Whether older ones may have been settled for good."""
    return len(_days_of(strikes)) >= rungs + DAYS_MORE


def _days_of(strikes: Iterable[Fact | Strike]) -> list[date]:
    return sorted({_day(one.at) for one in strikes})


def _newer(old: Fact | None, new: Fact | None) -> Fact | None:
    return max((fact for fact in (old, new) if fact), key=lambda f: (f.guard, _order(f)), default=None)
