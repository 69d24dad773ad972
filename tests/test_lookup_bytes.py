"""Every lookup provider against broken HTTP and against bytes that nobody meant to send."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, timedelta
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.lookups import LARGEST_RAW, LONGEST_NAME, read
from app.lookups._http import wait
from app.models.http import HttpAnswer
from app.models.lookup import ANSWERS, Failed, Failure, Found, LineType, Provider
from tests.bent import bent
from tests.lookup_cases import CASES, GOOD, NUMBER, Case, each_case, each_provider, each_that_sends, told

# -- broken HTTP, the same for all -------------------------------------------------------------------------------------


def failed(provider: Provider, answer: HttpAnswer) -> Failed:
    case = GOOD[provider.name]
    (one, *_) = read(provider, answer, case.numbers, case.options).values()
    assert isinstance(one, Failed)
    return one


@each_that_sends
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (202, "pending"),
        (301, "bad_request"),
        (400, "bad_request"),
        (401, "auth"),
        (402, "quota"),
        (403, "auth"),
        (405, "bad_request"),
        (408, "provider_error"),
        (415, "bad_request"),
        (422, "bad_request"),
        (429, "rate_limited"),
        (500, "provider_error"),
        (502, "provider_error"),
        (503, "provider_error"),
        (599, "provider_error"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"{}", b"[]", b'{"code":'])
def test_a_status_means_the_same_whatever_stands_in_the_body(
    provider: Provider, status: int, error: str, body: bytes
) -> None:
    assert failed(provider, HttpAnswer(status, {}, body)).error == error


@each_that_sends
def test_a_page_of_a_proxy_is_never_an_answer_about_a_number(provider: Provider) -> None:
    for status in range(300, 600):
        page = HttpAnswer(status, {"content-type": "text/html"}, b"<html><title>404 Not Found</title></html>")
        assert failed(provider, page).error not in ANSWERS


@each_that_sends
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:42 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 42.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:42 GMT"}, None),
        ({"retry-after": "soon", "x-ratelimit-reset": "9"}, 9.0),
        ({"x-ratelimit-reset": "1795262460", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 60.0),
        ({"x-ratelimit-reset": "1795262460"}, None),
        ({"ratelimit-reset": "3"}, 3.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_what_the_provider_says(
    provider: Provider, headers: dict[str, str], seconds: float | None
) -> None:
    assert failed(provider, HttpAnswer(429, headers, b"")).retry_after == seconds
    asked = None if headers.keys() & {"x-ratelimit-reset", "ratelimit-reset"} else seconds
    assert failed(provider, HttpAnswer(503, headers, b"")).retry_after == asked


@given(st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-reset", "date"]), st.text(max_size=40)))
def test_no_header_makes_us_wait_forever_or_fail(headers: dict[str, str]) -> None:
    seconds = wait(headers)
    assert seconds is None or 0 <= seconds < 1e10


@each_that_sends
def test_an_answer_that_was_cut_is_malformed_and_so_is_never_held_against_a_number(provider: Provider) -> None:
    whole = GOOD[provider.name].answer
    for length in range(len(whole.body)):
        assert failed(provider, replace(whole, body=whole.body[:length])).error == "malformed"
    assert failed(provider, replace(whole, cut=True)) == Failed(
        GOOD[provider.name].numbers[0], "malformed", "cut short"
    )


@each_that_sends
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"7", b'"ok"', b"<html>", b"\xff\xfe", b"{}", b'{"data": []}'])
def test_a_200_that_is_no_answer_is_malformed_or_says_nothing(provider: Provider, body: bytes) -> None:
    assert failed(provider, HttpAnswer(200, {"content-type": "application/json"}, body)).error in {
        "malformed",
        "partial",
    }


@each_that_sends
@pytest.mark.parametrize("content_type", ["text/html", "text/plain; charset=latin-1", "", "image/png"])
def test_a_good_answer_is_read_whatever_its_content_type_claims(provider: Provider, content_type: str) -> None:
    case = GOOD[provider.name]
    for body in (case.answer.body, b"\xef\xbb\xbf" + case.answer.body):
        lying = HttpAnswer(200, {"content-type": content_type}, body)
        assert told(case, lying) == told(case)


@each_provider
@pytest.mark.parametrize("error", [KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError])
def test_a_reader_that_trips_never_puts_what_it_read_into_its_words(provider: Provider, error: type[Exception]) -> None:
    def trip(*_: object) -> Mapping[str, Found | Failed]:
        raise error(NUMBER)

    found = read(replace(provider, read=trip), HttpAnswer(200, {}, b""), [NUMBER], {})
    assert found == {NUMBER: Failed(NUMBER, "malformed", f"unexpected shape ({error.__name__})")}


@each_case
def test_neither_a_secret_nor_a_number_that_is_echoed_gets_into_the_words_of_a_failure(case: Case) -> None:
    secrets = [value for value in case.options.values() if isinstance(value, str) and len(value) > 7]
    if not case.answer.body.startswith(b"{"):
        return
    for echo in [*secrets, *case.numbers, case.numbers[0][1:]]:
        for status in (200, 400, 401, 404, 422, 429, 500):
            body = json.dumps(echoing(json.loads(case.answer.body), echo)).encode()
            words = [one.detail for one in told(case, HttpAnswer(status, {}, body)).values() if isinstance(one, Failed)]
            assert not any(echo in word for word in words), echo


def echoing(value: Any, echo: str) -> Any:
    if isinstance(value, dict):
        return {name: echoing(inner, echo) for name, inner in value.items()}
    return [echoing(inner, echo) for inner in value] if isinstance(value, list) else echo


# -- bytes that nobody meant to send -----------------------------------------------------------------------------------

STATUSES = st.sampled_from([200, 200, 200, 200, 201, 202, 204, 301, 400, 401, 403, 404, 422, 429, 500, 503])


@st.composite
def nearly_right(draw: st.DrawFn, provider: Provider) -> tuple[Case, HttpAnswer]:
    """A recorded answer of the provider, bent in one to three places."""
    case = draw(st.sampled_from([case for case in CASES if case.provider is provider]))
    body = case.answer.body
    for _ in range(draw(st.integers(1, 3))):
        body = bent(draw, body)
    return case, HttpAnswer(draw(STATUSES), {"retry-after": draw(st.text(max_size=5))}, body, cut=False)


# A recorded answer is read in some 50 microseconds; a second is room for a busy machine and for nothing that grows.
SOON = timedelta(seconds=1)


@each_provider
@settings(max_examples=150, deadline=SOON)
@given(data=st.data())
def test_an_answer_that_is_nearly_right_is_read_or_refused(provider: Provider, data: st.DataObject) -> None:
    case, answer = data.draw(nearly_right(provider))
    check_sound(case, told(case, answer))


@each_provider
@settings(max_examples=60, deadline=SOON)
@given(body=st.binary(max_size=2048), status=st.integers(100, 599), header=st.text(max_size=20))
def test_any_bytes_are_read_or_refused(provider: Provider, body: bytes, status: int, header: str) -> None:
    case = GOOD[provider.name]
    check_sound(case, told(case, HttpAnswer(status, {"retry-after": header, "date": header}, body)))


@each_that_sends
@pytest.mark.parametrize(
    "body",
    [b"[" * 2_000_000, b'{"a":' * 500 + b"1" + b"}" * 500, b'{"data":"' + b"9" * 4_000_000 + b'"}', b"x" * 4_000_000],
    ids=["lists in lists", "objects in objects", "an endless text", "an endless line"],
)
def test_megabytes_of_malice_are_refused(provider: Provider, body: bytes) -> None:
    check_sound(GOOD[provider.name], told(GOOD[provider.name], HttpAnswer(200, {}, body)))


def check_sound(case: Case, found: Mapping[str, Found | Failed]) -> None:
    """Whatever came: an answer for every number that was asked, and nothing in it that could not be kept."""
    assert list(found) == case.numbers
    for number, one in found.items():
        assert one.number == number
        check_failed(one) if isinstance(one, Failed) else check_found(one)


def check_failed(one: Failed) -> None:
    assert one.error in get_args(Failure)
    assert len(one.detail) <= 100
    assert one.number[1:] not in one.detail


def check_found(one: Found) -> None:
    assert one.line_type is None or one.line_type in get_args(LineType)
    assert one.mcc is None or re.fullmatch(r"\d{3}", one.mcc, re.ASCII)
    assert one.mnc is None or re.fullmatch(r"\d{2,3}", one.mnc, re.ASCII)
    assert one.porting in {True, False}
    assert one.price is None or 0 <= one.price < 1000
    for flag in (one.ported, one.active):
        assert flag in {True, False, None}
    for at in (one.ported_at, one.deactivated_at):
        assert at is None or (at.tzinfo is UTC and 1990 <= at.year < 2100)
    for name in (one_field.name for one_field in fields(one)):
        value = getattr(one, name)
        assert not isinstance(value, str) or (0 < len(value) <= LONGEST_NAME and "\0" not in value)
    kept = orjson.dumps(one.raw)
    assert len(kept) <= LARGEST_RAW
    assert b"\\u0000" not in kept
