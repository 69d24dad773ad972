"""What a lookup decides, cell by cell of the policy's table, and the properties that hold for every cell."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from app.catalogue.policy import load_policy
from app.models.lookup import Failed, Failure, Found
from app.models.number import Carrier, Cause, State, Verdict
from app.models.receipt import Receipt, Status
from app.services.decide import decide
from app.services.heard import Kind, Said, best, kind_of, suffices
from app.services.resolve import Moment, Resolved, resolve
from app.services.settle import Held, settle
from app.services.shown import known_carrier
from tests.verdicts import (
    CARRIERS,
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
    SENT,
    SIGNED_UP,
    STORED,
    THERE,
    delivered,
    ended,
    failed,
    found,
    opted_in,
    state,
    subscriber,
)

MINUTE = timedelta(minutes=1)
ANSWERED = NOW + MINUTE
NO_CARRIER = Verdict(NUMBER, SIGNED_UP, Cause("register"))


def lost(error: Failure) -> Failed:
    return Failed(NUMBER, error)


def looked_up(held: Held, answer: Found | Failed, *, last: bool = False, at=ANSWERED) -> tuple[Held, Resolved]:
    resolved = resolve(held.number, Said("telnyx", answer), Moment(at, last), LOOKUPS, CARRIERS)
    for verdict in resolved.verdicts:
        held, _ = settle(held, verdict, LOOKUPS, at)
    return held, resolved


def asks(held: Held) -> bool:
    return held.shown.lookup is not None


# The table ----------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """What a state becomes, whose consent ends, and whether the lookup goes on."""

    state: State
    ends: frozenset[tuple[str, str]] = NOBODY
    asks: bool = False
    waits: str | None = None


MOVED, SAME, MOVED_LATELY = found(), found("AT&T Mobility"), found(ported=True, ported_at=EVENT - 3 * DAY)
LONG_AGO = found(ported=True, ported_at=EVENT - 15 * DAY)
BARE_PORT = found("AT&T Mobility", ported=True)
PORTING = found("AT&T Mobility", porting=True)
LANDLINE = found("Verizon New England", line_type="landline")
GONE = found("AT&T Mobility", active=False)
NOT_FOUND, OUTAGE, NOT_COVERED = lost("not_found"), lost("provider_error"), lost("no_coverage")
NAMELESS = found(None, partial=True)
HELD_WAITS, DEAD_WAITS = Cell("held", NOBODY, True, "lookup"), Cell("deactivated", NOBODY, True, "lookup")
HELD_ASKS_A_PERSON, DEAD_ASKS_A_PERSON = Cell("held", waits="person"), Cell("deactivated", waits="person")
ACTIVE, DEAD_AND_OUT = Cell("active"), Cell("deactivated", EVERYBODY)
TABLE: dict[str, tuple[Verdict, Found | Failed, tuple[Cell, Cell], tuple[Cell, Cell]]] = {
    # answer: what is stored, the answer, (held, held at the last step), (deactivated, deactivated at the last step)
    "another network": (STORED, MOVED, (ACTIVE, ACTIVE), (ACTIVE, ACTIVE)),
    "ported around the deactivation": (STORED, MOVED_LATELY, (ACTIVE, ACTIVE), (ACTIVE, ACTIVE)),
    "ported long before": (STORED, LONG_AGO, (ACTIVE, ACTIVE), (DEAD_WAITS, DEAD_AND_OUT)),
    "ported, no stored carrier": (NO_CARRIER, BARE_PORT, (ACTIVE, ACTIVE), (ACTIVE, ACTIVE)),
    "same network": (STORED, SAME, (ACTIVE, ACTIVE), (DEAD_WAITS, DEAD_AND_OUT)),
    "no stored carrier": (NO_CARRIER, SAME, (ACTIVE, ACTIVE), (DEAD_WAITS, DEAD_AND_OUT)),
    "another network, not ported": (STORED, found(ported=False), (ACTIVE, ACTIVE), (DEAD_WAITS, DEAD_AND_OUT)),
    "another name that nobody knows": (STORED, found("Qwxyz Tel"), (ACTIVE, ACTIVE), (DEAD_WAITS, DEAD_AND_OUT)),
    "port in progress": (STORED, PORTING, (Cell("porting", NOBODY, True, "lookup"), Cell("porting", waits="person")),
                         (DEAD_WAITS, DEAD_ASKS_A_PERSON)),
    "landline": (STORED, LANDLINE, (Cell("not_sms_capable", OURS),) * 2, (DEAD_AND_OUT, DEAD_AND_OUT)),
    "disconnected": (STORED, GONE, (Cell("deactivated", EVERYBODY),) * 2, (DEAD_AND_OUT, DEAD_AND_OUT)),
    "not found": (STORED, NOT_FOUND, (HELD_WAITS, Cell("invalid", OURS)), (DEAD_WAITS, DEAD_AND_OUT)),
    "no carrier in it": (STORED, NAMELESS, (HELD_WAITS, HELD_ASKS_A_PERSON), (DEAD_WAITS, DEAD_ASKS_A_PERSON)),
    "an outage": (STORED, OUTAGE, (HELD_WAITS, HELD_ASKS_A_PERSON), (DEAD_WAITS, DEAD_ASKS_A_PERSON)),
    "not covered": (STORED, NOT_COVERED, (HELD_WAITS, HELD_ASKS_A_PERSON), (DEAD_WAITS, DEAD_ASKS_A_PERSON)),
}  # fmt: skip
CELLS = [(name, reason, last) for name in TABLE for reason in ("carrier_unknown", "wrong_carrier", "deactivated")
         for last in (False, True)]  # fmt: skip


@pytest.mark.parametrize(("name", "reason", "last"), CELLS)
def test_every_cell_of_the_lookup_table(name: str, reason: str, last: bool) -> None:  # noqa: FBT001
    stored, answer, held_cells, dead_cells = TABLE[name]
    wanted = (dead_cells if reason == "deactivated" else held_cells)[last]
    held, _ = looked_up(subscriber(LOOKUPS, stored, failed(reason)), answer, last=last)
    shown = held.shown.steps[0]
    assert Cell(state(held), ended(held), asks(held), shown.waiting_for) == wanted


@pytest.mark.parametrize("answer", [MOVED, SAME, found("AT&T Mobility", ported=True)])
def test_a_number_in_port_is_released_by_any_live_answer(answer: Found) -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("porting_in_progress")), answer)
    assert (state(held), ended(held)) == ("active", NOBODY)


def test_a_port_updates_the_carrier_with_its_date_and_lifts_what_a_port_lifts() -> None:
    held = subscriber(LOOKUPS, STORED, failed("mvno_not_supported"), failed("wrong_carrier"))
    assert held.shown.blocks.keys() == {HERE}
    held, resolved = looked_up(held, MOVED_LATELY)
    carrier = known_carrier(held.number, LOOKUPS)
    assert carrier
    assert (carrier.name, carrier.ported, carrier.ported_at, carrier.source, carrier.line_type) == (
        "T-Mobile", True, EVENT - 3 * DAY, "telnyx", "mobile")  # fmt: skip
    assert (resolved.kind, held.shown.blocks) == ("moved", {})
    assert ended(held) == OURS  # the opt-out of code 565 stays: a port brings no consent back


@pytest.mark.parametrize("first", [found("Qwxyz Tel"), found("Qwxyz Tel", porting=True)])
def test_a_port_that_is_proven_only_by_a_later_answer_brings_a_deactivated_number_back(first: Found) -> None:
    """What the first answer names must not be the carrier that the next one is held against."""
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("deactivated")), first)
    assert (state(held), asks(held)) == ("deactivated", True)
    proof = found("Qwxyz Tel", ported=True, ported_at=EVENT + DAY)
    held, _ = looked_up(held, proof, at=ANSWERED + DAY, last=True)
    assert (state(held), ended(held), held.shown.carrier and held.shown.carrier.name_raw) == (
        "active", NOBODY, "Qwxyz Tel")  # fmt: skip


@pytest.mark.parametrize("first", [LONG_AGO, found(ported=False)])
def test_who_was_on_the_other_network_before_its_end_was_not_ported_by_it(first: Found) -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("deactivated")), first)
    held, _ = looked_up(held, MOVED, at=ANSWERED + DAY)
    assert (state(held), asks(held)) == ("deactivated", True)


@pytest.mark.parametrize(("after", "sent", "becomes"), [
    (MINUTE, None, "active"), (3 * DAY, EVENT - HOUR, "active"), (3 * DAY, None, "deactivated"),
    (15 * DAY, EVENT - HOUR, "deactivated"),
])  # fmt: skip
@pytest.mark.parametrize("reason", ["deactivated", "carrier_unknown"])
def test_an_end_that_is_told_late_is_the_old_networks_and_takes_no_ported_number_away(
    reason: str, after: timedelta, sent: datetime | None, becomes: str
) -> None:
    """Of a message that was on its way, or in a burst; what is told of a later one is the new network's own."""
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed(reason)), MOVED_LATELY)
    assert state(held) == "active"
    again = failed("deactivated", at=ANSWERED + after, sent=sent, message="m2")
    held, _ = settle(held, again, LOOKUPS, ANSWERED + after)
    assert state(held) == "deactivated"
    held, _ = looked_up(held, MOVED_LATELY, at=ANSWERED + after + MINUTE)
    assert (state(held), ended(held)) == (becomes, NOBODY)


