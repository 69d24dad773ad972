"""Decides, purely: what one receipt, or one record of a deactivation file, says about a number.

What it says is a verdict. merge.py joins verdicts to a number's facts, with ladders.py and aside.py; shown.py says what
readers see of the facts, settle.py what a verdict has truly changed; resolve.py decides for lookups, as this does here.
None of them reads a clock, a database or a setting: values in, values out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from app.models.catalogue import Code
from app.models.feed import SPACE, Event
from app.models.number import Carrier, Cause, Fact, Verdict
from app.models.policy import Ends, Policy, Rule
from app.models.receipt import FAILED, Receipt, Status
from app.services.ladders import ENDS_CONSENT, TO_UNREACHABLE

NOW = "now "
"""Before the number that a subscriber has changed to, at the end of a record's evidence."""
AHEAD = timedelta(minutes=5)
"""How far another's clock may run ahead of ours and still be believed."""
OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Another's time that lies before this is a mistake, and not believed."""
INSTANT = timedelta(microseconds=1)
"""The smallest step of a time: PostgreSQL keeps none that is smaller."""
_NO_FAILURE = frozenset({"accepted", "in_progress", "delivered"})
_BY_STATUS = {Status.EXPIRED: "expired", Status.REJECTED: "rejected_unspecified"}


class Registered(NamedTuple):
    """What the sent-message register tells of a receipt's message; `carrier`: the one that we named when sending."""

    number: str
    sender: str
    sent_at: datetime
    carrier: str | None


def reason_of(receipt: Receipt, code: Code | None) -> str:
    """The reason of a final failure. A code nobody knows, or one that names no failure, leaves what the status says."""
    if code and code.reason not in _NO_FAILURE and code.reason != "unknown":
        return code.reason
    return _BY_STATUS.get(receipt.status, "unknown")


def believed(time: datetime | None, arrived: datetime) -> datetime | None:
    """A vendor's time, if it can be true: with a zone, after 2000, at most five minutes ahead of its arrival."""
    return time if time and time.tzinfo and OLDEST < time <= arrived + AHEAD else None


def decide(receipt: Receipt, reason: str | None, arrived: datetime, policy: Policy, known: Registered | None = None,
           *, brand: str | None = None) -> Verdict:  # fmt: skip
    """What one receipt with a number says about it. `reason` is None unless the receipt is a final failure.

    `brand` is the canonical name of the receipt's carrier. Total: a reason without a rule, a status without effect, a
    missing sender, a missing register entry all have answers.
    """
    at = believed(receipt.occurred_at, arrived) or arrived
    sent = believed(receipt.sent_at, arrived) or (known and believed(known.sent_at, arrived)) or at
    cause = Cause("receipt", receipt.gateway, receipt.account or None, receipt.code_space, receipt.code,
                  receipt.message_id)  # fmt: skip
    number = receipt.number or (known.number if known else "")
    seen = Verdict(
        number=number,
        at=at,
        cause=cause,
        sender=receipt.sender or (known.sender if known else None),
        carrier=_carrier(receipt, brand, at),
        delivered=Fact(at, sent, "delivered", cause) if receipt.status is Status.DELIVERED else None,
        received_at=arrived,
        rungs=_rungs(policy),
    )
    if receipt.status not in FAILED or reason is None:
        return seen
    rule = policy.rule(reason)
    if receipt.malformed and rule.malformed_spares:
        return seen
    return _failed(seen, Fact(at, sent, reason, cause), rule, consent_of(rule, policy, seen.sender, known))


def _rungs(policy: Policy) -> int:
    ladder = policy.ladders.get(ENDS_CONSENT)
    return ladder.strikes if ladder else 2


def _failed(seen: Verdict, fact: Fact, rule: Rule, consent: Ends) -> Verdict:
    rung = replace(_out(fact), sender=seen.sender, rungs=seen.rungs) if rule.ladder else None
    if rule.lookup and consent != "everyone":
        fact = replace(fact, lookup=True, sender=seen.sender)
    conditions = [(f"{rule.state}/{fact.reason}", fact)] if rule.state else []
    if rule.ladder in TO_UNREACHABLE and rule.state is None:
        conditions.append((f"unreachable/{fact.reason}", replace(fact, lookup=False, sender=None)))
    if not seen.sender and (rule.block or consent == "sender"):
        conditions.append(
            (f"held/{fact.reason}/{fact.cause.message_id or ''}", replace(fact, lookup=False, sender=None))
        )
    ends_sender = consent == "sender" and seen.sender
    return replace(
        seen,
        conditions=tuple(conditions),
        cleared=((rule.ends, fact.at),) if rule.ends else (),
        strike=fact.reason if rule.repeats else None,
        block=fact if rule.block and seen.sender else None,
        out=_out(fact) if consent == "everyone" or ends_sender else None,
        scope="all" if consent == "everyone" else "sender",
        ladder=rule.ladder,
        rung=rung,
    )


def reported(event: Event, policy: Policy) -> Verdict:
    """What a record of a deactivation file says about a number: no sender, no message, so whose lists it ends is the
    same for all of them; without a lookup provider the file itself decides.
    """
    cause = Cause("file", source=event.feed, code_space=SPACE, code=event.kind, evidence=_told_by(event))
    carrier = Carrier(event.at, event.feed, event.carrier, event.carrier) if event.carrier else None
    if event.kind == "PORT" and event.new_carrier:
        moved = Carrier(event.at, event.feed, event.new_carrier, event.new_carrier, ported=True, ported_at=event.at)
        cleared = tuple((state, event.at) for state in ("port", "held", "porting"))
        return Verdict(event.number, event.at, cause, cleared=cleared, carrier=moved)
    rule = policy.rule(event.reason)
    consent = rule.alone_consent if rule.alone_consent and not policy.lookups else rule.consent
    fact = Fact(event.at, event.guard, event.reason, cause)
    seen = Verdict(event.number, event.at, cause, carrier=carrier, rungs=_rungs(policy))
    return _failed(seen, fact, rule, consent)


def _told_by(event: Event) -> str | None:
    """The file's day, and the number that a subscriber has now: a hint, never an opt-in."""
    told = [f"file of {event.day}" if event.day else None, event.new_number and f"{NOW}{event.new_number}"]
    return "; ".join(filter(None, told)) or None


def _out(fact: Fact) -> Fact:
    """The end of consent that a failure brings: it ends only opt-ins older than both its send and its event time."""
    return replace(fact, guard=min(fact.guard, fact.at), lookup=False, sender=None)


def consent_of(rule: Rule, policy: Policy, sender: str | None = None, known: Registered | None = None) -> Ends:
    """Whose lists end at once. Strict mode changes only this column. A receipt names no list: a revocation of one list
    reaches the sender's, as without a setting.
    """
    ends = _ends(rule, policy, sender, known)
    return "everyone" if ends == "sender" and rule.revocation and policy.revoked(sender) == "all" else ends


def _ends(rule: Rule, policy: Policy, sender: str | None, known: Registered | None) -> Ends:
    if rule.unrouted_consent and known and known.carrier is None:
        return rule.unrouted_consent
    if rule.strict_consent and policy.strict(sender):
        return rule.strict_consent
    if rule.alone_consent and not policy.lookups:
        return rule.alone_consent
    return rule.consent


def _carrier(receipt: Receipt, brand: str | None, at: datetime) -> Carrier | None:
    if not (receipt.carrier or (receipt.mcc and receipt.mnc)):
        return None
    return Carrier(
        at, receipt.gateway, brand, receipt.carrier, receipt.mcc, receipt.mnc, receipt.line_type, receipt.ported
    )
