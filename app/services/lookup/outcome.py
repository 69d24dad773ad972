"""What a lookup that was made comes to, without a database: what is decided, what is kept of it, when to ask again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Literal, NamedTuple

from app.models.lookup import Failed, Failure, Found
from app.models.number import Cause, Change, Number, Stalled, Verdict
from app.services.heard import Said, best, kind_of
from app.services.lookup.ask import Answer, Source
from app.services.lookup.budget import NOTHING
from app.services.lookup.claims import Claim, Next
from app.services.lookup.kept import REFUSALS, Known, kept_until, still_good
from app.services.lookup.panel import Told
from app.services.meaning import Meaning
from app.services.resolve import Moment, resolve
from app.services.shown import known_carrier, questions

NOBODY_ANSWERS = timedelta(minutes=1)
"""After this, doubled each time up to an hour, a step is tried again that no provider answered."""
LONGEST = timedelta(hours=1)
TIMETABLE = (timedelta(0), timedelta(hours=4), timedelta(days=1), timedelta(days=4), timedelta(days=10))
_TROUBLE: frozenset[Failure] = frozenset(
    {"rate_limited", "provider_error", "malformed", "auth", "quota", "bad_request", "pending", "partial"}
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of lookups: whom to ask, what it may cost, when to ask again."""

    sources: tuple[Source, ...] = ()
    per_day: Decimal | None = None
    per_number: Decimal | None = None
    timetable: tuple[timedelta, ...] = TIMETABLE
    home: str = "US"
    most: Decimal | None = None
    """What this process may spend in all."""


class Outcome(NamedTuple):
    """What one lookup came to, for whoever asked for it."""

    number: str
    outcome: str
    provider: str | None
    errors: Sequence[tuple[str, str]]
    price: Decimal
    changes: list[Change]
    waiting_for: str | None = None


@dataclass(slots=True)
class Done:
    """A lookup that has been made, since when (`monotonic`), and who waits for its commit."""

    claim: Claim
    told: Told
    from_kept: bool = False
    since: float = field(default_factory=monotonic)
    outcome: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class Settled:
    """What follows from one lookup, before it is written. `overtaken`: nothing, since something was told meanwhile that
    an earlier answer does not decide.
    """

    ours: bool
    outcome: Outcome
    overtaken: bool = False
    waits: Literal["budget", "provider"] | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    keep: list[tuple[Answer, datetime | None]] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)


def settle(one: Done, number: Number, meaning: Meaning, plan: Plan, now: datetime, *, ours: bool) -> Settled:
    """Decide on what was told. `ours`: nobody has made this lookup since, after our lease."""
    answers = one.told.answers
    said = [Said(answer.provider, answer.said) for answer in answers]
    asked = questions(number, meaning.policy, now)
    chosen = best(said, max((q.fact.at for q in asked), default=None))
    waits = _waits(one.told, chosen)
    errors = [(a.provider, a.said.error) for a in answers if isinstance(a.said, Failed)]
    price = sum((answer.price for answer in answers), NOTHING)
    outcome = Outcome(number.number, _word(chosen, waits), chosen.provider if chosen else None, errors, price, [],
                      "budget" if waits == "budget" else None)  # fmt: skip
    fresh = [] if one.from_kept else [a for a in answers if a.config]
    settled = Settled(ours, outcome, waits=waits)
    if not ours:  # only what was paid for is kept
        settled.keep = [(answer, None) for answer in fresh]
        return settled
    known = Known({number.number: answers}, {number.number: number})
    if one.from_kept and still_good(known, number.number, meaning, now) is None:
        settled.overtaken = True
        return settled
    if waits == "budget":
        at = max([now, *(q.fact.at for q in asked)])
        if asked and not one.claim.early:  # else nothing waits for the budget but a caller, who hears of it
            settled.verdicts = [Verdict(number.number, at, Cause("policy"), stalled=Stalled(at, "budget"))]
            settled.alarms = [("lookup_budget", "day" if plan.per_number is None else "day or number")]
    elif waits == "provider" or chosen is None:
        settled.alarms = [("lookup_outage", "/".join(sorted({p for p, _ in errors})) or "all")]
    else:
        last = not one.claim.forced and one.claim.step >= len(plan.timetable) - 1
        others = [s for s in said if s is not chosen]
        moment = Moment(now, last, plan.home, one.from_kept)
        decided = resolve(number, chosen, moment, meaning.policy, meaning.carriers, others)
        settled.verdicts, settled.alarms = decided.verdicts, decided.alarms
    stored = known_carrier(number, meaning.policy)
    settled.keep = [(a, kept_until(a, kind_of(a.said, stored, meaning.carriers))) for a in fresh]
    return settled


def _waits(told: Told, chosen: Said | None) -> Literal["budget", "provider"] | None:
    """Why nothing may be decided: nobody was paid, or nobody answered. Nobody is opted out for our outage."""
    if chosen is not None and not (isinstance(chosen.answer, Failed) and chosen.answer.error in _TROUBLE):
        refused = isinstance(chosen.answer, Failed) and chosen.answer.error in REFUSALS
        troubled = any(isinstance(a.said, Failed) and a.said.error in _TROUBLE for a in told.answers)
        if not refused or not (troubled or told.lacks):
            return None
    return "budget" if told.lacks == "budget" else "provider"


def _word(chosen: Said | None, waits: str | None) -> str:
    if chosen and isinstance(chosen.answer, Found):
        return "ok"
    if waits == "budget":
        return "quota"
    return chosen.answer.error if chosen and isinstance(chosen.answer, Failed) else "provider_error"


def later(claim: Claim, waits: str | None, timetable: Sequence[timedelta], now: datetime) -> Next:
    """An outage moves a step and never skips it; without one the next step is as far away as the timetable says. How
    far is told, not when: it is the database's clock that makes it due, and ours may be another.
    """
    if waits == "budget":
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        spread = timedelta(seconds=random.uniform(0, 60))  # noqa: S311 - no secret
        return Next(claim.number, claim.step, claim.tries, midnight + spread - now, "budget")
    if waits == "provider":
        wait = min(NOBODY_ANSWERS * 2 ** min(claim.tries, 10), LONGEST) * random.uniform(0.5, 1)  # noqa: S311
        return Next(claim.number, claim.step, min(claim.tries + 1, 1000), wait, "lookup")
    if claim.forced:
        return Next(claim.number, claim.step, claim.tries, _gap(timetable, claim.step), None)
    step = min(claim.step + 1, len(timetable) - 1)
    return Next(claim.number, step, 0, _gap(timetable, claim.step), None)


def _gap(timetable: Sequence[timedelta], step: int) -> timedelta:
    if step + 1 >= len(timetable):
        return timedelta(days=1)
    return timetable[step + 1] - timetable[step]