@pytest.mark.parametrize(("before", "becomes"), [(DAY, "active"), (3 * DAY, "deactivated")])
def test_a_file_of_the_days_before_a_port_was_found_tells_of_that_port(before: timedelta, becomes: str) -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("wrong_carrier")), MOVED_LATELY)
    held, _ = settle(held, failed("deactivated", at=ANSWERED - before, message="m2"), LOOKUPS, ANSWERED + DAY)
    assert state(held) == "deactivated"
    held, _ = looked_up(held, MOVED_LATELY, at=ANSWERED + DAY)
    assert (state(held), ended(held)) == (becomes, NOBODY)


@pytest.mark.parametrize("told", [LONG_AGO, found(ported=False), found("Qwxyz Tel")])
def test_what_proves_no_port_proves_none_of_an_end_that_is_told_late(told: Found) -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown")), told)
    held, _ = settle(held, failed("deactivated", at=ANSWERED + MINUTE, message="m2"), LOOKUPS, ANSWERED + MINUTE)
    held, _ = looked_up(held, told, at=ANSWERED + 2 * MINUTE)
    assert state(held) == "deactivated"


def test_after_the_last_step_the_carrier_is_the_one_that_was_named() -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("deactivated")), found("Qwxyz Tel"), last=True)
    carrier = held.shown.carrier
    assert (ended(held), carrier and carrier.name_raw) == (EVERYBODY, "Qwxyz Tel")


