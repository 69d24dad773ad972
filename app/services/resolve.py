"""What a lookup decides, purely: from what providers say of a number to verdicts. policy.md's table in code.

Stop sending on any doubt; end consent only on evidence: no answer, an answer about nothing, a provider that does not
cover the number never opt anyone out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import phonenumbers

from app.models.catalogue import Carriers
from app.models.lookup import Failed, Found, LineType
from app.models.number import Carrier, Cause, Fact, Number, Stalled, Verdict, Waiting
from app.models.policy import Policy
from app.services.decide import DEAD, Question, known_carrier, network_of, questions

AROUND = timedelta(days=14)
"""How far a port may lie from a deactivation and still explain it."""
AGAIN = timedelta(days=7)
BURST = timedelta(hours=1)
"""Receipts of messages that were on their way when a lookup found nothing wrong are not "the same code again"."""
DEAF: frozenset[LineType] = frozenset(
    {"landline", "toll_free", "premium", "shared_cost", "uan", "voicemail", "pager"}
)  # fmt: skip
NOT_MOBILE: frozenset[LineType] = DEAF | {"voip", "satellite", "personal"}
HOME_CODES = {"US": frozenset({"310", "311", "312", "313", "314", "315", "316"}), "CA": frozenset({"302"})}
"""Mobile country codes of those countries that share a calling code, and so are not told apart by it."""
INSTANT = timedelta(microseconds=1)

Kind = Literal["gone", "deaf", "porting", "moved", "same", "first", "not_found", "nothing"]
"""What the answer is, against what is stored: disconnected; unable to receive SMS; a port on its way; another network;
the same one; the first one we hear of; not found; and nothing that decides."""


class Said(NamedTuple):
    """One provider's answer."""

    provider: str
    answer: Found | Failed


class Moment(NamedTuple):
    """When the answer came, whether the timetable ends with it, and which country (ISO) is not foreign."""

    at: datetime
    last: bool = False
    home: str = "US"


@dataclass(slots=True)
class Resolved:
    """What follows from a lookup. `verdicts` act in this order; alarms are (kind, key)."""

    kind: Kind
    verdicts: list[Verdict] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)


# Which answer counts -----------------------------------------------------------------------------------------------


def best(answers: Sequence[Said], since: datetime | None) -> Said | None:
    """Of several providers' answers the one that decides: an explicit port newer than the receipt before an explicit
    word on ports, before a bare name, before "not found"; of equals the first. A failure only where all failed.
    """
    return max(answers, key=lambda said: _weight(said.answer, since), default=None)


def _weight(answer: Found | Failed, since: datetime | None) -> int:
    if isinstance(answer, Failed):
        return 1 if answer.error in {"not_found", "invalid_number"} else 0
    if answer.ported and answer.ported_at and (since is None or answer.ported_at > since):
        return 5
    if answer.ported is not None or answer.porting or answer.active is False or answer.line_type in DEAF:
        return 4
    return 3 if named(answer) else 2


def named(found: Found) -> bool:
    return found.carrier is not None or (found.mcc is not None and found.mnc is not None)


def suffices(answer: Found | Failed) -> bool:
    """Whether no other provider need be asked: it tells about the port, or what no port can change."""
    if isinstance(answer, Failed):
        return answer.error in {"not_found", "invalid_number"}
    return _weight(answer, None) > 3 and not answer.partial  # noqa: PLR2004


# What it says ------------------------------------------------------------------------------------------------------


def kind_of(answer: Found | Failed, stored: Carrier | None, carriers: Carriers) -> Kind:
    """The answer against the stored carrier. Mergers are applied: one network under two names is the same."""
    if isinstance(answer, Failed):
        return "not_found" if answer.error in {"not_found", "invalid_number"} else "nothing"
    if answer.active is False:
        return "gone"
    if answer.line_type in DEAF:
        return "deaf"
    if answer.porting:
        return "porting"
    if not named(answer):
        return "nothing"
    known = network_of(stored) if stored else None
    if stored is None or known is None:
        return "moved" if answer.ported or answer.ported_at else "first"
    return (
        "same"
        if network(stored, carriers) == network(carrier_of(answer, "", stored.at, carriers), carriers)
        else "moved"
    )


def network(carrier: Carrier, carriers: Carriers) -> str:
    """What to compare instead of a carrier's name."""
    name = carrier.name or carriers.by_network(carrier.mcc, carrier.mnc)
    return carriers.network(name) if name else (network_of(carrier) or "").casefold().strip()


def carrier_of(found: Found, provider: str, at: datetime, carriers: Carriers) -> Carrier:
    """The answer as a fact: the canonical name where it is known, the name as sent beside it."""
    name = carriers.name(found.carrier) if found.carrier else carriers.by_network(found.mcc, found.mnc)
    return Carrier(
        at, provider, name, found.carrier, found.mcc, found.mnc, found.line_type, found.ported, found.ported_at
    )


