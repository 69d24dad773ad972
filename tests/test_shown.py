"""What several events come to, in whatever order and however late: guards, precedence, lapses, ends, returns."""

from __future__ import annotations

from datetime import datetime
from itertools import permutations, product

import pytest

from app.models.catalogue import REASONS
from app.models.number import Change, State, Verdict
from app.models.policy import Policy
from app.services.settle import Held, catch_up, hold, settle
from app.services.shown import show
from tests.reasons import BLOCKING
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
    OURS,
    POLICIES,
    PRECEDENCE,
    SENT,
    SIGNED_UP,
    STRICT,
    THERE,
    condition,
    delivered,
    each_policy,
    ended,
    failed,
    live,
    opted_in,
    opted_out,
    ported,
    state,
    state_at,
    subscriber,
)

# Date guards --------------------------------------------------------------------------------------------------------


def test_an_opt_in_newer_than_the_send_survives_the_receipt_and_an_older_one_does_not() -> None:
    fresh = opted_in(SENT + INSTANT, name="summer")
    assert ended(subscriber(LOOKUPS, fresh, failed("opted_out"))) == OURS - {(HERE, "summer")}
    assert ended(subscriber(LOOKUPS, failed("opted_out"), fresh)) == OURS - {(HERE, "summer")}


def test_a_deactivation_ends_only_opt_ins_older_than_its_effective_date() -> None:
    effective = SENT - 10 * DAY  # told late: the message was sent long after
    fresh = opted_in(effective + INSTANT, THERE, "spring")
    held = subscriber(ALONE, fresh, failed("deactivated", ALONE, at=effective, sent=SENT, after=11 * DAY))
    assert ended(held) == OURS


def test_a_late_event_never_ages_a_newer_condition() -> None:
    held = subscriber(LOOKUPS, failed("suspended"), failed("suspended", at=EVENT - 20 * DAY))
    assert held.shown.steps[0].until == EVENT + 30 * DAY
    woken = subscriber(LOOKUPS, failed("suspended"), failed("resumed", at=EVENT - DAY))
    assert state(woken) == "suspended"


# Several conditions at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("higher", "lower"), [(a, b) for n, a in enumerate(PRECEDENCE) for b in PRECEDENCE[n + 1 :]])
def test_of_two_conditions_the_higher_is_shown_whichever_came_or_happened_first(higher: State, lower: State) -> None:
    for first, then in ((EVENT, EVENT + HOUR), (EVENT + HOUR, EVENT), (EVENT, EVENT)):
        events = condition(higher, first), condition(lower, then)
        for order in permutations(events):
            assert state(live(LOOKUPS, *order, now=EVENT + 2 * HOUR)) == higher


def test_of_two_events_at_one_moment_the_same_is_shown_whichever_came_first() -> None:
    for one, other, sender, policy in product(sorted(REASONS), sorted(REASONS), (HERE, None), (LOOKUPS, STRICT)):
        events = failed(one, policy, sender=sender), failed(other, policy, sender=sender, message="m2")
        shown = [live(policy, *order).shown for order in permutations(events)]
        assert shown[0] == shown[1]


def test_when_the_higher_condition_ends_the_lower_one_shows_again() -> None:
    held = subscriber(LOOKUPS, failed("carrier_unknown"), failed("suspended"))
    assert [step.state for step in held.shown.steps] == ["suspended", "held"]
    assert state(live(LOOKUPS, failed("resumed", at=EVENT + HOUR), held=held)) == "held"


# Suspended ----------------------------------------------------------------------------------------------------------


def test_a_suspension_lapses_after_thirty_days_to_the_microsecond_and_keeps_every_opt_in() -> None:
    held = subscriber(LOOKUPS, failed("suspended"))
    assert [(step.state, step.until) for step in held.shown.steps] == [
        ("suspended", EVENT + 30 * DAY),
        ("active", None),
    ]
    assert state_at(held, LOOKUPS, EVENT + 30 * DAY - INSTANT) == "suspended"
    assert state_at(held, LOOKUPS, EVENT + 30 * DAY) == "active"
    assert ended(held) == NOBODY