def test_a_stale_carrier_is_forgotten_so_a_name_alone_proves_no_port() -> None:
    held, resolved = looked_up(subscriber(LOOKUPS, STORED, failed("stale_carrier")), MOVED)
    assert (state(held), resolved.kind) == ("active", "first")
    assert known_carrier(held.number, LOOKUPS).name == "T-Mobile"  # type: ignore[union-attr]


def test_a_merger_is_no_port() -> None:
    sprint = Verdict(NUMBER, SIGNED_UP, Cause("register"), carrier=Carrier(SIGNED_UP, "register", "Sprint", "Sprint"))
    held, resolved = looked_up(subscriber(LOOKUPS, sprint, failed("deactivated")), MOVED)
    assert (state(held), resolved.kind) == ("deactivated", "same")


@pytest.mark.parametrize("brand", ["Boost Mobile", "Xfinity Mobile", "Google Fi Wireless"])
def test_the_name_of_a_resellers_host_is_no_port_and_a_word_of_the_provider_is(brand: str) -> None:
    stored = Verdict(NUMBER, SIGNED_UP, Cause("register"), carrier=Carrier(SIGNED_UP, "register", brand, brand))
    held = subscriber(LOOKUPS, stored, failed("deactivated"))
    for day in (0, 1):
        held, _ = looked_up(held, found(), at=ANSWERED + day * DAY)
        assert (state(held), ended(held), asks(held)) == ("deactivated", NOBODY, True)
    gone, _ = looked_up(held, found(), at=ANSWERED + 2 * DAY, last=True)
    assert (state(gone), ended(gone)) == ("deactivated", EVERYBODY)
    back, _ = looked_up(held, found(ported=True), at=ANSWERED + 2 * DAY)
    assert (state(back), ended(back)) == ("active", NOBODY)


