"""A number's life in verdicts: what happens to it, and what is read back. Words of the tests of the policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.catalogue import carriers
from app.catalogue.policy import load_policy
from app.models.lookup import Found
from app.models.number import Carrier, Cause, Fact, Number, OptIn, Scope, State, Step, Verdict
from app.models.policy import Policy
from app.models.receipt import Receipt, Status
from app.services.decide import Registered, decide
from app.services.settle import Held, hold, settle
from app.services.shown import consent, show

NUMBER, HERE, THERE = "+15555551234", "12345", "67890"
LISTS = ((HERE, "spring"), (HERE, "summer"), (HERE, "autumn"), (THERE, "spring"))
OURS, EVERYBODY, NOBODY = frozenset(LISTS[:3]), frozenset(LISTS), frozenset[tuple[str, str]]()

SENT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVENT = SENT + timedelta(seconds=30)
NOW = EVENT + timedelta(seconds=2)
SIGNED_UP = SENT - timedelta(days=90)
INSTANT = timedelta(microseconds=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

LOOKUPS, ALONE = load_policy(lookups=True), load_policy()
STRICT, STRICT_ALONE = load_policy(mode="strict", lookups=True), load_policy(mode="strict")
POLICIES = {"lookup_first": LOOKUPS, "lookup_first, alone": ALONE, "strict": STRICT, "strict, alone": STRICT_ALONE}
each_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


# What happens, as verdicts ------------------------------------------------------------------------------------------


def failed(reason: str, policy: Policy = LOOKUPS, *, at: datetime = EVENT, sent: datetime | None = None,
           sender: str | None = HERE, known: Registered | None = None, message: str = "m1",
           after: timedelta = timedelta(seconds=2)) -> Verdict:  # fmt: skip
    """A failure that came two seconds after it happened, of a message sent half a minute before."""
    said = Receipt(message, Status.UNDELIVERABLE, NUMBER, sender, gateway="native", occurred_at=at,
                   sent_at=sent or at - (EVENT - SENT))  # fmt: skip
    return decide(said, reason, at + after, policy, known)


def delivered(sent: datetime, *, sender: str = HERE) -> Verdict:
    said = Receipt("d1", Status.DELIVERED, NUMBER, sender, occurred_at=sent + HOUR, sent_at=sent)
    return decide(said, None, sent + HOUR, LOOKUPS)


def opted_in(at: datetime = SIGNED_UP, sender: str = HERE, name: str = "spring") -> Verdict:
    return Verdict(NUMBER, at, Cause("call"), sender=sender, list=name, opted_in=OptIn(at, "form"))


def opted_out(at: datetime, scope: Scope, sender: str = HERE, name: str = "spring") -> Verdict:
    out = Fact(at, at, "unsubscribed", Cause("call"))
    return Verdict(NUMBER, at, out.cause, sender=sender, list=name, out=out, scope=scope)


def ported(at: datetime, *ended: State) -> Verdict:
    """A lookup that proved a port: it ends these states up to then."""
    return Verdict(NUMBER, at, Cause("lookup"), cleared=(("port", at), *((state, at) for state in ended)))


def condition(state: State, at: datetime, policy: Policy = LOOKUPS) -> Verdict:
    """Whatever puts the number into a state. No receipt alone makes it unreachable: a lookup does."""
    if state == "unreachable":
        fact = Fact(at, at, "carrier_unknown", Cause("lookup"))
        return Verdict(NUMBER, at, fact.cause, conditions=(("unreachable/carrier_unknown", fact),))
    return failed(REACHED_BY[state], policy, at=at)


REACHED_BY: dict[State, str] = {
    "reassigned": "reassigned", "deactivated": "deactivated", "disconnected": "disconnected",
    "invalid": "invalid_number", "not_sms_capable": "not_sms_capable", "suspended": "suspended",
    "porting": "porting_in_progress", "held": "carrier_unknown",
}  # fmt: skip
PRECEDENCE: tuple[State, ...] = (
    "reassigned", "deactivated", "disconnected", "invalid", "not_sms_capable",
    "suspended", "porting", "held", "unreachable",
)  # fmt: skip


# What a lookup says -------------------------------------------------------------------------------------------------

CARRIERS = carriers()
ATT = Carrier(SIGNED_UP, "register", "AT&T", "AT&T")
STORED = Verdict(NUMBER, SIGNED_UP, Cause("register"), carrier=ATT)


def found(carrier: str | None = "T-Mobile USA, Inc.", **told: object) -> Found:
    return Found(NUMBER, **{"carrier": carrier, "line_type": "mobile", **told})  # type: ignore[arg-type]


# What is read back --------------------------------------------------------------------------------------------------


def live(policy: Policy, *events: Verdict, now: datetime = NOW, held: Held | None = None) -> Held:
    """A number after these events, as seen at `now`."""
    held = held or hold(Number(NUMBER), Step("unseen"), {}, policy, now)
    for event in events:
        held, _ = settle(held, event, policy, now)
    return held


def subscriber(policy: Policy = LOOKUPS, *events: Verdict, now: datetime = NOW) -> Held:
    """Somebody opted in to three lists of one short code and one list of another, after these events."""
    return live(policy, *(opted_in(SIGNED_UP, *key) for key in LISTS), *events, now=now)


def ended(held: Held) -> frozenset[tuple[str, str]]:
    return frozenset(key for key, one in held.lists.items() if consent(held.number, one)[0] == "opted_out")


def state(held: Held) -> State:
    return held.shown.steps[0].state


def state_at(held: Held, policy: Policy, now: datetime) -> State:
    return show(held.number, policy, now).steps[0].state
