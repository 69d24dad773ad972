"""What a lookup decides, purely: from what providers say of a number to verdicts (docs/lookups.md has the table).

Stop sending on any doubt; end consent only on evidence: no answer, an answer about nothing, a provider that does not
cover the number never opt anyone out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from app.models.catalogue import Carriers
from app.models.lookup import Found
from app.models.number import Carrier, Cause, Fact, Number, Stalled, Verdict
from app.models.policy import Policy
from app.services.decide import INSTANT
from app.services.heard import AROUND, NOT_MOBILE, Kind, Said, carrier_of, foreign, kind_of, named, proven, words
from app.services.shown import DEAD, Question, known_carrier, questions

AGAIN = timedelta(days=7)
"""How long after an answer that found nothing wrong the same code means that a number is out of reach."""
BURST = timedelta(hours=1)
"""So long a message may have been on its way that failed, where nobody tells when it was sent."""
FILED = timedelta(days=2)
"""Carriers' files tell of a port as an end, a day or two later."""


class Moment(NamedTuple):
    """When the answer came, whether the timetable ends with it, which country (ISO) is not foreign, and whether it is
    an earlier one, used again.
    """

    at: datetime
    last: bool = False
    home: str = "US"
    used_again: bool = False


@dataclass(slots=True)
class Resolved:
    """What follows from a lookup. `verdicts` act in this order; alarms are (kind, key)."""

    kind: Kind
    verdicts: list[Verdict] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)


# What follows ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Follows:
    """What is gathered, question by question, until it is put into verdicts."""

    moment: Moment
    conditions: dict[str, Fact] = field(default_factory=dict)
    cleared: dict[str, datetime] = field(default_factory=dict)
    outs: list[tuple[str | None, Fact]] = field(default_factory=list)
    blocks: list[tuple[str, Fact]] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)
    undecided: set[str] = field(default_factory=set)
    """The reasons of which the last step decided nothing: a person does."""
    doubtful: bool = False
    """A port that is not proven yet: later answers are held against the carrier of before."""

    def clear(self, *states: str) -> None:
        self.cleared |= dict.fromkeys(states, self.moment.at)

    def settle(self, question: Question) -> None:
        """The question is answered: its fact stays, and asks no more."""
        fact = replace(question.fact, lookup=False)
        if question.state is None and question.sender:
            self.blocks.append((question.sender, fact))
        elif question.state in DEAD:
            self.conditions[question.key] = fact
        elif question.state == "active":
            self.clear(question.key)
        elif question.state:
            self.clear(question.state)

    def end(self, question: Question, reason: str, cause: Cause, *, everyone: bool) -> None:
        """Consent ends with what was asked about: opt-ins given since then stay."""
        guard = min(question.fact.at, question.fact.guard)
        fact = Fact(self.moment.at, guard, reason, cause)
        if everyone:
            self.outs.append((None, fact))
        elif question.sender:
            self.outs.append((question.sender, fact))


def resolve(number: Number, said: Said, moment: Moment, policy: Policy, carriers: Carriers,
            others: Sequence[Said] = ()) -> Resolved:  # fmt: skip
    """What follows from the answer that counts. Total: every kind of answer to every question has its line below."""
    asked = questions(number, policy, moment.at)
    moment = moment._replace(at=max([moment.at, *(q.fact.at + INSTANT for q in asked)]))
    stored = known_carrier(number, policy)
    kind = kind_of(said.answer, stored, carriers)
    told = said.answer if isinstance(said.answer, Found) else None
    follows = _Follows(moment)
    _of_the_number(follows, kind, told, _cause(said, others, asked, None))
    for question in asked:
        _answer(follows, question, kind, told, stored, number, carriers, _cause(said, others, asked, question))
    cause = _cause(said, others, asked, None)
    return Resolved(kind, _verdicts(number, follows, cause, said, kind, carriers), follows.alarms)