# Same code again ----------------------------------------------------------------------------------------------------


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(("later", "sent", "becomes"), [
    (30 * MINUTE, -MINUTE, "active"),  # it was on its way when the lookup was made
    (MINUTE, MINUTE, "unreachable"),  # when it was sent is not told, so when it failed
    (30 * MINUTE, 29 * MINUTE, "unreachable"), (2 * HOUR, 2 * HOUR, "unreachable"), (2 * HOUR, HOUR, "unreachable"),
    (6 * DAY, 6 * DAY - MINUTE, "unreachable"), (8 * DAY, 8 * DAY - MINUTE, "active"),
])  # fmt: skip
def test_the_same_code_again_within_seven_days_is_out_of_reach_and_never_an_opt_out(later, sent, becomes) -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown")), SAME)
    again = failed("carrier_unknown", at=ANSWERED + later, sent=ANSWERED + sent, message="m2")
    held, _ = settle(held, again, LOOKUPS, ANSWERED + later)
    held, resolved = looked_up(held, SAME, at=ANSWERED + later + HOUR)
    assert (state(held), ended(held), asks(held)) == (becomes, NOBODY, False)
    assert [kind for kind, _ in resolved.alarms] == ["same_code_again"] * (becomes == "unreachable")


def test_an_unknown_subscriber_is_released_only_by_an_explicit_word() -> None:
    held = subscriber(LOOKUPS, STORED, failed("unknown_subscriber"))
    assert state(looked_up(held, SAME)[0]) == "held"
    assert state(looked_up(held, found("AT&T Mobility", active=True))[0]) == "active"
    assert state(looked_up(held, MOVED)[0]) == "active"


@pytest.mark.parametrize("answer", [SAME, OUTAGE, NAMELESS])
def test_an_unknown_subscriber_of_whom_nothing_was_said_waits_for_a_person_in_the_end(answer: Found | Failed) -> None:
    held = subscriber(LOOKUPS, STORED, failed("unknown_subscriber"))
    waits, _ = looked_up(held, answer)
    assert (state(waits), waits.shown.steps[0].waiting_for) == ("held", "lookup")
    held, resolved = looked_up(held, answer, last=True)
    assert (state(held), held.shown.steps[0].waiting_for, ended(held)) == ("held", "person", NOBODY)
    assert resolved.alarms == [("lookup_undecided", "unknown_subscriber")]


@pytest.mark.parametrize("answer", [MOVED, SAME, LANDLINE, GONE])
def test_what_the_last_step_has_decided_asks_no_person(answer: Found) -> None:
    _, resolved = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown")), answer, last=True)
    assert resolved.alarms == []


@pytest.mark.parametrize(("first", "then"), [
    (("openmarket", "345"), ("openmarket", "349")), (("openmarket", "345"), ("infobip_error", "345")),
    ((None, None), ("openmarket", "345")),
])  # fmt: skip
def test_another_code_within_seven_days_is_not_the_same_again(
    first: tuple[str | None, str | None], then: tuple[str | None, str | None]
) -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, coded(*first, EVENT)), SAME)
    held, _ = settle(held, coded(*then, EVENT + DAY), LOOKUPS, EVENT + DAY)
    assert state(held) == "held"
    held, resolved = looked_up(held, SAME, at=EVENT + DAY + HOUR)
    assert (state(held), resolved.alarms) == ("active", [])


def test_another_reason_without_a_code_is_not_the_same_again() -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown")), SAME)
    held, _ = settle(held, failed("wrong_carrier", at=EVENT + DAY, message="m2"), LOOKUPS, EVENT + DAY)
    held, resolved = looked_up(held, SAME, at=EVENT + DAY + HOUR)
    assert (state(held), resolved.alarms) == ("active", [])


def coded(space: str | None, code: str | None, at: datetime) -> Verdict:
    """A failure that asks a lookup, by its code."""
    said = Receipt("m", Status.UNDELIVERABLE, NUMBER, HERE, code=code, code_space=space, occurred_at=at)
    return decide(said, "carrier_unknown", at, LOOKUPS)


# 592 ----------------------------------------------------------------------------------------------------------------