def test_a_resume_ends_a_suspension_and_nothing_else() -> None:
    woken = failed("resumed", at=EVENT + HOUR)
    assert state(subscriber(LOOKUPS, failed("suspended"), woken)) == "active"
    for other in PRECEDENCE:
        if other != "suspended":
            assert state(subscriber(LOOKUPS, condition(other, EVENT), woken)) == other


def test_a_deactivation_during_a_suspension_acts_as_any() -> None:
    held = subscriber(ALONE, failed("suspended", ALONE), failed("deactivated", ALONE, at=EVENT + DAY))
    assert state(held) == "deactivated"
    assert ended(held) == EVERYBODY
    assert state_at(held, ALONE, EVENT + 60 * DAY) == "deactivated"


# Delivered later ----------------------------------------------------------------------------------------------------

AFTER_DELIVERY: dict[State, State] = {
    **dict.fromkeys(("held", "porting", "suspended", "unreachable", "not_sms_capable", "invalid"), "active"),
    **dict.fromkeys(("deactivated", "disconnected", "reassigned"), "reassigned"),
}


@each_policy
@pytest.mark.parametrize("was", AFTER_DELIVERY)
def test_a_message_sent_after_the_event_and_delivered_ends_it_or_tells_of_a_stranger(
    policy: Policy, was: State
) -> None:
    events = condition(was, EVENT, policy), delivered(EVENT + INSTANT)
    for order in permutations(events):
        assert state(live(policy, *order)) == AFTER_DELIVERY[was]


@pytest.mark.parametrize("was", AFTER_DELIVERY)
def test_a_message_sent_before_the_event_ends_nothing_however_late_it_is_delivered(was: State) -> None:
    for sent in (EVENT - INSTANT, EVENT):
        assert state(live(LOOKUPS, condition(was, EVENT), delivered(sent))) == was


def test_a_delivery_lifts_the_block_of_its_own_sender_and_never_brings_consent_back() -> None:
    held = subscriber(LOOKUPS, failed("opted_out"))
    assert live(LOOKUPS, delivered(EVENT + HOUR, sender=THERE), held=held).shown.blocks.keys() == {HERE}
    for sent in (EVENT - INSTANT, EVENT):
        assert live(LOOKUPS, delivered(sent), held=held).shown.blocks.keys() == {HERE}
    lifted = live(LOOKUPS, delivered(EVENT + HOUR), held=held)
    assert lifted.shown.blocks == {}
    assert ended(lifted) == OURS


# A stale carrier with nobody to ask ---------------------------------------------------------------------------------


def stale(*days: float) -> Held:
    events = (failed("stale_carrier", ALONE, at=EVENT + day * DAY, message=f"m{day}") for day in days)
    return subscriber(ALONE, *events, now=EVENT + days[-1] * DAY)


def test_alone_a_stale_carrier_holds_for_a_day_and_then_the_number_is_active_again() -> None:
    held = stale(0)
    assert state_at(held, ALONE, EVENT + DAY - INSTANT) == "held"
    assert state_at(held, ALONE, EVENT + DAY) == "active"
    assert ended(held) == NOBODY


@pytest.mark.parametrize("again", [1, 2, 7.5, 8])
def test_again_within_seven_days_after_that_it_is_held_until_a_person_decides(again: float) -> None:
    step = stale(0, again).shown.steps[0]
    assert (step.state, step.waiting_for, step.until) == ("held", "person", None)


@pytest.mark.parametrize("again", [0.5, 8.01, 30])
def test_again_within_the_same_day_or_long_after_holds_for_another_day(again: float) -> None:
    step = stale(0, again).shown.steps[0]
    assert (step.state, step.until) == ("held", EVENT + (again + 1) * DAY)


def test_what_comes_while_it_is_held_only_holds_it_longer() -> None:
    """Active again is what "again" is counted from."""
    step = stale(0, 0.8, 1.2, 1.9).shown.steps[0]
    assert (step.state, step.waiting_for, step.until) == ("held", None, EVENT + 2.9 * DAY)


def test_many_more_of_them_do_not_take_the_decision_from_the_person() -> None:
    step = stale(0, 3, *(3 + n / 100 for n in range(1, 40))).shown.steps[0]
    assert (step.state, step.waiting_for, step.until) == ("held", "person", None)