def _of_the_number(follows: _Follows, kind: Kind, found: Found | None, cause: Cause) -> None:
    """What the answer says by itself, whatever was asked."""
    at = follows.moment.at
    if kind == "gone" and found:
        since = min(found.deactivated_at or at, at)
        fact = Fact(at, since - INSTANT, "disconnected", cause)  # only what is older ends: days begin at midnight
        follows.conditions["deactivated/disconnected"] = fact
        follows.outs.append((None, fact))
        follows.clear("held", "porting")
    elif kind == "deaf":
        follows.conditions["not_sms_capable/not_sms_capable"] = Fact(at, at, "not_sms_capable", cause)
    elif kind == "moved":
        follows.clear("port")
    if kind in {"moved", "same", "first"} and found and found.line_type == "mobile":
        follows.clear("not_sms_capable", "invalid")


def _answer(follows: _Follows, question: Question, kind: Kind, found: Found | None, stored: Carrier | None,
            number: Number, carriers: Carriers, cause: Cause) -> None:  # fmt: skip
    if question.state is None:
        _blocked(follows, question, kind, found, number, cause)
    elif question.state == "active":
        follows.settle(question)  # what the answer says by itself has been said; it fails no more for being asked about
    elif question.state in DEAD:
        _dead(follows, question, kind, found, stored, number, carriers, cause)
    else:
        _held(follows, question, kind, found, number, cause)


def _held(follows: _Follows, question: Question, kind: Kind, found: Found | None, number: Number, cause: Cause) -> None:
    """A number that is held, or porting."""
    alive = question.fact.reason != "unknown_subscriber" or (found is not None and found.active is True)
    if kind == "moved" or (kind in {"same", "first"} and alive):
        follows.settle(question)
        follows.clear("held", "porting")
        if kind == "same":
            _same(follows, question, number, cause)
    elif kind == "deaf":
        follows.settle(question)
        follows.end(question, "not_sms_capable", cause, everyone=False)
    elif kind == "gone":
        follows.settle(question)
    elif kind == "porting" and question.state != "porting":
        guard = min(question.fact.at, question.fact.guard)  # what this ends later, ends with what was asked about now
        fact = Fact(follows.moment.at, guard, "porting_in_progress", cause, lookup=True, sender=question.sender)
        follows.conditions.setdefault("porting/porting_in_progress", fact)
    if follows.moment.last and kind == "not_found":
        at = follows.moment.at
        follows.settle(question)
        follows.conditions["invalid/permanent_failure"] = Fact(at, at, "permanent_failure", cause)
        follows.end(question, "permanent_failure", cause, everyone=False)
    elif follows.moment.last and (kind in {"porting", "nothing"} or not alive):
        _give_up(follows, question)


def _same(follows: _Follows, question: Question, number: Number, cause: Cause) -> None:
    """Nothing has changed. If the same code said otherwise already, and comes again of a message that was sent since
    the answer, it is out of reach. An earlier answer has found nothing out about what was asked after it.
    """
    fact = question.fact
    key = f"same/{fact.cause.code_space or ''}/{fact.cause.code or fact.reason}"
    before = number.cleared.get(key)
    if before and before < fact.guard and fact.at <= before + AGAIN:
        follows.conditions[f"unreachable/{fact.reason}"] = Fact(fact.at, fact.guard, fact.reason, cause)
        follows.alarms.append(("same_code_again", _code(fact)))
    if not follows.moment.used_again:
        follows.clear(key)


def _dead(follows: _Follows, question: Question, kind: Kind, found: Found | None, stored: Carrier | None,
          number: Number, carriers: Carriers, cause: Cause) -> None:  # fmt: skip
    """A number that is deactivated or disconnected: only a port brings it back, only evidence or the last step ends.
    One that was told to be reassigned, where a rule asks about such, is then asked about no more, and not brought back.
    """
    proof = kind == "moved" and found and proven(found, question.fact, stored, carriers)
    late = kind == "same" and found and stored and _left_by(found, question.fact, stored, number.cleared.get("port"))
    if (proof or late) and question.state == "reassigned":
        follows.settle(question)
    elif proof:
        follows.clear("deactivated", "disconnected", "port")
    elif late:
        follows.clear("deactivated", "disconnected")
    elif not follows.moment.last and (kind == "porting" or (kind == "moved" and not _disproved(found))):
        follows.doubtful = True
    elif kind == "gone":
        follows.settle(question)
        follows.end(question, question.fact.reason, cause, everyone=True)
    elif kind == "deaf":
        follows.settle(question)
        follows.end(question, "not_sms_capable", cause, everyone=True)
    elif follows.moment.last and kind in {"moved", "same", "first", "not_found"}:
        follows.settle(question)
        follows.end(question, question.fact.reason, cause, everyone=True)
    elif follows.moment.last:
        _give_up(follows, question)