COVERED = {
    "mobile": (SAME, NOBODY, False),
    "voip": (found("Bandwidth", line_type="voip"), OURS, False),
    "landline": (LANDLINE, OURS, False),
    "Canadian": (found("Rogers", mcc="302", mnc="720"), OURS, False),
    "not found": (NOT_FOUND, NOBODY, True),
    "an outage": (OUTAGE, NOBODY, True),
}


@pytest.mark.parametrize("name", COVERED)
def test_a_network_not_covered_ends_consent_only_for_a_foreign_or_fixed_line(name: str) -> None:
    answer, out, goes_on = COVERED[name]
    held, resolved = looked_up(subscriber(LOOKUPS, STORED, failed("network_not_covered")), answer)
    assert (held.shown.blocks.keys(), ended(held), asks(held)) == ({HERE}, out, goes_on)
    assert bool(resolved.alarms) == (name == "mobile")
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("network_not_covered")), answer, last=True)
    assert not asks(held)
    assert ended(held) == out


def test_a_canadian_number_by_its_area_code_is_foreign_to_senders_in_the_us() -> None:
    held = subscriber(LOOKUPS, failed("network_not_covered"))
    said = Said("telnyx", Found("+14165550123", carrier="X", line_type="mobile"))
    number = replace(held.number, number="+14165550123")
    here = resolve(number, said, Moment(ANSWERED), LOOKUPS, CARRIERS)
    there = resolve(number, said, Moment(ANSWERED, home="CA"), LOOKUPS, CARRIERS)
    assert any(verdict.out for verdict in here.verdicts)
    assert not any(verdict.out for verdict in there.verdicts)


# Guards -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [SAME, LANDLINE, NOT_FOUND])
@pytest.mark.parametrize("reason", ["deactivated", "carrier_unknown"])
def test_an_opt_in_newer_than_what_was_asked_about_outlives_the_answer(reason: str, answer: Found | Failed) -> None:
    held = subscriber(LOOKUPS, STORED, failed(reason), opted_in(EVENT + HOUR))
    held, _ = looked_up(held, answer, last=True, at=EVENT + 2 * HOUR)
    assert (HERE, "spring") not in ended(held)


@pytest.mark.parametrize("answer", [LANDLINE, NOT_FOUND])
def test_an_opt_in_newer_than_what_was_asked_about_outlives_an_answer_by_way_of_a_port(answer: Found | Failed) -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown")), PORTING)
    held, _ = settle(held, opted_in(NOW), LOOKUPS, ANSWERED)
    held, _ = looked_up(held, answer, last=True, at=ANSWERED + 10 * DAY)
    assert ended(held) == OURS - {(HERE, "spring")}


@pytest.mark.parametrize("answer", [LANDLINE, NOT_FOUND])
@pytest.mark.parametrize("reason", ["deactivated", "carrier_unknown"])
def test_consent_given_after_the_message_was_sent_outlives_what_its_failure_had_asked(
    reason: str, answer: Found | Failed
) -> None:
    held = subscriber(LOOKUPS, STORED, failed(reason), opted_in(SENT + INSTANT))
    held, _ = looked_up(held, answer, last=True)
    assert (HERE, "spring") not in ended(held)
    assert (HERE, "summer") in ended(held)


def test_consent_given_after_an_event_outlives_it_though_the_message_was_sent_later_still() -> None:
    lost_it = SENT - 10 * DAY
    held = subscriber(LOOKUPS, STORED, failed("carrier_unknown", at=lost_it, sent=SENT, after=11 * DAY),
                      opted_in(lost_it + INSTANT))  # fmt: skip
    held, _ = looked_up(held, LANDLINE, at=NOW + 11 * DAY)
    assert ended(held) == OURS - {(HERE, "spring")}


def test_an_answer_ends_a_hold_that_a_vendors_fast_clock_has_dated_after_it() -> None:
    held = subscriber(LOOKUPS, STORED, failed("carrier_unknown", at=NOW + timedelta(minutes=4)), now=NOW + HOUR)
    assert state(held) == "held"
    held, _ = looked_up(held, SAME, at=NOW + timedelta(minutes=1))
    assert state(held) == "active"


