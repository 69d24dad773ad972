"""What the feed is told of one event, purely: what truly changed, from what to what, why and when; else nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from app.models.number import Change, Number, Step, Verdict
from app.services.settle import Held, hold, settle
from tests.verdicts import (
    DAY,
    EVENT,
    HERE,
    HOUR,
    LISTS,
    LOOKUPS,
    NOW,
    NUMBER,
    SIGNED_UP,
    STORED,
    THERE,
    failed,
    live,
    opted_in,
    opted_out,
    ported,
    subscriber,
)


def told(held: Held, event: Verdict, *, now: Any = NOW) -> list[tuple[Any, ...]]:
    """Each change in short. All of them name the number, and that event as their cause and moment."""
    _, changes = settle(held, event, LOOKUPS, now)
    assert {(one.number, one.cause, one.occurred_at) for one in changes} <= {(NUMBER, event.cause, event.at)}
    return [short(one) for one in changes]


def short(one: Change) -> tuple[Any, ...]:
    return (one.kind, one.before, one.after, one.reason, *filter(None, (one.sender, one.list)))


NOBODY_KNOWN = hold(Number(NUMBER), Step("unseen"), {}, LOOKUPS, NOW)


def test_an_opt_in_and_the_first_word_of_a_number() -> None:
    assert told(NOBODY_KNOWN, opted_in()) == [
        ("number.state", "unseen", "active", None),
        ("list.opted_in", None, "opted_in", None, HERE, "spring"),
    ]


def test_the_same_again_and_something_older_tell_nothing() -> None:
    held = subscriber(LOOKUPS, failed("opted_out"))
    assert told(held, failed("opted_out")) == []
    assert told(held, failed("opted_out", at=EVENT - DAY, message="m0")) == []
    assert told(held, opted_in(SIGNED_UP - DAY)) == []


def test_an_opt_out_names_each_list_that_it_reaches_and_no_other() -> None:
    reason = "unsubscribed"
    assert told(subscriber(), opted_out(EVENT, "list")) == [
        ("list.opted_out", "opted_in", "opted_out", reason, HERE, "spring")
    ]
    assert told(subscriber(), opted_out(EVENT, "sender")) == [
        ("list.opted_out", "opted_in", "opted_out", reason, *key) for key in sorted(LISTS) if key[0] == HERE
    ]
    assert told(subscriber(), opted_out(EVENT, "all")) == [
        ("list.opted_out", "opted_in", "opted_out", reason, *key) for key in sorted(LISTS)
    ]


def test_who_was_never_in_is_told_as_out_and_a_newer_opt_in_as_back() -> None:
    refused = opted_out(EVENT, "list")
    assert told(live(LOOKUPS, STORED), refused)[-1] == (
        "list.opted_out",
        None,
        "opted_out",
        "unsubscribed",
        HERE,
        "spring",
    )
    held = live(LOOKUPS, STORED, refused)
    assert told(held, opted_in(EVENT + HOUR), now=EVENT + 2 * HOUR)[-1] == (
        "list.opted_in", "opted_out", "opted_in", None, HERE, "spring",
    )  # fmt: skip


def test_what_a_list_has_heard_is_not_forgotten_for_what_it_hears_next() -> None:
    held = subscriber(LOOKUPS, opted_out(EVENT, "list"))
    assert told(held, opted_in(EVENT - DAY)) == []


def test_a_block_is_told_when_it_comes_and_when_it_goes() -> None:
    blocked = ("sender.blocked", "open", "blocked", "age_restricted", HERE)
    coming = failed("age_restricted")
    assert coming.block
    assert told(subscriber(), coming) == [blocked]
    held = subscriber(LOOKUPS, coming)
    assert told(held, failed("age_restricted", at=EVENT + HOUR, message="m2"), now=EVENT + 2 * HOUR) == []
    assert told(held, failed("age_restricted", sender=THERE)) == [(*blocked[:-1], THERE)]
    assert told(held, opted_in(EVENT + HOUR, name="winter"), now=EVENT + 2 * HOUR) == [
        ("sender.unblocked", "blocked", "open", "age_restricted", HERE),
        ("list.opted_in", None, "opted_in", None, HERE, "winter"),
    ]


def test_a_state_is_told_with_its_reason_and_its_end_with_the_reason_that_ends() -> None:
    assert told(subscriber(), failed("suspended")) == [("number.state", "active", "suspended", "suspended")]
    held = subscriber(LOOKUPS, failed("suspended"))
    assert told(held, failed("resumed", at=EVENT + HOUR), now=EVENT + 2 * HOUR) == [
        ("number.state", "suspended", "active", "suspended")
    ]


def test_a_death_that_a_newer_opt_in_outlives_is_told_since_older_ones_no_longer_count() -> None:
    held, now = subscriber(LOOKUPS, opted_in(EVENT + HOUR, name="winter")), EVENT + 2 * HOUR
    steps = ("active", "deactivated", "active")
    assert told(held, failed("deactivated"), now=now) == [
        ("number.state", *step, "deactivated") for step in pairwise(steps)
    ]
    died = subscriber(LOOKUPS, opted_in(EVENT + HOUR, name="winter"), failed("deactivated"))
    assert told(died, failed("deactivated"), now=now) == []
    assert told(died, ported(EVENT, "deactivated"), now=now) == [("number.state", "active", "active", "deactivated")]
    again = [("list.opted_in", "opted_in", "opted_in", None, HERE, "spring")]
    assert told(died, opted_in(EVENT + HOUR), now=now) == again
    assert told(died, opted_in(EVENT + 2 * HOUR, name="winter"), now=now) == []


def test_an_opt_in_that_brings_a_dead_number_back_is_told_by_its_state_alone() -> None:
    dead = subscriber(LOOKUPS, failed("deactivated"))
    assert told(dead, opted_in(EVENT + HOUR), now=EVENT + 2 * HOUR) == [
        ("number.state", "deactivated", "active", "deactivated")
    ]


def test_a_change_of_the_carrier_is_told_from_name_to_name() -> None:
    assert told(subscriber(), STORED)[:1] == [("number.carrier", None, "AT&T", None)]
    assert told(subscriber(LOOKUPS, STORED), STORED) == []
    assert told(subscriber(LOOKUPS, STORED), ported(EVENT)) == []


def test_a_lapse_is_told_before_what_is_heard_next_with_its_own_moment() -> None:
    suspended, later = subscriber(LOOKUPS, failed("suspended")), EVENT + 40 * DAY
    held = hold(suspended.number, suspended.told, suspended.lists, LOOKUPS, later)
    _, changes = settle(held, failed("opted_out", at=later, message="m2"), LOOKUPS, later)
    lapse, *rest = changes
    assert (short(lapse), lapse.cause.kind, lapse.occurred_at) == (
        ("number.state", "suspended", "active", "suspended"), "lapse", EVENT + 30 * DAY,
    )  # fmt: skip
    assert [one.kind for one in rest if one.kind != "sender.blocked"] == ["list.opted_out"] * 3
    assert {one.cause.message_id for one in rest} == {"m2"}