def test_a_provider_configured_later_is_asked_about_what_was_held_alone() -> None:
    held = stale(0, 3)
    shown = show(held.number, LOOKUPS, EVENT + 3 * DAY)
    assert (shown.steps[0].state, shown.steps[0].waiting_for) == ("held", "lookup")
    assert shown.lookup


# Deactivated, recycled, back again ----------------------------------------------------------------------------------


def test_a_deactivated_number_is_never_released_by_time() -> None:
    for policy in POLICIES.values():
        held = subscriber(policy, failed("deactivated", policy))
        assert len(held.shown.steps) == 1
        assert state_at(held, policy, EVENT + 3650 * DAY) == "deactivated"


@pytest.mark.parametrize("was", ["deactivated", "disconnected", "reassigned"])
def test_a_newer_opt_in_brings_the_number_back_for_that_list_alone(was: State) -> None:
    held = subscriber(LOOKUPS, condition(was, EVENT), opted_in(EVENT + DAY, HERE, "summer"), now=EVENT + 2 * DAY)
    assert state(held) == "active"
    assert held.shown.dead_since == EVENT
    alive = {key for key, one in held.lists.items() if one.opted_in and one.opted_in.at > EVENT}
    assert alive == {(HERE, "summer")}
    assert (HERE, "summer") not in ended(held)


@pytest.mark.parametrize("was", ["deactivated", "disconnected", "reassigned", "not_sms_capable", "invalid"])
def test_an_opt_in_that_is_not_newer_brings_nothing_back(was: State) -> None:
    for given in (EVENT - DAY, EVENT):
        assert state(subscriber(LOOKUPS, condition(was, EVENT), opted_in(given, HERE, "summer"))) == was


@pytest.mark.parametrize("was", ["not_sms_capable", "invalid"])
def test_a_newer_opt_in_ends_not_sms_capable_and_invalid(was: State) -> None:
    assert state(subscriber(LOOKUPS, condition(was, EVENT), opted_in(EVENT + DAY))) == "active"


@pytest.mark.parametrize("was", ["held", "porting", "suspended", "unreachable"])
def test_a_newer_opt_in_does_not_end_what_the_network_says_of_the_moment(was: State) -> None:
    assert state(subscriber(LOOKUPS, condition(was, EVENT), opted_in(EVENT + DAY))) == was


def test_a_proven_port_makes_every_list_sendable_again() -> None:
    held = subscriber(LOOKUPS, failed("deactivated"), ported(EVENT + DAY, "deactivated"))
    assert state(held) == "active"
    assert held.shown.dead_since is None
    assert ended(held) == NOBODY


def test_a_deactivation_after_a_port_counts() -> None:
    held = subscriber(LOOKUPS, ported(EVENT - DAY, "deactivated"), failed("deactivated"))
    assert state(held) == "deactivated"
    assert held.shown.dead_since == EVENT


# Opt-outs are remembered --------------------------------------------------------------------------------------------

ENDINGS = [
    (failed("opted_out"), {HERE}),
    (opted_out(EVENT, "sender"), {HERE}),
    (opted_out(EVENT, "all"), {HERE, THERE}),
    (failed("deactivated", ALONE), {HERE, THERE}),
]


@pytest.mark.parametrize(("ending", "senders"), ENDINGS)
def test_an_opt_out_is_remembered_where_no_list_exists_yet(ending: Verdict, senders: set[str]) -> None:
    imported = opted_in(SIGNED_UP, HERE, "imported"), opted_in(SIGNED_UP, THERE, "imported")
    for order in ((ending, *imported), (*imported, ending)):
        assert {sender for sender, _ in ended(live(LOOKUPS, *order))} == senders


def test_an_opt_out_of_one_list_leaves_the_others() -> None:
    assert ended(subscriber(LOOKUPS, opted_out(EVENT, "list"))) == {(HERE, "spring")}