@pytest.mark.parametrize("agreed", [30, 60])
def test_a_disconnection_with_a_date_ends_only_older_consent(agreed: int) -> None:
    held = subscriber(LOOKUPS, STORED, failed("carrier_unknown"), opted_in(SIGNED_UP + agreed * DAY))
    held, _ = looked_up(held, found("AT&T Mobility", active=False, deactivated_at=SIGNED_UP + 30 * DAY))
    assert ended(held) == EVERYBODY - {(HERE, "spring")}
    assert state(held) == "deactivated"


def test_a_hold_without_a_sender_is_never_lifted_by_a_lookup() -> None:
    held = subscriber(LOOKUPS, STORED, failed("opted_out", sender=None))
    assert (state(held), asks(held)) == ("held", False)
    held, _ = looked_up(held, MOVED)
    assert (state(held), held.shown.steps[0].waiting_for) == ("held", "sender")


def test_a_landline_answer_to_a_hold_without_a_sender_ends_nobodys_consent() -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown", sender=None)), LANDLINE)
    assert (state(held), ended(held)) == ("not_sms_capable", NOBODY)


def test_the_stranger_of_a_recycled_number_stays_one_and_loses_consent_at_the_last_step() -> None:
    held = subscriber(LOOKUPS, STORED, failed("deactivated"), delivered(EVENT + HOUR, sender=THERE))
    assert state(held) == "reassigned"
    held, _ = looked_up(held, SAME, last=True, at=EVENT + 3 * HOUR)
    assert (state(held), ended(held), asks(held)) == ("reassigned", EVERYBODY, False)


def test_a_rule_that_asks_about_a_reassigned_number_is_answered_by_a_port_too(tmp_path: Path) -> None:
    """It had been asked about once a day, for ever."""
    path = tmp_path / "mine.toml"
    path.write_text('[rules.reassigned]\nlookup = true\nconsent = "keep"\n')
    policy = load_policy(path, lookups=True)
    held = subscriber(policy, STORED, failed("reassigned", policy))
    assert (state(held), asks(held)) == ("reassigned", True)
    held, _ = looked_up(held, MOVED, last=True)
    assert (state(held), ended(held), asks(held)) == ("reassigned", NOBODY, False)


def test_an_answer_about_a_number_that_nobody_asked_about_refreshes_its_carrier_alone() -> None:
    held, resolved = looked_up(subscriber(LOOKUPS, STORED), MOVED)
    assert (state(held), ended(held), resolved.kind) == ("active", NOBODY, "moved")
    carrier = known_carrier(held.number, LOOKUPS)
    assert carrier
    assert (carrier.name, carrier.ported) == ("T-Mobile", True)  # a port that the names alone have proven is one
    held, _ = looked_up(subscriber(LOOKUPS, STORED), NOT_FOUND, last=True)
    assert (state(held), ended(held)) == ("active", NOBODY)


def test_an_invalid_number_ends_by_a_lookup_that_says_mobile() -> None:
    for reason in ("invalid_number", "not_sms_capable"):
        held, _ = looked_up(subscriber(LOOKUPS, failed(reason)), SAME)
        assert state(held) == "active"


@pytest.mark.parametrize("answer", [found("AT&T Mobility", line_type=None), NAMELESS, NOT_FOUND])
def test_an_answer_that_does_not_say_mobile_brings_no_invalid_number_back(answer: Found | Failed) -> None:
    for reason, becomes in (("invalid_number", "invalid"), ("not_sms_capable", "not_sms_capable")):
        held, _ = looked_up(subscriber(LOOKUPS, failed(reason)), answer)
        assert state(held) == becomes


def test_something_newer_is_asked_again_after_a_person_was_to_decide() -> None:
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown")), OUTAGE, last=True)
    assert held.shown.steps[0].waiting_for == "person"
    held, _ = settle(held, failed("wrong_carrier", at=ANSWERED + DAY, message="m2"), LOOKUPS, ANSWERED + DAY)
    assert (held.shown.steps[0].waiting_for, asks(held)) == ("lookup", True)


