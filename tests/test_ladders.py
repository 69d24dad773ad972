"""The ladders: what follows when a failure comes again and again. Purely first, then over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import reduce
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app.catalogue.policy import PolicyError, load_policy
from app.models.feed import Event
from app.models.lookup import Found
from app.models.number import Number, Verdict
from app.models.policy import Policy
from app.services.decide import reported
from app.services.heard import Said
from app.services.merge import merge
from app.services.resolve import Moment, resolve
from app.services.settle import Held
from tests.conftest import Service, Start
from tests.reasons import NO_DETAIL, SOFT
from tests.verdicts import (
    ALONE,
    CARRIERS,
    DAY,
    EVENT,
    EVERYBODY,
    HERE,
    HOUR,
    LOOKUPS,
    NOBODY,
    NUMBER,
    OURS,
    STORED,
    THERE,
    condition,
    delivered,
    ended,
    failed,
    found,
    live,
    opted_in,
    opted_out,
    state,
    state_at,
    subscriber,
)

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
AHEAD = timezone(HOUR)


def strikes(reason: str, *days: float, sender: str = HERE) -> list[Verdict]:
    """A failure so many days after the first, each of a message of its own."""
    return [failed(reason, at=EVENT + day * DAY, message=f"{reason}-{day}", sender=sender) for day in days]


def struck(reason: str, *days: float) -> Held:
    return subscriber(LOOKUPS, *strikes(reason, *days), now=EVENT + 200 * DAY)


def looked_up(held: Held, answer: Found, at: datetime) -> Held:
    verdicts = resolve(held.number, Said("telnyx", answer), Moment(at), LOOKUPS, CARRIERS).verdicts
    return live(LOOKUPS, *verdicts, held=held, now=at)


# Unknown subscriber ------------------------------------------------------------------------------------------------


def test_the_first_strike_holds_the_number_and_asks_a_lookup() -> None:
    held = struck("unknown_subscriber", 0)
    assert (state(held), held.shown.steps[0].waiting_for, ended(held)) == ("held", "lookup", NOBODY)
    assert held.shown.lookup


def test_an_end_that_a_late_delivery_undoes_leaves_nothing_behind() -> None:
    first, second = strikes("unknown_subscriber", 0, 2)
    between = delivered(EVENT + DAY, sender=THERE)
    numbers = [reduce(merge, order, Number(NUMBER)) for order in permutations([first, second, between])]
    assert numbers == [numbers[0]] * 6
    assert numbers[0].senders.keys() == {THERE}
    assert ended(subscriber(LOOKUPS, first, second, between)) == NOBODY


def test_an_end_of_consent_elsewhere_tells_nothing_of_the_sender_that_it_came_by() -> None:
    everywhere = opted_out(EVENT, "all", HERE)
    assert merge(Number(NUMBER), everywhere).senders == {}


def test_the_second_strike_on_another_day_ends_the_consent_of_its_sender_alone() -> None:
    held = struck("unknown_subscriber", 0, 1)
    assert (state(held), ended(held)) == ("held", OURS)
    (key,) = {key for key in held.lists if key[0] == THERE}
    assert key not in ended(held)


def test_strikes_of_two_senders_are_the_numbers_and_the_second_ones_lists_end() -> None:
    held = subscriber(LOOKUPS, *strikes("unknown_subscriber", 0), *strikes("unknown_subscriber", 1, sender=THERE))
    assert ended(held) == {(THERE, "spring")}


def test_a_day_is_a_utc_day() -> None:
    for apart, out in ((timedelta(seconds=-1), OURS), (timedelta(0), NOBODY)):
        late = failed("unknown_subscriber", at=MIDNIGHT + apart, message="m1")
        early = failed("unknown_subscriber", at=MIDNIGHT + HOUR, message="m2")
        assert ended(subscriber(LOOKUPS, late, early)) == out
        elsewhere = failed("unknown_subscriber", at=(MIDNIGHT + apart).astimezone(AHEAD), message="m1")
        assert ended(subscriber(LOOKUPS, elsewhere, early)) == out


def test_more_strikes_of_one_day_or_of_one_message_are_one() -> None:
    assert ended(struck("unknown_subscriber", 0, 0.1, 0.2)) == NOBODY
    parts = [failed("unknown_subscriber", at=EVENT + day * DAY, message="one") for day in range(5)]
    assert ended(subscriber(LOOKUPS, *parts)) == NOBODY


def test_a_delivery_between_two_strikes_clears_the_first_in_whatever_order_they_are_heard_of() -> None:
    first, second = strikes("unknown_subscriber", 0, 4)
    between, later = delivered(EVENT + 2 * DAY), delivered(EVENT + 6 * DAY)
    for order in permutations([first, between, second, later]):
        assert ended(subscriber(LOOKUPS, *order, now=EVENT + 9 * DAY)) == NOBODY


def test_a_delivery_after_the_second_strike_brings_no_consent_back_in_whatever_order_they_are_heard_of() -> None:
    first, second = strikes("unknown_subscriber", 0, 4)
    for order in permutations([delivered(EVENT - 3 * DAY), first, second, delivered(EVENT + 6 * DAY)]):
        assert ended(subscriber(LOOKUPS, *order, now=EVENT + 9 * DAY)) == OURS


def test_many_more_deliveries_bring_no_consent_back_either() -> None:
    after = [delivered(EVENT + (5 + n) * DAY) for n in range(40)]
    held = subscriber(LOOKUPS, *strikes("unknown_subscriber", 0, 4), *after, now=EVENT + 99 * DAY)
    assert (ended(held), state(held)) == (OURS, "active")
    assert len(held.number.deliveries) < 10
    assert held.number.unknown == ()


def test_an_opt_in_newer_than_the_second_message_survives_it() -> None:
    first, second = strikes("unknown_subscriber", 0, 4)
    fresh = opted_in(EVENT + 3.9999 * DAY, name="summer")
    old = opted_in(EVENT + 3 * DAY, name="autumn")
    held = subscriber(LOOKUPS, first, second, old, now=EVENT + 9 * DAY)
    assert ended(held) == OURS
    newer = opted_in(second.at, name="summer")
    assert ended(subscriber(LOOKUPS, first, second, newer, now=EVENT + 9 * DAY)) == OURS - {(HERE, "summer")}
    assert fresh.at < second.at


@pytest.mark.parametrize(("answer", "becomes"), [
    (found(), "active"), (found("AT&T Mobility", active=True), "active"), (found("AT&T Mobility"), "held"),
])  # fmt: skip
def test_another_network_or_an_explicit_word_releases_it_and_the_next_strike_still_counts(
    answer: Found, becomes: str
) -> None:
    held = subscriber(LOOKUPS, STORED, *strikes("unknown_subscriber", 0))
    at = EVENT + HOUR
    held = looked_up(held, answer, at)
    assert (state(held), ended(held)) == (becomes, NOBODY)
    held = live(LOOKUPS, *strikes("unknown_subscriber", 1), held=held, now=EVENT + 2 * DAY)
    assert (state(held), ended(held)) == ("held", OURS)


def test_without_a_provider_it_waits_for_one_and_the_second_strike_ends_consent_too() -> None:
    one = subscriber(ALONE, failed("unknown_subscriber", ALONE))
    assert (state(one), one.shown.steps[0].waiting_for) == ("held", "no_lookup_provider")
    assert ended(live(ALONE, failed("unknown_subscriber", ALONE, at=EVENT + DAY, message="m2"), held=one)) == OURS


# Soft --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(SOFT))
def test_three_soft_failures_in_a_row_ask_a_lookup_and_nothing_else(reason: str) -> None:
    assert struck(reason, 0, 1).shown.lookup is None
    held = struck(reason, 0, 1, 2)
    assert held.shown.lookup
    assert (state(held), ended(held)) == ("active", NOBODY)
    cleared = live(LOOKUPS, delivered(EVENT + 1.5 * DAY), held=struck(reason, 0, 1), now=EVENT + 9 * DAY)
    assert live(LOOKUPS, *strikes(reason, 2), held=cleared, now=EVENT + 9 * DAY).shown.lookup is None


def test_a_row_asks_once_whatever_was_answered_and_the_next_row_asks_again() -> None:
    held = struck("absent_subscriber", 0, 1, 2)
    at = EVENT + 3 * DAY
    for verdict in resolve(
        held.number, Said("telnyx", found(None, partial=True)), Moment(at), LOOKUPS, CARRIERS
    ).verdicts:
        held = live(LOOKUPS, verdict, held=held)
    assert held.shown.lookup is None
    held = live(LOOKUPS, *strikes("absent_subscriber", 4, 5), held=held)
    assert held.shown.lookup is None
    held = live(LOOKUPS, delivered(EVENT + 6 * DAY), *strikes("absent_subscriber", 7, 8, 9), held=held)
    assert held.shown.lookup


def test_a_lookup_after_soft_failures_ends_consent_only_by_an_explicit_word() -> None:
    for answer, becomes, out in ((found(), "active", NOBODY), (found(active=False), "deactivated", None)):
        held = struck("absent_subscriber", 0, 1, 2)
        for verdict in resolve(
            held.number, Said("telnyx", answer), Moment(EVENT + 3 * DAY), LOOKUPS, CARRIERS
        ).verdicts:
            held = live(LOOKUPS, verdict, held=held, now=EVENT + 3 * DAY)
        assert state(held) == becomes
        assert out is None or ended(held) == out


def test_seven_in_a_row_over_fourteen_days_are_out_of_reach_and_still_opted_in() -> None:
    days = (0, 2, 4, 6, 8, 10)
    for last, becomes in ((13.9, "active"), (14, "unreachable")):
        held = struck("absent_subscriber", *days, last)
        assert (state(held), ended(held)) == (becomes, NOBODY)
    assert state(struck("absent_subscriber", *days[:-1], 14)) == "active"  # six
    assert state(struck("absent_subscriber", *range(14))) == "active"
    assert state(struck("absent_subscriber", *range(15))) == "unreachable"


def test_soft_reasons_climb_one_ladder_together_and_show_the_newest() -> None:
    held = subscriber(LOOKUPS, *(
        failed(reason, at=EVENT + 2 * place * DAY, message=reason) for place, reason in enumerate(sorted(SOFT))
    ), now=EVENT + 99 * DAY)  # fmt: skip
    assert (state(held), held.shown.steps[0].reason) == ("unreachable", max(SOFT))


@pytest.mark.parametrize("cleared", [3.5, 7, 13.9])
def test_a_delivery_clears_the_row(cleared: float) -> None:
    failures = strikes("absent_subscriber", 0, 2, 4, 6, 8, 10, 14)
    sent = delivered(EVENT + cleared * DAY)
    for order in ([*failures, sent], [sent, *failures], [*failures[:3], sent, *failures[3:]]):
        assert state(subscriber(LOOKUPS, *order, now=EVENT + 20 * DAY)) == "active"


def test_a_failure_of_the_day_of_a_delivery_counts_if_it_came_after_it_in_whatever_order_they_are_heard_of() -> None:
    before, *row = strikes("absent_subscriber", -1, 0.1, 2, 4, 6, 8, 10, 14.1)
    sent = delivered(EVENT)
    orders = [[before, *row, sent], [sent, before, *row], [before, sent, *row], [*row, sent, before]]
    numbers = [reduce(merge, order, Number(NUMBER)) for order in orders]
    assert [one.ladders for one in numbers] == [numbers[0].ladders] * 4
    assert state(subscriber(LOOKUPS, *orders[0], now=EVENT + 20 * DAY)) == "unreachable"


def test_a_delivery_brings_it_back_and_only_a_whole_new_row_takes_it_away_again() -> None:
    held = struck("handset_full", 0, 2, 4, 6, 8, 10, 14)
    held = live(LOOKUPS, delivered(EVENT + 15 * DAY), held=held)
    assert (state(held), held.number.ladders) == ("active", {})
    held = live(LOOKUPS, *strikes("handset_full", 16, 18), held=held)
    assert state(held) == "active"


# No detail ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(NO_DETAIL))
def test_five_without_detail_in_ninety_days_are_out_of_reach_and_still_opted_in(reason: str) -> None:
    for last, becomes in ((90, "unreachable"), (90.1, "active")):
        held = struck(reason, 0, 20, 40, 60, last)
        assert (state(held), ended(held), held.shown.lookup) == (becomes, NOBODY, None)
    assert state(struck(reason, 0, 0.01, 0.02, 0.03, 0.04)) == "active"  # one a day


def test_a_later_failure_does_not_bring_an_unreachable_number_back() -> None:
    held = struck("unknown", 0, 1, 2, 3, 4, 190)
    assert state(held) == "unreachable"


def test_the_ladders_do_not_add_up() -> None:
    held = subscriber(
        LOOKUPS, *strikes("unknown", 0, 1, 2, 3), *strikes("absent_subscriber", 4, 5), now=EVENT + 9 * DAY
    )
    assert (state(held), held.shown.lookup) == ("active", None)
    both = [*strikes("unknown", 0, 1, 2, 3, 4), *strikes("absent_subscriber", 4.1)]
    held = subscriber(LOOKUPS, *both, now=EVENT + 9 * DAY)
    assert (state(held), held.shown.steps[0].reason) == ("unreachable", "unknown")


def test_many_failures_of_one_day_push_out_no_day_before_it(tmp_path: Path) -> None:
    policy = climbing(tmp_path, 3)
    days = [day + place / 24 for day in range(3) for place in range(10)]
    two = subscriber(policy, *unknown(policy, *days[:20]), now=EVENT + 9 * DAY)
    assert ended(two) == NOBODY
    assert ended(live(policy, *unknown(policy, days[20]), held=two, now=EVENT + 9 * DAY)) == OURS


def of_hour(hour: float, *, sent: float | None = None, sender: str = HERE) -> Verdict:
    """An unknown subscriber, so many hours into one day; its message was sent then, or earlier."""
    at, since = (None if one is None else MIDNIGHT + one * HOUR for one in (hour, sent))
    return failed("unknown_subscriber", at=at, sent=since, sender=sender, message=f"m{hour}")


BURSTS = {
    "the first, which ended consent before a delivery": (
        [of_hour(-24), of_hour(1), delivered(MIDNIGHT + 6 * HOUR), of_hour(9), of_hour(12)], OURS,
    ),
    "the last, with that of the next day": (
        [of_hour(1), of_hour(2), delivered(MIDNIGHT + 6 * HOUR), of_hour(9, sent=0.5), of_hour(33)], OURS,
    ),
    "that of the message which was sent last": (
        [of_hour(-24), of_hour(1), of_hour(10), of_hour(20, sent=0.5), opted_in(MIDNIGHT + 5 * HOUR)], OURS,
    ),
    "one of each sender": (
        [of_hour(-24), of_hour(1, sender=THERE), of_hour(10), of_hour(20, sender=THERE)], EVERYBODY,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("life", "out"), BURSTS.values(), ids=BURSTS)
def test_of_the_failures_of_one_day_all_that_tell_more_than_the_others_are_kept(
    life: list[Verdict], out: frozenset[tuple[str, str]]
) -> None:
    for order in permutations(life):
        assert ended(subscriber(LOOKUPS, *order, now=EVENT + 9 * DAY)) == out


@pytest.mark.parametrize("many", [8, 30])
def test_as_many_strikes_are_kept_as_a_setting_may_ask_for(tmp_path: Path, many: int) -> None:
    policy = climbing(tmp_path, many)
    almost = subscriber(policy, *unknown(policy, *range(many - 1)), now=EVENT + 99 * DAY)
    assert ended(almost) == NOBODY
    assert ended(live(policy, *unknown(policy, many - 1), held=almost, now=EVENT + 99 * DAY)) == OURS


def test_a_policy_that_asks_for_more_strikes_brings_no_consent_back(tmp_path: Path) -> None:
    """What receipts did before it was in force stands; and what they had not done by then is done by its own count."""
    policy = climbing(tmp_path, 4)
    out = struck("unknown_subscriber", 0, 1)
    for event in (*unknown(policy, 2), delivered(EVENT + 3 * DAY)):
        assert ended(live(policy, event, held=out, now=EVENT + 9 * DAY)) == OURS
    once = struck("unknown_subscriber", 0)
    assert ended(live(policy, *unknown(policy, 1, 2), held=once, now=EVENT + 9 * DAY)) == NOBODY


def test_a_files_record_is_one_strike_of_as_many_as_a_setting_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[ladders.unknown_subscriber]\nstrikes = 12\n[rules.wrong_carrier]\nladder = "unknown_subscriber"\n'
    )
    policy = load_policy(path, lookups=True)
    record = reported(Event(NUMBER, "PORT", "wrong_carrier", EVENT + 10 * DAY, EVENT + 10 * DAY, "records"), policy)
    almost = subscriber(policy, *unknown(policy, *range(10)), record, now=EVENT + 99 * DAY)
    assert ended(almost) == NOBODY
    assert ended(live(policy, *unknown(policy, 11), held=almost, now=EVENT + 99 * DAY)) == OURS


def test_strikes_of_a_version_that_did_not_keep_how_many_end_consent_have_ended_it_still() -> None:
    out = struck("unknown_subscriber", 0, 1)
    kept = replace(out.number, unknown=tuple(replace(one, rungs=None) for one in out.number.unknown))
    old = replace(out, number=kept, acting=kept)
    assert ended(live(LOOKUPS, delivered(EVENT + 3 * DAY), held=old, now=EVENT + 9 * DAY)) == OURS


def climbing(folder: Path, strikes: int) -> Policy:
    path = folder / "mine.toml"
    path.write_text(f"[ladders.unknown_subscriber]\nstrikes = {strikes}\n")
    return load_policy(path, lookups=True)


def unknown(policy: Policy, *days: float) -> list[Verdict]:
    return [failed("unknown_subscriber", policy, at=EVENT + day * DAY, message=f"m{day}") for day in days]


# Small, and settings -----------------------------------------------------------------------------------------------


def test_facts_stay_small_however_long_it_goes_on() -> None:
    every_hour = [place / 24 for place in range(24 * 60)]
    for reason in ("absent_subscriber", "unknown", "unknown_subscriber"):
        held = struck(reason, *every_hour)
        assert sum(map(len, held.number.ladders.values())) + len(held.number.unknown) <= 64


WRONG = {
    "a ladder nobody has heard of": ("[ladders.hard]\nstrikes = 2", "[ladders.hard]", "soft"),
    "a key nobody has heard of": ("[ladders.soft]\nstrike = 2", "[ladders.soft]", "'strike'", "strikes"),
    "no strikes": ("[ladders.soft]\nstrikes = 0", "[ladders.soft] strikes", "1 to 30"),
    "more strikes than are kept": ("[ladders.soft]\nstrikes = 31", "[ladders.soft] strikes", "1 to 30"),
    "strikes as a word": ('[ladders.soft]\nstrikes = "7"', "[ladders.soft] strikes", "whole number"),
    "a time without a unit": ("[ladders.no_detail]\nwithin = 90", "[ladders.no_detail] within", '"24h"'),
    "days that are not kept": ('[ladders.soft]\nover = "31d"', "[ladders.soft] over", '"30d"'),
    "strikes in too short a time": ('[ladders.no_detail]\nwithin = "3d"', "[ladders.no_detail] within", "5 strikes"),
    "a breaker without a window": ('[breaker]\nwindow = "0s"', "[breaker] window", "more than 0s"),
    "a breaker's window of days": ('[breaker]\nwindow = "25h"', "[breaker] window", '"1d"'),
    "a past that is not kept": ('[breaker]\npast = "91d"', "[breaker] past", '"90d"'),
    "a lookup where there is none": (
        "[ladders.unknown_subscriber]\nlookup = 1",
        "[ladders.unknown_subscriber]",
        "only",
    ),
    "a word where ladders stand": ('ladders = "none"', "`ladders`", "[ladders."),
    "a word where a ladder stands": ("[ladders]\nsoft = 7", "[ladders.soft]"),
    "a breaker of nothing": ("[breaker]\nleast = 0", "[breaker] least", "whole number"),
    "a breaker that is a word": ('breaker = "off"', "[breaker]"),
    "a breaker's unknown key": ("[breaker]\nmost = 3", "[breaker]", "'most'", "least"),
    "a ladder of no rule": ('[rules.expired]\nladder = "up"', "[rules.expired] ladder", '"soft"'),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_of_a_wrong_setting_one_line_says_what_and_where_and_how_to_mend_it(tmp_path: Path, wrong: str) -> None:
    written, *words = WRONG[wrong]
    path = tmp_path / "mine.toml"
    path.write_text(written)
    with pytest.raises(PolicyError) as error:
        load_policy(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_the_steps_are_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[ladders.unknown_subscriber]\nstrikes = 3\n[ladders.soft]\nstrikes = 2\nover = "1d"\nlookup = 1\n'
                    '[rules.network_error]\nladder = "soft"\n')  # fmt: skip
    policy = load_policy(path, lookups=True)

    def after(reason: str, *days: float) -> Held:
        events = (failed(reason, policy, at=EVENT + day * DAY, message=f"m{day}") for day in days)
        return subscriber(policy, *events, now=EVENT + 9 * DAY)

    assert ended(after("unknown_subscriber", 0, 1)) == NOBODY
    assert ended(after("unknown_subscriber", 0, 1, 2)) == OURS
    assert after("network_error", 0).shown.lookup
    assert state(after("network_error", 0, 1)) == "unreachable"


def test_what_an_owner_calls_unreachable_is_forgotten_with_a_delivery_in_whatever_order_they_are_heard_of(
    tmp_path: Path,
) -> None:
    """Else a replay would tell of receipts without effect."""
    path = tmp_path / "mine.toml"
    path.write_text('[rules.network_error]\nstate = "unreachable"\n')
    own, soft = failed("network_error", load_policy(path)), failed("absent_subscriber", at=EVENT + HOUR, message="m2")
    numbers = [reduce(merge, order, Number(NUMBER)) for order in permutations([own, soft, delivered(EVENT + 2 * HOUR)])]
    assert numbers == [numbers[0]] * 6
    assert numbers[0].conditions == {}
    assert state(subscriber(LOOKUPS, own, delivered(EVENT))) == "unreachable", "it was sent no later"


def test_what_a_lookup_called_unreachable_is_lifted_by_a_delivery_and_not_forgotten() -> None:
    """As in every version: else a replay would tell of deliveries without effect."""
    for order in permutations([condition("unreachable", EVENT), delivered(EVENT + HOUR)]):
        held = subscriber(LOOKUPS, *order, now=EVENT + DAY)
        assert (state(held), held.number.conditions.keys()) == ("active", {"unreachable/carrier_unknown"})


def test_what_a_lookup_called_unreachable_is_so_whatever_fails_that_day() -> None:
    held = subscriber(LOOKUPS, condition("unreachable", EVENT), *strikes("absent_subscriber", 0), now=EVENT + DAY)
    assert (state(held), held.shown.steps[0].reason) == ("unreachable", "carrier_unknown")


@pytest.mark.parametrize("rule", [
    'ladder = "unknown_subscriber"', 'state = "held"', 'state = "held"\nladder = "no_detail"'])  # fmt: skip
def test_what_counted_on_a_ladder_counts_there_when_its_reason_climbs_no_more(tmp_path: Path, rule: str) -> None:
    """A single failure has made no number unreachable, and does not when an owner changes the rule of its reason."""
    path = tmp_path / "mine.toml"
    path.write_text(f"[rules.absent_subscriber]\n{rule}\n")
    policy = load_policy(path, lookups=True)
    week = [7 * day / 3 for day in range(7)]
    assert state_at(struck("absent_subscriber", 0), policy, EVENT + DAY) == "active"
    beside = [*strikes("absent_subscriber", *week), *strikes("unknown", week[-1])]
    for held in (struck("absent_subscriber", *week), subscriber(LOOKUPS, *beside, now=EVENT + 20 * DAY)):
        assert state_at(held, policy, EVENT + 30 * DAY) == "unreachable"


def test_what_an_owner_called_unreachable_stays_so_whatever_climbs_on_other_days(tmp_path: Path) -> None:
    """Also when the rule is taken back: it had come to no ladder."""
    path = tmp_path / "mine.toml"
    path.write_text('[rules.network_error]\nstate = "unreachable"\n')
    own = failed("network_error", load_policy(path))
    held = subscriber(LOOKUPS, own, *strikes("absent_subscriber", 1), now=EVENT + 2 * DAY)
    assert (state(held), held.shown.steps[0].reason) == ("unreachable", "network_error")


def test_taking_a_reason_from_a_ladder_makes_nobody_unreachable(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[rules.network_error]\nladder = "soft"\n')
    policy = load_policy(path, lookups=True)
    once = subscriber(policy, failed("network_error", policy))
    assert state(live(LOOKUPS, failed("network_error", at=EVENT + DAY), held=once, now=EVENT + 2 * DAY)) == "active"


def test_a_failure_that_an_owner_calls_unreachable_is_so_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[rules.barred]\nstate = "unreachable"\n')
    policy = load_policy(path, lookups=True)
    held = subscriber(policy, failed("barred", policy))
    assert (state(held), held.shown.steps[0].reason, ended(held)) == ("unreachable", "barred", NOBODY)
    assert state(live(policy, delivered(EVENT + HOUR), held=held)) == "active"
    assert state(subscriber(policy, failed("absent_subscriber", policy))) == "active"


# Over HTTP ---------------------------------------------------------------------------------------------------------


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


async def fails(service: Service, code: str | None, days: float, **said: Any) -> None:
    body = {"message_id": f"{code}-{days}", "number": NUMBER, "sender": HERE, "status": "undeliverable", "code": code,
            "code_space": "openmarket", "occurred_at": ago(days)} | said  # fmt: skip
    assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200


async def subscribe(service: Service) -> None:
    for sender in (HERE, THERE):
        path = f"/v1/senders/{sender}/lists/spring/subscribers/{NUMBER}"
        answer = await service.client.put(path, json={"consented_at": ago(90), "source": "web form"})
        assert answer.status_code == 200


async def told(service: Service) -> tuple[str, dict[str, str], list[str]]:
    """State, consent by sender, and who may text it: over HTTP, which the views must say too."""
    one = (await service.client.get(f"/v1/numbers/{NUMBER}")).json()
    assert await service.sql("SELECT state FROM published.number_status") == [(one["state"],)]
    sendable = await service.sql("SELECT sender FROM published.sendable ORDER BY sender")
    assert [sender for (sender,) in sendable] == [two["sender"] for two in one["lists"] if two["sendable"]]
    return one["state"], {two["sender"]: two["consent"] for two in one["lists"]}, [sender for (sender,) in sendable]


IN, OUT = "opted_in", "opted_out"


async def test_over_http_a_subscriber_unknown_on_two_days_loses_the_lists_of_that_sender(start: Start) -> None:
    async with start(lookup={}) as service:
        await subscribe(service)
        await fails(service, "514", 5)
        assert await told(service) == ("held", {HERE: IN, THERE: IN}, [])
        assert await service.sql("SELECT reason FROM lookups") == [("unknown_subscriber",)]
        await fails(service, "514", 3)
        assert await told(service) == ("held", {HERE: OUT, THERE: IN}, [])
        assert await service.sql("SELECT sender, reason, code FROM published.opt_outs") == [
            (HERE, "unknown_subscriber", "514")
        ]
        await fails(service, "0", 1, status="delivered", sent_at=ago(1))
        assert await told(service) == ("active", {HERE: OUT, THERE: IN}, [THERE])


async def test_over_http_a_subscriber_absent_for_weeks_is_unreachable_until_a_delivery(service: Service) -> None:
    await subscribe(service)
    for days in (20, 17, 14, 11, 8, 7):
        await fails(service, None, days, status="expired")
    assert await told(service) == ("active", {HERE: IN, THERE: IN}, [HERE, THERE])
    await fails(service, None, 5, status="expired")
    assert await told(service) == ("unreachable", {HERE: IN, THERE: IN}, [])
    await fails(service, "0", 1, status="delivered", sent_at=ago(1))
    assert await told(service) == ("active", {HERE: IN, THERE: IN}, [HERE, THERE])
