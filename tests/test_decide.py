"""The policy's tables, row by row: what one event does to a number, to a sender's reach and to consent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from app.catalogue import load
from app.catalogue.policy import load_policy
from app.models.catalogue import REASONS
from app.models.number import Cause, Number, State, Verdict
from app.models.policy import Mode, Policy
from app.models.receipt import FAILED, Receipt, Status
from app.services import aside
from app.services.decide import Registered, decide, reason_of
from app.services.merge import UNNAMED_MOST, merge
from app.services.settle import Held, settle
from tests.reasons import BLOCKING, COUNTED, NO_DETAIL, SOFT
from tests.verdicts import (
    ALONE,
    DAY,
    EVENT,
    EVERYBODY,
    HERE,
    HOUR,
    INSTANT,
    LOOKUPS,
    NOBODY,
    NOW,
    NUMBER,
    OURS,
    PRECEDENCE,
    SENT,
    STRICT,
    STRICT_ALONE,
    THERE,
    condition,
    delivered,
    each_policy,
    ended,
    failed,
    live,
    opted_in,
    state,
    subscriber,
)

# The twelve codes of the OpenMarket space ---------------------------------------------------------------------------


class Row(NamedTuple):
    """`waits`, `until`: with a lookup provider; `alone`: the same without. `ends`: whose consent, in lookup_first."""

    state: State
    blocked: bool = False
    lookup: bool = False
    ends: frozenset[tuple[str, str]] = NOBODY
    waits: str | None = None
    until: timedelta | None = None
    alone_waits: str | None = None
    alone_until: timedelta | None = None
    alone_ends: frozenset[tuple[str, str]] | None = None


HELD = Row("held", lookup=True, waits="lookup", alone_waits="no_lookup_provider")
BLOCKED_AND_OUT = Row("active", blocked=True, ends=OURS)
DEAF_AND_OUT = Row("not_sms_capable", ends=OURS)
DEACTIVATED = Row("deactivated", lookup=True, waits="lookup", alone_ends=EVERYBODY)
TWELVE = {
    "341": HELD._replace(alone_waits=None, alone_until=24 * HOUR),
    "345": HELD,
    "349": HELD,
    "560": BLOCKED_AND_OUT,
    "561": BLOCKED_AND_OUT,
    "565": BLOCKED_AND_OUT,
    "568": DEAF_AND_OUT,
    "573": BLOCKED_AND_OUT,
    "592": Row("active", blocked=True, lookup=True),
    "603": BLOCKED_AND_OUT,
    "629": DEAF_AND_OUT,
    "3041": DEACTIVATED,
}
CODES = load()


def coded(code: str, policy: Policy) -> Verdict:
    said = Receipt("m1", Status.UNDELIVERABLE, NUMBER, HERE, code, "openmarket", occurred_at=EVENT, sent_at=SENT)
    return decide(said, reason_of(said, CODES.find("openmarket", code)), NOW, policy)


def expect(held: Held, row: Row, *, lookups: bool) -> None:
    """The number, the senders and the wish for a lookup are as the row says."""
    step = held.shown.steps[0]
    until = row.until if lookups else row.alone_until
    assert step.state == row.state
    assert step.until == (until and EVENT + until)
    assert step.waiting_for == (row.waits if lookups else row.alone_waits)
    assert held.shown.blocks.keys() == ({HERE} if row.blocked else set())
    assert (held.shown.lookup is not None) == (row.lookup and lookups)


@pytest.mark.parametrize("code", TWELVE)
def test_with_lookups_each_of_the_twelve_codes_does_what_its_row_says(code: str) -> None:
    held = subscriber(LOOKUPS, coded(code, LOOKUPS))
    expect(held, TWELVE[code], lookups=True)
    assert ended(held) == TWELVE[code].ends


@pytest.mark.parametrize("code", TWELVE)
def test_without_a_lookup_provider_only_a_deactivation_ends_more_consent(code: str) -> None:
    row = TWELVE[code]
    held = subscriber(ALONE, coded(code, ALONE))
    expect(held, row, lookups=False)
    assert ended(held) == (row.ends if row.alone_ends is None else row.alone_ends)


@pytest.mark.parametrize("code", TWELVE)
def test_strict_ends_the_lists_of_this_sender_for_each_of_the_twelve_and_changes_nothing_else(code: str) -> None:
    held = subscriber(STRICT, coded(code, STRICT))
    expect(held, TWELVE[code], lookups=True)
    assert ended(held) == OURS


@pytest.mark.parametrize("code", TWELVE)
def test_strict_without_a_lookup_provider_ends_the_same_lists(code: str) -> None:
    held = subscriber(STRICT_ALONE, coded(code, STRICT_ALONE))
    assert ended(held) == OURS
    assert state(held) == TWELVE[code].state
    assert held.shown.blocks.keys() == ({HERE} if TWELVE[code].blocked else set())
    assert held.shown.lookup is None
    if code != "3041":  # whether a deactivation waits then is not said
        expect(held, TWELVE[code], lookups=False)


def test_one_sender_can_be_strict_in_a_house_that_is_not_and_the_other_way_round() -> None:
    house: tuple[tuple[Mode, Mode], ...] = (("lookup_first", "strict"), ("strict", "lookup_first"))
    for mode, own in house:
        policy, strict = load_policy(mode=mode, sender_modes={HERE: own}, lookups=True), own == "strict"
        assert ended(subscriber(policy, failed("carrier_unknown", policy))) == (OURS if strict else NOBODY)
        there = subscriber(policy, failed("carrier_unknown", policy, sender=THERE))
        assert ended(there) == (NOBODY if strict else EVERYBODY - OURS)


def test_a_receipt_that_tells_the_kind_of_line_and_a_port_tells_them_of_the_number() -> None:
    told = Receipt("m0", Status.SENT, NUMBER, HERE, carrier="New", line_type="mobile", ported=True, occurred_at=SENT)
    carrier = live(LOOKUPS, decide(told, None, SENT, LOOKUPS, brand="New")).number.carrier
    assert carrier
    assert (carrier.name, carrier.line_type, carrier.ported) == ("New", "mobile", True)


def test_a_stale_carrier_forgets_the_stored_carrier_but_not_one_learnt_later() -> None:
    told = Receipt("m0", Status.SENT, NUMBER, HERE, carrier="Old", mcc="310", mnc="260", occurred_at=SENT)
    held = live(LOOKUPS, decide(told, None, SENT, LOOKUPS, brand="Old"))
    assert held.shown.carrier
    held = live(LOOKUPS, failed("stale_carrier"), held=held)
    assert held.shown.carrier is None
    newer = decide(replace(told, carrier="New", occurred_at=EVENT + HOUR), None, EVENT + HOUR, LOOKUPS, brand="New")
    carrier = live(LOOKUPS, newer, held=held).shown.carrier
    assert carrier
    assert carrier.name == "New"


@pytest.mark.parametrize("reason", ["deactivated", "number_changed"])
def test_a_deactivation_is_final_for_everybody_when_the_register_says_that_we_sent_no_carrier(reason: str) -> None:
    for routed, gone in ((True, NOBODY), (False, EVERYBODY)):
        held = subscriber(LOOKUPS, failed(reason, known=Registered(NUMBER, HERE, SENT, "AT&T" if routed else None)))
        assert state(held) == "deactivated"
        assert ended(held) == gone
        assert (held.shown.lookup is None) == (not routed)


# Every other reason -------------------------------------------------------------------------------------------------

OTHERS = {
    "wrong_carrier": HELD,
    "porting_in_progress": Row("porting", lookup=True, waits="lookup", until=14 * DAY, alone_until=14 * DAY),
    "unknown_subscriber": HELD,
    "suspended": Row("suspended", until=30 * DAY, alone_until=30 * DAY),
    "resumed": Row("active"),
    "invalid_number": Row("invalid", ends=OURS),
    "number_changed": DEACTIVATED,
    "reassigned": Row("reassigned", ends=EVERYBODY),
    **dict.fromkeys(("dnd_registry", "blocklisted_destination", "age_restricted"), Row("active", blocked=True)),
    **dict.fromkeys(sorted(SOFT | NO_DETAIL | COUNTED), Row("active")),
}
MEANT = {code.reason for key in TWELVE if (code := CODES.find("openmarket", key))}
NOT_NAMED = REASONS - OTHERS.keys() - MEANT - {"disconnected"}  # that one comes from lookups and files


@pytest.mark.parametrize("reason", OTHERS)
def test_with_lookups_every_other_reason_does_what_its_row_says(reason: str) -> None:
    held = subscriber(LOOKUPS, failed(reason))
    expect(held, OTHERS[reason], lookups=True)
    assert ended(held) == OTHERS[reason].ends


@pytest.mark.parametrize("reason", OTHERS)
def test_every_other_reason_is_the_same_without_lookups_but_that_nothing_waits_for_one(reason: str) -> None:
    row = OTHERS[reason]
    held = subscriber(ALONE, failed(reason, ALONE))
    expect(held, row, lookups=False)
    assert ended(held) == (row.ends if row.alone_ends is None else row.alone_ends)


@pytest.mark.parametrize("reason", OTHERS)
def test_strict_concerns_the_twelve_alone(reason: str) -> None:
    held = subscriber(STRICT, failed(reason, STRICT))
    expect(held, OTHERS[reason], lookups=True)
    assert ended(held) == OTHERS[reason].ends


def test_the_tables_here_hold_every_reason_there_is() -> None:
    assert OTHERS.keys() | MEANT <= REASONS
    assert {"accepted", "in_progress", "delivered", "permanent_failure", "unsubscribed"} == NOT_NAMED


NO_EFFECT = [*sorted(SOFT | NO_DETAIL | COUNTED | NOT_NAMED), "a reason nobody has heard of"]


@each_policy
@pytest.mark.parametrize("reason", NO_EFFECT)
@pytest.mark.parametrize("sender", [HERE, None])
def test_reasons_that_are_only_counted_change_nothing(policy: Policy, reason: str, sender: str | None) -> None:
    before = subscriber(policy)
    after, changes = settle(before, failed(reason, policy, sender=sender), policy, NOW)
    assert changes == []
    assert after.shown == before.shown
    assert ended(after) == NOBODY


NEVER_OPTS_OUT = SOFT | NO_DETAIL | COUNTED | {"suspended", "resumed", "porting_in_progress"}
OPTS_OUT = {
    "carrier_blocked_subscriber", "content_blocked_for_subscriber", "mvno_not_supported", "sms_not_provisioned",
    "sender_blocked_by_subscriber", "opted_out", "not_sms_capable", "invalid_number", "reassigned",
}  # fmt: skip


@each_policy
@pytest.mark.parametrize("reason", sorted(NEVER_OPTS_OUT))
def test_what_never_opts_anyone_out_never_does(policy: Policy, reason: str) -> None:
    again = (failed(reason, policy, at=EVENT + n * DAY, message=f"m{n}") for n in range(20))
    assert ended(subscriber(policy, *again, now=EVENT + 20 * DAY)) == NOBODY


def test_with_lookups_consent_ends_at_once_for_exactly_the_reasons_that_the_policy_names() -> None:
    assert {reason for reason in REASONS if ended(subscriber(LOOKUPS, failed(reason)))} == OPTS_OUT


def test_without_lookups_a_death_of_the_number_ends_consent_too() -> None:
    told_by_receipts = REASONS - {"disconnected"}
    gone = {reason for reason in told_by_receipts if ended(subscriber(ALONE, failed(reason, ALONE)))}
    assert gone == OPTS_OUT | {"deactivated", "number_changed"}


def test_a_badly_written_number_is_not_an_invalid_one() -> None:
    said = Receipt("m1", Status.REJECTED, NUMBER, HERE, occurred_at=EVENT, sent_at=SENT, malformed=True)
    held = subscriber(LOOKUPS, decide(said, "invalid_number", NOW, LOOKUPS))
    assert state(held) == "active"
    assert ended(held) == NOBODY
    other = subscriber(LOOKUPS, decide(said, "not_sms_capable", NOW, LOOKUPS))
    assert state(other) == "not_sms_capable"


# What acts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(set(Status) - FAILED))
def test_a_status_that_is_no_final_failure_does_not_act_by_its_code(status: Status) -> None:
    said = Receipt("m1", status, NUMBER, HERE, "603", "openmarket", occurred_at=EVENT, sent_at=SENT)
    held = subscriber(LOOKUPS, decide(said, "opted_out", NOW, LOOKUPS))
    assert held.shown.blocks == {}
    assert ended(held) == NOBODY


@pytest.mark.parametrize("status", sorted(FAILED))
def test_every_final_failure_acts_by_its_code(status: Status) -> None:
    said = Receipt("m1", status, NUMBER, HERE, "603", "openmarket", occurred_at=EVENT, sent_at=SENT)
    assert ended(subscriber(LOOKUPS, decide(said, "opted_out", NOW, LOOKUPS))) == OURS


def test_delivered_acts_as_delivered_whatever_code_it_carries() -> None:
    said = Receipt("m2", Status.DELIVERED, NUMBER, HERE, "3041", "openmarket", occurred_at=EVENT + DAY,
                   sent_at=EVENT + HOUR)  # fmt: skip
    held = subscriber(LOOKUPS, failed("carrier_unknown"), decide(said, "deactivated", EVENT + DAY, LOOKUPS))
    assert state(held) == "active"


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (Status.UNDELIVERABLE, "3041", "deactivated"),
        (Status.REJECTED, "341", "stale_carrier"),
        (Status.UNDELIVERABLE, "no such code", "unknown"),
        (Status.UNDELIVERABLE, None, "unknown"),
        (Status.REJECTED, None, "rejected_unspecified"),
        (Status.EXPIRED, None, "expired"),
    ],
)
def test_the_reason_is_that_of_the_code_and_without_one_that_of_the_status(
    status: Status, code: str | None, reason: str
) -> None:
    said = Receipt("m1", status, NUMBER, HERE, code, "openmarket")
    assert reason_of(said, CODES.find("openmarket", code)) == reason


@pytest.mark.parametrize("status", sorted(FAILED))
@pytest.mark.parametrize("reason", ["accepted", "in_progress", "delivered"])
def test_a_failure_is_none_of_the_reasons_that_name_no_failure(status: Status, reason: str) -> None:
    code = next(code for code in CODES.codes.values() if code.reason == reason)
    assert reason_of(Receipt("m1", status, NUMBER, code=code.code, code_space=code.space), code) in NO_DETAIL | SOFT


# Times --------------------------------------------------------------------------------------------------------------

AT_ARRIVAL = NOW


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        (EVENT, EVENT),
        (EVENT.astimezone(), EVENT),
        (None, AT_ARRIVAL),
        (EVENT.replace(tzinfo=None), AT_ARRIVAL),
        (datetime(1970, 1, 1, tzinfo=UTC), AT_ARRIVAL),
        (datetime(2099, 1, 1, tzinfo=UTC), AT_ARRIVAL),
        (datetime.min.replace(tzinfo=UTC), AT_ARRIVAL),
        (datetime.max.replace(tzinfo=UTC), AT_ARRIVAL),
        (AT_ARRIVAL + timedelta(minutes=5), AT_ARRIVAL + timedelta(minutes=5)),
        (AT_ARRIVAL + timedelta(minutes=5) + INSTANT, AT_ARRIVAL),
        (AT_ARRIVAL + timedelta(minutes=6), AT_ARRIVAL),
    ],
)
def test_the_vendors_time_counts_when_it_can_be_true_and_the_arrival_otherwise(
    said: datetime | None, believed: datetime
) -> None:
    receipt = Receipt("m1", Status.UNDELIVERABLE, NUMBER, HERE, occurred_at=said)
    verdict = decide(receipt, "deactivated", AT_ARRIVAL, LOOKUPS)
    assert verdict.at == believed
    assert [fact.at for _, fact in verdict.conditions] == [believed]


EARLIER = SENT - HOUR


@pytest.mark.parametrize(
    ("said", "registered", "counts"),
    [
        (SENT, EARLIER, SENT),
        (None, EARLIER, EARLIER),
        (SENT.replace(tzinfo=None), EARLIER, EARLIER),
        (datetime(2099, 1, 1, tzinfo=UTC), EARLIER, EARLIER),
        (None, None, EVENT),
        (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), EVENT),
    ],
)
def test_the_send_time_is_the_receipts_else_the_registers_else_the_event_time(
    said: datetime | None, registered: datetime | None, counts: datetime
) -> None:
    receipt = Receipt("m1", Status.UNDELIVERABLE, NUMBER, HERE, occurred_at=EVENT, sent_at=said)
    known = Registered(NUMBER, HERE, registered, carrier="AT&T") if registered else None
    verdict = decide(receipt, "opted_out", NOW, LOOKUPS, known)
    held = subscriber(LOOKUPS, opted_in(counts, name="spring"), opted_in(counts + INSTANT, name="summer"), verdict)
    assert ended(held) == OURS - {(HERE, "summer")}


# No sender ----------------------------------------------------------------------------------------------------------

CONCERN_THE_SENDER = sorted(set(BLOCKING) | {"sms_not_provisioned", "not_sms_capable", "invalid_number"})


@pytest.mark.parametrize("reason", CONCERN_THE_SENDER)
def test_without_a_sender_the_number_is_held_until_one_is_named(reason: str) -> None:
    unnamed = failed(reason, sender=None)
    held = subscriber(LOOKUPS, unnamed)
    row = OTHERS.get(reason) or next(row for code, row in TWELVE.items() if reason_at(code) == reason)
    assert state(held) == ("held" if row.state == "active" else row.state)
    assert any(key.startswith("held/") for key in held.number.conditions)
    assert held.shown.blocks == {}
    assert ended(held) == NOBODY

    named = replace(failed(reason), named=unnamed.conditions[-1][0])
    held = live(LOOKUPS, named, held=held)
    expect(held, row, lookups=True)
    assert ended(held) == row.ends
    assert not any(key.startswith("held/") for key in held.number.conditions)


def reason_at(code: str) -> str:
    found = CODES.find("openmarket", code)
    return found.reason if found else ""


def test_a_hold_for_want_of_a_sender_says_so_and_has_no_end() -> None:
    step = subscriber(LOOKUPS, failed("opted_out", sender=None)).shown.steps[0]
    assert (step.state, step.reason, step.waiting_for, step.until) == ("held", "opted_out", "sender", None)


def test_naming_one_message_leaves_the_hold_of_another() -> None:
    one, two = (failed("opted_out", sender=None, message=name) for name in ("m1", "m2"))
    named = replace(failed("opted_out"), named=one.conditions[-1][0])
    step = subscriber(LOOKUPS, one, two, named).shown.steps[0]
    assert (step.state, step.waiting_for, step.fact and step.fact.cause.message_id) == ("held", "sender", "m2")


def test_a_flood_of_failures_without_a_sender_stays_small_and_none_is_forgotten() -> None:
    def failure(place: int, **how: Any) -> Verdict:
        return failed("opted_out", at=EVENT + place * INSTANT, message=f"m{place}", **how)

    flood = [failure(place, sender=None) for place in range(UNNAMED_MOST + 20)]
    held = subscriber(LOOKUPS, *flood)
    assert len(held.number.conditions) == UNNAMED_MOST + 1
    assert subscriber(LOOKUPS, *reversed(flood)).number == held.number
    for place, one in enumerate(flood):
        held = live(LOOKUPS, replace(failure(place), named=one.conditions[-1][0]), held=held)
    step = held.shown.steps[0]
    assert (step.state, step.waiting_for, step.fact and step.fact.cause.message_id) == ("held", "sender", "m19")


def test_of_a_flood_of_failures_by_as_many_senders_each_is_merged_once() -> None:
    merged = []

    def counted(number: Number, verdict: Verdict) -> Number:
        merged.append(verdict)
        return merge(number, verdict)

    number = acts = Number(NUMBER)
    for place in range(100):
        sender = f"{place:05}"
        failure = replace(failed("opted_out", sender=sender, message=f"m{place}"), apart=sender)
        for verdict in (failure, delivered(SENT, sender=sender)):
            number = merge(number, verdict)
            acts = aside.acting_since(acts, number, verdict, counted)
    assert len(merged) == 3 * 100  # of a failure what stands whatever becomes of it, and what could be undone
    assert acts == aside.acting(number, merge)


@pytest.mark.parametrize("reason", ["deactivated", "reassigned", "suspended", "carrier_unknown", "stale_carrier"])
def test_what_concerns_the_number_alone_needs_no_sender(reason: str) -> None:
    with_sender, without = (subscriber(ALONE, failed(reason, ALONE, sender=sender)) for sender in (HERE, None))
    nameless = [replace(s, fact=s.fact and replace(s.fact, sender=None)) for s in with_sender.shown.steps]
    assert [*without.shown.steps] == nameless
    assert ended(without) == ended(with_sender)


def test_strict_needs_a_sender_for_each_of_the_twelve_and_still_acts_on_the_number() -> None:
    for code, row in TWELVE.items():
        held = subscriber(STRICT, failed(reason_at(code), STRICT, sender=None))
        assert state(held) == ("held" if row.state == "active" else row.state)
        assert any(fact.reason == reason_at(code) for fact in held.number.conditions.values())
        assert ended(held) == NOBODY


def test_the_register_names_number_and_sender_where_the_receipt_does_not() -> None:
    said = Receipt("m1", Status.UNDELIVERABLE, occurred_at=EVENT)
    verdict = decide(said, "opted_out", NOW, LOOKUPS, Registered(NUMBER, HERE, SENT, carrier="AT&T"))
    assert verdict.number == NUMBER
    held = subscriber(LOOKUPS, verdict)
    assert held.shown.blocks.keys() == {HERE}
    assert ended(held) == OURS


def test_a_number_of_which_only_the_register_speaks_is_unseen_and_any_receipt_or_opt_in_makes_it_active() -> None:
    held = live(LOOKUPS, Verdict(NUMBER, SENT, Cause("register")))
    assert state(held) == "unseen"
    said = decide(Receipt("m1", Status.ACCEPTED, NUMBER, HERE), None, NOW, LOOKUPS)
    assert state(live(LOOKUPS, said, held=held)) == "active"
    assert state(live(LOOKUPS, opted_in(), held=held)) == "active"


# Total --------------------------------------------------------------------------------------------------------------


@each_policy
@pytest.mark.parametrize("was", [*PRECEDENCE, "active", "unseen"])
def test_every_reason_with_every_status_has_an_answer_in_every_state(policy: Policy, was: State) -> None:
    before = subscriber(policy)
    if was == "unseen":
        before = live(policy)
    elif was != "active":
        before = live(policy, condition(was, EVENT - HOUR, policy), held=before)
    for reason, status, sender in product([*sorted(REASONS), "unheard of", None], Status, (HERE, None)):
        said = Receipt("m1", status, NUMBER, sender, occurred_at=EVENT, sent_at=SENT, gateway="native")
        after, _ = settle(before, decide(said, reason, NOW, policy), policy, NOW)
        assert state(after) in {"active", *PRECEDENCE}
        if status not in FAILED and status is not Status.DELIVERED and was != "unseen":
            assert after.shown == before.shown