def test_what_is_told_only_then_is_asked_though_it_happened_before_a_person_was_to_decide() -> None:
    """A deactivation file comes a day or two after what it tells of."""
    held, _ = looked_up(subscriber(LOOKUPS, STORED, failed("carrier_unknown")), OUTAGE, last=True)
    same, _ = settle(held, failed("carrier_unknown", at=EVENT + MINUTE, message="m2"), LOOKUPS, ANSWERED + DAY)
    assert (same.shown.steps[0].waiting_for, asks(same)) == ("person", False)
    held, _ = settle(held, failed("deactivated", at=EVENT + MINUTE, message="m3"), LOOKUPS, ANSWERED + DAY)
    assert (state(held), held.shown.steps[0].waiting_for, asks(held)) == ("deactivated", "lookup", True)
    held, _ = looked_up(held, SAME, last=True, at=ANSWERED + 11 * DAY)
    assert (state(held), ended(held), asks(held)) == ("deactivated", EVERYBODY, False)


@pytest.mark.parametrize(("reason", "name"), [(r, n) for n in TABLE for r in ("carrier_unknown", "deactivated")])
def test_the_same_answer_twice_ends_as_once(reason: str, name: str) -> None:
    stored, answer, *_ = TABLE[name]
    once, _ = looked_up(subscriber(LOOKUPS, stored, failed(reason)), answer, last=True)
    twice = once
    number, last = subscriber(LOOKUPS, stored, failed(reason)).number, Moment(ANSWERED, last=True)
    for verdict in resolve(number, Said("telnyx", answer), last, LOOKUPS, CARRIERS).verdicts:
        twice, changes = settle(twice, verdict, LOOKUPS, ANSWERED)
        assert changes == []
    assert twice.number == once.number


# Several providers --------------------------------------------------------------------------------------------------


def test_an_explicit_port_newer_than_the_receipt_outranks_a_bare_name() -> None:
    bare, port = Said("twilio", SAME), Said("telnyx", found(ported=True, ported_at=EVENT + HOUR))
    no = Said("plivo", found("AT&T Mobility", ported=False))
    assert best([bare, port], EVENT) == best([port, bare], EVENT) == port
    assert best([no, port], EVENT) == port
    assert best([bare, no], EVENT) == no
    assert best([Said("a", OUTAGE), Said("b", NOT_FOUND)], EVENT) == Said("b", NOT_FOUND)
    assert best([Said("a", NOT_FOUND), bare], EVENT) == bare
    assert best([], EVENT) is None


@pytest.mark.parametrize(("answer", "enough"), [(SAME, False), (BARE_PORT, True), (found(ported=False), True),
                                                (LANDLINE, True), (GONE, True), (NOT_FOUND, True), (OUTAGE, False),
                                                (NAMELESS, False), (NOT_COVERED, False),
                                                (lost("invalid_number"), True)])  # fmt: skip
def test_another_provider_is_asked_where_the_port_is_not_told(answer: Found | Failed, enough: bool) -> None:  # noqa: FBT001
    assert suffices(answer) is enough


def test_both_answers_stand_in_the_cause() -> None:
    held = subscriber(LOOKUPS, STORED, failed("carrier_unknown"))
    said, other = Said("telnyx", MOVED_LATELY), Said("twilio", SAME)
    (first, *_) = resolve(held.number, said, Moment(ANSWERED), LOOKUPS, CARRIERS, [other]).verdicts
    assert first.cause.source == "telnyx"
    assert (
        first.cause.evidence == "telnyx: T-Mobile USA, Inc. mobile ported on 2026-02-26; twilio: AT&T Mobility mobile"
    )
    assert (first.cause.kind, first.cause.gateway, first.cause.message_id) == ("lookup", "native", "m1")


@pytest.mark.parametrize(("stored", "answer", "kind"), [
    (None, SAME, "first"),
    (Carrier(SIGNED_UP, "x", None, "Smalltown Wireless"), found(" smalltown wireless"), "same"),
    (Carrier(SIGNED_UP, "x", None, None, "310", "410"), SAME, "same"),
    (Carrier(SIGNED_UP, "x", "AT&T"), found(None, mcc="310", mnc="260"), "moved"),
    (Carrier(SIGNED_UP, "x", "Verizon"), found("Verizon New England", line_type="landline"), "deaf"),
])  # fmt: skip
def test_networks_are_compared_not_names(stored: Carrier | None, answer: Found, kind: Kind) -> None:
    assert kind_of(answer, stored, CARRIERS) == kind