def _left_by(found: Found, death: Fact, stored: Carrier, learned: datetime | None) -> bool:
    """Whether this end is the old network's, told after the port to the one that is stored now was `learned`: of a
    message that was sent before, in the same burst, or in a carrier's file of those days.
    """
    if learned is None or not stored.name or not stored.ported or found.ported is False:
        return False
    told_late = min(death.guard, death.at - BURST) <= learned <= death.at + FILED
    at = found.ported_at or stored.ported_at
    return told_late and (at is None or abs(at - death.at) <= AROUND)


def _disproved(found: Found | None) -> bool:
    """Whether the number was on that other network before its end already: so it is told."""
    return found is not None and (found.ported is not None or found.ported_at is not None)


def _blocked(
    follows: _Follows, question: Question, kind: Kind, found: Found | None, number: Number, cause: Cause
) -> None:
    """592: this sender has no way to that network. A foreign or a fixed line never will have; else the gap is ours."""
    unreachable = found is not None and (
        found.line_type in NOT_MOBILE or foreign(number.number, found, follows.moment.home)
    )
    if unreachable or kind == "gone":
        follows.settle(question)
        follows.end(question, question.fact.reason, cause, everyone=False)
    elif follows.moment.last or kind not in {"nothing", "not_found"}:
        follows.settle(question)
        follows.alarms.append((question.fact.reason, _code(question.fact)))


def _give_up(follows: _Follows, question: Question) -> None:
    """The last step decided nothing: a person does, and meanwhile nothing is sent and nothing is lost."""
    follows.undecided |= {question.fact.reason, *(fact.reason for fact in follows.conditions.values())}
    follows.alarms.append(("lookup_undecided", question.fact.reason))


def _code(fact: Fact) -> str:
    return "/".join(filter(None, (fact.cause.gateway, fact.cause.code_space, fact.cause.code))) or fact.reason


# As verdicts -------------------------------------------------------------------------------------------------------


def _cause(said: Said, others: Sequence[Said], asked: Sequence[Question], question: Question | None) -> Cause:
    """The lookup, and the receipt that it rests on: receipts are dropped long before consent is explained."""
    question = question or max(asked, key=lambda q: (q.fact.at, q.key), default=None)
    told = [f"{one.provider}: {words(one.answer)}" for one in (said, *others)]
    evidence = "; ".join(told)[:500]
    if question is None:
        return Cause("lookup", source=said.provider, evidence=evidence)
    return replace(question.fact.cause, kind="lookup", source=said.provider, evidence=evidence)


def _verdicts(
    number: Number, follows: _Follows, cause: Cause, said: Said, kind: Kind, carriers: Carriers
) -> list[Verdict]:
    at = follows.moment.at
    found = said.answer if isinstance(said.answer, Found) and named(said.answer) and not follows.doubtful else None
    carrier = carrier_of(found, said.provider, at, carriers) if found else None
    if carrier and kind == "moved" and carrier.ported is None:
        carrier = replace(carrier, ported=True)
    first = Verdict(
        number.number,
        at,
        cause,
        conditions=tuple(follows.conditions.items()),
        cleared=tuple(follows.cleared.items()),
        carrier=carrier,
        stalled=_stalled(number, follows),
    )
    ends = [Verdict(number.number, at, out.cause, out=out, sender=sender, scope="sender" if sender else "all")
            for sender, out in follows.outs]  # fmt: skip
    known = [Verdict(number.number, at, cause, sender=sender, block=block) for sender, block in follows.blocks]
    return [first, *ends, *known]


def _stalled(number: Number, follows: _Follows) -> Stalled | None:
    if follows.undecided:
        return Stalled(follows.moment.at, "person", tuple(sorted(follows.undecided)))
    return Stalled(follows.moment.at, "lookup") if number.stalled else None