def test_a_newer_opt_in_brings_back_its_own_list_and_lifts_the_block_until_the_next_such_receipt() -> None:
    held = subscriber(LOOKUPS, failed("opted_out"))
    held, changes = settle(held, opted_in(EVENT + HOUR, HERE, "summer"), LOOKUPS, EVENT + HOUR)
    assert held.shown.blocks == {}
    assert ended(held) == OURS - {(HERE, "summer")}
    assert [change.kind for change in changes] == ["sender.unblocked", "list.opted_in"]
    again = live(LOOKUPS, failed("opted_out", at=EVENT + DAY), held=held)
    assert again.shown.blocks.keys() == {HERE}
    assert ended(again) == OURS


def test_an_opt_in_that_is_not_newer_leaves_the_block() -> None:
    for given in (SIGNED_UP, EVENT):
        assert subscriber(LOOKUPS, opted_in(given), failed("opted_out")).shown.blocks.keys() == {HERE}


def test_an_opt_in_for_one_sender_leaves_the_block_of_another() -> None:
    held = subscriber(LOOKUPS, failed("opted_out"), opted_in(EVENT + HOUR, THERE, "spring"))
    assert held.shown.blocks.keys() == {HERE}


@pytest.mark.parametrize("reason", BLOCKING)
def test_a_port_lifts_the_block_of_a_reseller_alone_and_never_an_opt_out(reason: str) -> None:
    held = subscriber(LOOKUPS, failed(reason))
    moved = live(LOOKUPS, ported(EVENT + DAY), held=held)
    assert moved.shown.blocks.keys() == (set() if reason == "mvno_not_supported" else {HERE})
    assert ended(moved) == ended(held)


def test_a_port_before_the_block_does_not_lift_it() -> None:
    assert subscriber(LOOKUPS, ported(EVENT - DAY), failed("mvno_not_supported")).shown.blocks.keys() == {HERE}


# Lapses in the feed -------------------------------------------------------------------------------------------------


def told(changes: list[Change]) -> list[tuple[str | None, str | None, datetime]]:
    assert {(change.kind, change.cause.kind) for change in changes} <= {("number.state", "lapse")}
    return [(change.before, change.after, change.occurred_at) for change in changes]


def seen_at(held: Held, now: datetime, policy: Policy = LOOKUPS) -> Held:
    return hold(held.number, held.told, held.lists, policy, now)


def test_several_lapses_that_nobody_has_told_are_told_in_order_each_at_its_moment() -> None:
    held = subscriber(LOOKUPS, failed("suspended"), failed("porting_in_progress", at=EVENT + 20 * DAY))
    assert told([*catch_up(seen_at(held, EVENT + 365 * DAY), LOOKUPS, EVENT + 365 * DAY)]) == [
        ("suspended", "porting", EVENT + 30 * DAY),
        ("porting", "active", EVENT + 34 * DAY),
    ]


def test_a_lapse_that_another_condition_covers_is_not_told() -> None:
    held = subscriber(LOOKUPS, failed("suspended"), failed("porting_in_progress"))
    assert told([*catch_up(seen_at(held, EVENT + 365 * DAY), LOOKUPS, EVENT + 365 * DAY)]) == [
        ("suspended", "active", EVENT + 30 * DAY),
    ]


def test_before_its_moment_a_lapse_is_not_told_and_at_its_moment_it_is() -> None:
    held = subscriber(LOOKUPS, failed("suspended"))
    end = EVENT + 30 * DAY
    assert [*catch_up(seen_at(held, end - INSTANT), LOOKUPS, end - INSTANT)] == []
    assert told([*catch_up(seen_at(held, end), LOOKUPS, end)]) == [("suspended", "active", end)]


def test_an_event_after_a_lapse_tells_the_lapse_first() -> None:
    held = subscriber(LOOKUPS, failed("suspended"))
    late = EVENT + 40 * DAY
    _, changes = settle(seen_at(held, late), failed("deactivated", at=late), LOOKUPS, late)
    assert [(change.before, change.after, change.cause.kind, change.occurred_at) for change in changes] == [
        ("suspended", "active", "lapse", EVENT + 30 * DAY),
        ("active", "deactivated", "receipt", late),
    ]


def test_the_same_event_again_changes_nothing_and_tells_nothing() -> None:
    for reason in sorted(REASONS):
        held = subscriber(LOOKUPS, failed(reason))
        again, changes = settle(held, failed(reason), LOOKUPS, NOW)
        assert (again, changes) == (held, [])
