"""When a provider may be asked, and how long its answers are used again: pure, by a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from app.models.lookup import Failed, Failure, Found
from app.services.lookup.ask import Answer
from app.services.lookup.breaker import FAILS, RESTS, Breaker, Pace
from app.services.lookup.kept import kept_until, refused

WHO = "+15555551234"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def failing(clock: Clock, times: int = FAILS, error: Failure = "provider_error") -> Breaker:
    breaker = Breaker(clock)
    for _ in range(times):
        assert breaker.lets()
        breaker.heard(error)
    return breaker


# The breaker --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["provider_error", "malformed"])
def test_five_failures_in_a_row_open_it_and_four_do_not(error: Failure) -> None:
    assert failing(Clock(), FAILS - 1, error).lets()
    assert not failing(Clock(), FAILS, error).lets()


def test_after_its_rest_one_trial_is_let_through_and_an_answer_closes_it() -> None:
    clock = Clock()
    breaker = failing(clock)
    clock.now += RESTS - 0.1
    assert not breaker.lets()
    clock.now += 0.1
    assert (breaker.lets(), breaker.lets(), breaker.ready()) == (True, False, False)
    breaker.heard(None)
    assert (breaker.lets(), breaker.lets(), breaker.rests_now()) == (True, True, False)
    for _ in range(FAILS - 1):
        breaker.heard("provider_error")
    assert (breaker.lets(), breaker.rests_now()) == (True, False)
    breaker.heard("provider_error")
    assert (breaker.lets(), breaker.rests_now()) == (False, True)


def test_each_trial_that_fails_doubles_the_rest_up_to_five_minutes() -> None:
    clock = Clock()
    breaker = failing(clock)
    rests = []
    for _ in range(7):
        began = clock.now
        while not breaker.lets():
            clock.now += 0.5
        rests.append(clock.now - began)
        breaker.heard("provider_error")
    assert rests == [15, 30, 60, 120, 240, 300, 300]


@pytest.mark.parametrize(
    "error", ["not_found", "invalid_number", "no_coverage", "forbidden", "rate_limited", "partial"]
)
def test_answers_about_a_number_and_rate_limits_are_no_faults(error: Failure) -> None:
    assert failing(Clock(), 10 * FAILS, error).lets()


@pytest.mark.parametrize("error", ["auth", "quota"])
def test_a_refusal_of_our_account_stops_it_for_ever(error: Failure) -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.heard(error)
    clock.now += 1e9
    assert (breaker.lets(), breaker.ready(), breaker.stopped) == (False, False, error)


# The pace -----------------------------------------------------------------------------------------------------------


def test_calls_are_spread_evenly_and_what_was_not_used_is_not_saved_up() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    assert [round(pace.turn(), 6) for _ in range(4)] == [0, 0.1, 0.2, 0.3]
    clock.now += 60
    assert [round(pace.turn(), 6) for _ in range(2)] == [0, 0.1]


def test_nobody_is_asked_while_the_provider_wants_us_to_wait() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    pace.rest(30)
    assert pace.rests() == 30
    assert [round(pace.turn(), 6) for _ in range(2)] == [30, 30.1]
    clock.now += 31
    assert pace.rests() == 0


def test_as_many_turns_are_soon_as_begin_within_the_time() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    assert [pace.soon(within) for within in (0, 0.25, 2)] == [1, 3, 21]
    pace.rest(1)
    assert [pace.soon(within) for within in (0.9, 1, 2)] == [0, 1, 11]


# How long answers hold ----------------------------------------------------------------------------------------------


def answer(said: Found | Failed, config: str = "mine") -> Answer:
    return Answer("telnyx", said, Decimal(0), NOW, config)


@pytest.mark.parametrize(("said", "kind", "span"), [
    (Found(WHO, "T-Mobile"), "moved", 30 * DAY),
    (Found(WHO, "AT&T"), "same", HOUR),  # not final: long enough for a burst, shorter than the next step
    (Found(WHO, line_type="mobile"), "nothing", DAY),
    (Found(WHO, line_type="mobile", partial=True), "nothing", HOUR),
    (Failed(WHO, "not_found"), "not_found", DAY),
    (Failed(WHO, "invalid_number"), "not_found", 90 * DAY),
    (Found(WHO, line_type="landline"), "deaf", 90 * DAY),
    (Found(WHO, line_type="toll_free"), "deaf", 90 * DAY),
    *((Failed(WHO, error), "nothing", None) for error in
      ("rate_limited", "provider_error", "malformed", "auth", "quota", "bad_request", "pending", "partial")),
])  # fmt: skip
def test_an_answer_is_kept_by_its_outcome(said: Found | Failed, kind: str, span: timedelta | None) -> None:
    assert kept_until(answer(said), kind) == (NOW + span if span else None)


@pytest.mark.parametrize("error", ["no_coverage", "forbidden"])
def test_what_a_provider_does_not_cover_holds_until_its_settings_change(error: Failure) -> None:
    kept = answer(Failed(WHO, error))
    until = kept_until(kept, "nothing")
    assert until
    assert until > NOW + 5 * 365 * DAY
    assert refused([kept], {"telnyx": "mine"}) == [kept]
    assert refused([kept], {"telnyx": "others"}) == []
    assert refused([answer(Failed(WHO, "not_found"))], {"telnyx": "mine"}) == []