def proven(found: Found, death: Fact, stored: Carrier | None, carriers: Carriers) -> bool:
    """Whether another network explains a death: its port lies near it, or is not dated. A name that no table knows
    proves nothing here unless the provider itself says that the number was ported.
    """
    if found.ported_at:
        return abs(found.ported_at - death.at) <= AROUND
    if found.ported is not None:
        return found.ported
    new = carrier_of(found, "", death.at, carriers)
    return bool(new.name and stored and (stored.name or carriers.by_network(stored.mcc, stored.mnc)))


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
    given_up: bool = False

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
        fact = Fact(at, since, "disconnected", cause)
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
        _dead(follows, question, kind, found, stored, carriers, cause)
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
        at = follows.moment.at
        fact = Fact(at, at, "porting_in_progress", cause, lookup=True, sender=question.sender)
        follows.conditions.setdefault("porting/porting_in_progress", fact)
    if follows.moment.last and kind == "not_found":
        at = follows.moment.at
        follows.settle(question)
        follows.conditions["invalid/permanent_failure"] = Fact(at, at, "permanent_failure", cause)
        follows.end(question, "permanent_failure", cause, everyone=False)
    elif follows.moment.last and (kind in {"porting", "nothing"} or not alive):
        _give_up(follows, question)


def _same(follows: _Follows, question: Question, number: Number, cause: Cause) -> None:
    """Nothing has changed. If the same code said otherwise already, and soon after came again, it is out of reach."""
    fact = question.fact
    key = f"same/{fact.cause.code_space or ''}/{fact.cause.code or fact.reason}"
    before = number.cleared.get(key)
    if before and BURST < fact.at - before <= AGAIN:
        follows.conditions[f"unreachable/{fact.reason}"] = Fact(fact.at, fact.guard, fact.reason, cause)
        follows.alarms.append(("same_code_again", _code(fact)))
    follows.clear(key)


def _dead(follows: _Follows, question: Question, kind: Kind, found: Found | None, stored: Carrier | None,
          carriers: Carriers, cause: Cause) -> None:  # fmt: skip
    """A number that is deactivated or disconnected: only a port brings it back, only evidence or the last step ends."""
    if kind == "moved" and found and proven(found, question.fact, stored, carriers):
        follows.clear("deactivated", "disconnected", "port")
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


def foreign(number: str, found: Found, home: str) -> bool:
    """Whether the number, or the network that serves it, belongs to another country than the senders' own."""
    try:
        region = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        region = None
    abroad = region is not None and region != home
    return abroad or (found.mcc is not None and home in HOME_CODES and found.mcc not in HOME_CODES[home])


def _give_up(follows: _Follows, question: Question) -> None:
    """The last step decided nothing: a person does, and meanwhile nothing is sent and nothing is lost."""
    follows.given_up = True
    follows.alarms.append(("lookup_undecided", question.fact.reason))


def _code(fact: Fact) -> str:
    return "/".join(filter(None, (fact.cause.gateway, fact.cause.code_space, fact.cause.code))) or fact.reason


# As verdicts -------------------------------------------------------------------------------------------------------


def _cause(said: Said, others: Sequence[Said], asked: Sequence[Question], question: Question | None) -> Cause:
    """The lookup, and the receipt that it rests on: receipts are dropped long before consent is explained."""
    question = question or max(asked, key=lambda q: (q.fact.at, q.key), default=None)
    told = [f"{one.provider}: {_words(one.answer)}" for one in (said, *others)]
    evidence = "; ".join(told)[:500]
    if question is None:
        return Cause("lookup", source=said.provider, evidence=evidence)
    return replace(question.fact.cause, kind="lookup", source=said.provider, evidence=evidence)


def _words(answer: Found | Failed) -> str:
    if isinstance(answer, Failed):
        return answer.error
    ports = {True: "ported", False: "not ported", None: None}[answer.ported]
    when = f"on {answer.ported_at:%Y-%m-%d}" if answer.ported and answer.ported_at else None
    live = "disconnected" if answer.active is False else None
    code = f"{answer.mcc}-{answer.mnc}" if answer.mcc and answer.mnc else None
    return " ".join(filter(None, (answer.carrier or code, answer.line_type, ports, when, live))) or "nothing"


def _verdicts(
    number: Number, follows: _Follows, cause: Cause, said: Said, kind: Kind, carriers: Carriers
) -> list[Verdict]:
    at = follows.moment.at
    found = said.answer if isinstance(said.answer, Found) and named(said.answer) else None
    carrier = carrier_of(found, said.provider, at, carriers) if found else None
    if carrier and kind == "moved" and carrier.ported is None:
        carrier = replace(carrier, ported=True)
    waits: Waiting = "person" if follows.given_up else "lookup"
    first = Verdict(
        number.number,
        at,
        cause,
        conditions=tuple(follows.conditions.items()),
        cleared=tuple(follows.cleared.items()),
        carrier=carrier,
        stalled=Stalled(at, waits) if follows.given_up or number.stalled else None,
    )
    ends = [Verdict(number.number, at, out.cause, out=out, sender=sender, scope="sender" if sender else "all")
            for sender, out in follows.outs]  # fmt: skip
    known = [Verdict(number.number, at, cause, sender=sender, block=block) for sender, block in follows.blocks]
    return [first, *ends, *known]
