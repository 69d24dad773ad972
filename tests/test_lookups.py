"""Every lookup provider against its recorded answers, against broken HTTP, and against bytes that nobody meant to send.

The cases are data: `tests/lookups/<name>.toml` (docs/lookups.md says how to write them). This is the one driver for all
of them; no provider has test code of its own.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, get_args

import httpx
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from app import lookups
from app.lookups import LARGEST_RAW, LONGEST_NAME, PROVIDERS, read
from app.lookups._http import wait
from app.models.lookup import ANSWERS, Call, Failed, Failure, Found, HttpAnswer, LineType, Provider
from tests.bent import bent
from tests.recorded import one_by_one

REPOSITORY = Path(__file__).parent.parent
RECORDED = Path(__file__).parent / "lookups"
NUMBER = "+15555551234"


@cache
def rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


# -- the recorded cases ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is sent for some numbers, or what an answer says about them."""

    provider: Provider
    name: str
    numbers: list[str]
    options: dict[str, Any]
    said: dict[str, Any]
    answer: HttpAnswer
    wanted: dict[str, Found | Failed] = field(default_factory=dict)


def recorded(kind: str) -> list[Case]:
    there = [(provider, RECORDED / f"{name.replace('-', '_')}.toml") for name, provider in PROVIDERS.items()]
    return [case for provider, path in there if path.exists() for case in cases_of(provider, path, kind)]


def cases_of(provider: Provider, path: Path, kind: str) -> Iterator[Case]:
    file = tomllib.loads(path.read_text())
    for said in one_by_one(file.get(kind, [])):
        yield as_case(provider, file.get("options", {}), said)


def as_case(provider: Provider, options: dict[str, Any], said: dict[str, Any]) -> Case:
    options = options | said.get("options", {})
    if "private_key" in options:
        options["private_key"] = rsa_key()
    found = [as_found(one) for one in said.get("found", [])]
    failed = [Failed(**{"number": NUMBER, **one}) for one in said.get("failed", [])]
    return Case(
        provider=provider,
        name=f"{provider.name}: {said['name']}",
        numbers=said.get("numbers", [NUMBER]),
        options=options,
        said=said,
        answer=HttpAnswer(int(said.get("status", 200)), said.get("headers", {}), said.get("body", "").encode()),
        wanted={one.number: one for one in [*found, *failed]},
    )


def as_found(said: dict[str, Any]) -> Found:
    """What the case names, and nothing else told. In a row of `each` yes, no and "" are true, false and not told."""
    flags = {"yes": True, "no": False, "": None}
    values = {key: flags.get(value, value) if key == "active" else value for key, value in said.items()}
    if "price" in values:
        values["price"] = Decimal(values["price"])
    return Found(**{"number": NUMBER, **values})


BUILDS, CASES = recorded("build"), recorded("case")
GOOD = {case.provider.name: case for case in reversed(CASES) if isinstance(next(iter(case.wanted.values())), Found)}
SENT = [provider for provider in PROVIDERS.values() if provider.name != "demo"]
each_build = pytest.mark.parametrize("case", BUILDS, ids=lambda case: case.name)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
each_that_sends = pytest.mark.parametrize("provider", SENT, ids=lambda provider: provider.name)


def told(case: Case, answer: HttpAnswer | None = None) -> dict[str, Found | Failed]:
    return read(case.provider, answer or case.answer, case.numbers, case.options)


# -- what is asked -----------------------------------------------------------------------------------------------------


@each_build
def test_a_request_is_as_its_case_says(case: Case) -> None:
    call, wanted = case.provider.build(case.numbers, case.options), case.said
    assert (call.method, on_the_wire(call)) == (wanted["method"], wanted["url"])
    assert call.basic == (tuple(wanted["basic"]) if "basic" in wanted else None)
    assert call.json == (json.loads(wanted["json"]) if "json" in wanted else None)
    assert call.content == (wanted["body"].encode() if "body" in wanted else None)
    assert list(call.headers) == list(wanted.get("headers", {}))
    for name, value in wanted.get("headers", {}).items():
        if value.endswith("{jwt}"):
            check_token(call.headers[name].removeprefix("Bearer "), wanted["jwt"])
        else:
            assert call.headers[name] == value


def on_the_wire(call: Call) -> str:
    """The address as the HTTP client sends it: what stands in a path or a query is encoded only then."""
    return call.url if call.url.startswith("demo:") else str(httpx.Request("GET", call.url, params=call.params).url)


def check_token(token: str, claims: dict[str, Any]) -> None:
    public = serialization.load_pem_private_key(rsa_key().encode(), None).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    read_with = {"algorithms": ["RS256"], "options": {"verify_exp": False, "verify_iat": False}}
    assert jwt.decode(token, public, **read_with) == claims  # type: ignore[arg-type]


@each_build
def test_the_same_numbers_ask_the_same_and_others_ask_something_else(case: Case) -> None:
    ask = case.provider.build
    assert ask(case.numbers, case.options) == ask(case.numbers, case.options)
    assert ask(case.numbers, case.options) != ask([*case.numbers[1:], "+15555550000"], case.options)


@each_that_sends
def test_a_test_server_can_stand_in_for_every_provider(provider: Provider) -> None:
    options = GOOD[provider.name].options | {"base_url": "http://127.0.0.1:4010"}
    assert provider.build([NUMBER], options).url.startswith("http://127.0.0.1:4010/")


@each_that_sends
def test_what_a_provider_needs_is_what_it_cannot_be_asked_without(provider: Provider) -> None:
    options = GOOD[provider.name].options
    assert set(provider.needs) <= options.keys()
    for name in provider.needs:
        without = {key: value for key, value in options.items() if key != name}
        with pytest.raises((KeyError, ValueError)):
            provider.build([NUMBER], without)


def test_the_settings_of_every_provider_are_those_of_the_contract() -> None:
    """What people have written into their settings cannot change its name."""
    assert {name: provider.needs for name, provider in PROVIDERS.items()} == {
        "bandwidth": ("account_id", "username", "password"),
        "demo": (),
        "hlr-lookups": ("api_key", "api_secret"),
        "http": ("url", "fields"),
        "infobip": ("api_key",),
        "plivo": ("auth_id", "auth_token"),
        "sinch": ("project_id", "key_id", "key_secret"),
        "syniverse": ("token",),
        "telnyx": ("api_key",),
        "twilio": ("account_sid", "auth_token"),
        "vonage": ("application_id", "private_key"),
    }


@pytest.mark.parametrize("name", ["vonage", "hlr-lookups"])
@pytest.mark.parametrize("now", [None, datetime(2026, 11, 21, 12)])  # noqa: DTZ001
def test_a_request_that_signs_its_time_needs_one_with_a_zone(name: str, now: datetime | None) -> None:
    with pytest.raises(ValueError, match="pass `now`"):
        PROVIDERS[name].build([NUMBER], GOOD[name].options | {"now": now})


def test_a_token_is_another_one_for_every_instant() -> None:
    """Vonage refuses a token whose id it has seen."""
    case = GOOD["vonage"]
    later = case.options | {"now": case.options["now"] + timedelta(microseconds=1)}
    tokens = [case.provider.build([NUMBER], options).headers["authorization"] for options in (case.options, later)]
    assert tokens[0] != tokens[1]


def test_a_key_may_have_its_line_breaks_written_out_as_environments_hold_them() -> None:
    case = GOOD["vonage"]
    flat = case.options | {"private_key": rsa_key().replace("\n", "\\n")}
    assert case.provider.build([NUMBER], flat) == case.provider.build([NUMBER], case.options)


def test_a_key_that_is_none_is_named_and_never_shown() -> None:
    options = GOOD["vonage"].options | {"private_key": "not-a-key-but-secret"}
    with pytest.raises(ValueError, match="private_key must be an RSA key") as caught:
        PROVIDERS["vonage"].build([NUMBER], options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fields": {"carier": "a"}}, "fields.carier: no such field"),
        ({"statuses": {"404": "gone"}}, "'gone' is no failure"),
        ({"errors": {"path": "a", "words": {"x": "lost"}}}, "'lost' is no failure"),
    ],
)
def test_settings_of_an_api_that_cannot_work_are_told_when_it_is_first_asked(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PROVIDERS["http"].build([NUMBER], GOOD["http"].options | wrong)


# -- what is answered --------------------------------------------------------------------------------------------------


@each_case
def test_a_recorded_answer_means_what_its_case_says(case: Case) -> None:
    found = told(case)
    assert list(found) == case.numbers
    for number, wanted in case.wanted.items():
        one = found[number]
        if isinstance(wanted, Failed) and isinstance(one, Failed):
            named = next(said for said in case.said["failed"] if said.get("number", NUMBER) == number)
            one = one if "detail" in named else replace(one, detail="")
        assert (replace(one, raw={}) if isinstance(one, Found) else one) == wanted


@each_case
def test_what_is_kept_of_an_answer_is_what_was_said_without_what_is_private(case: Case) -> None:
    kept = "".join(repr(one.raw) for one in told(case).values() if isinstance(one, Found))
    assert all(text in kept for text in case.said.get("keeps", []))
    assert not any(text in kept for text in case.said.get("lacks", []))


PRIVATE = {
    "imsi": "310410111111111",
    "msin": "1111111111",
    "msc": "491770190000",
    "servingMSC": "14045550000",
    "caller_name": {"caller_name": "JANE ROE"},
    "callerName": "JANE ROE",
    "subscriber_match": {"given_name_match": "EXACT"},
    "roaming_network_name": "Tele2",
}
SECRETS = re.compile("310410111111111|1111111111|491770190000|14045550000|JANE ROE|EXACT|Tele2")


@each_case
def test_nothing_of_a_person_is_kept_wherever_an_answer_puts_it(case: Case) -> None:
    if not case.answer.body.startswith(b"{"):
        return
    planted = replace(case.answer, body=json.dumps(plant(json.loads(case.answer.body))).encode())
    before, after = told(case), told(case, planted)
    assert {number: type(one) for number, one in after.items()} == {number: type(one) for number, one in before.items()}
    assert not SECRETS.search(repr(after))


def plant(value: Any) -> Any:
    """The same with private members in every object of it."""
    if isinstance(value, dict):
        return {name: plant(inner) for name, inner in value.items()} | PRIVATE
    return [plant(inner) for inner in value] if isinstance(value, list) else value


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
    for status in (429, 503):
        assert failed(provider, HttpAnswer(status, headers, b"")).retry_after == seconds


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


# -- nothing missing ---------------------------------------------------------------------------------------------------


def page() -> str:
    return (REPOSITORY / "docs" / "lookups.md").read_text()


def rows() -> dict[str, list[str]]:
    """The table of docs/lookups.md, by provider."""
    found = [re.match(r"\| \[`([a-z-]+)`\]\([^)]*\) \|", line) for line in page().splitlines()]
    return {row[1]: row.string.strip("| ").split(" | ") for row in found if row}


def missing(name: str, provider: Provider) -> list[str]:
    """What a provider still lacks of: one code file, one file of cases, one row."""
    module = name.replace("-", "_")
    cases = RECORDED / f"{module}.toml"
    recordings = tomllib.loads(cases.read_text()) if cases.exists() else {}
    wanted = {
        f"app/lookups/{module}.py: a provider whose name is {name!r}": provider.name == name,
        f"tests/lookups/{module}.toml: [[build]] with its source": sourced(recordings.get("build")),
        f"tests/lookups/{module}.toml: [[case]] with its source": sourced(recordings.get("case")),
        f"docs/lookups.md: a row | [`{name}`]({provider.docs}) | …": f"| [`{name}`]({provider.docs})" in page()
        or f"| [`{name}`](#" in page(),
        f"docs/lookups.md: {name}'s settings in its row": all(
            f"`{key}`" in " ".join(rows().get(name, [])) for key in provider.needs
        ),
    }
    return [what for what, there in wanted.items() if not there]


def sourced(cases: list[dict[str, Any]] | None) -> bool:
    return bool(cases) and all(case.get("source") for case in cases or [])


def test_every_provider_has_its_code_its_cases_and_its_row() -> None:
    assert [what for name, provider in PROVIDERS.items() for what in missing(name, provider)] == []


def test_no_case_or_row_speaks_of_a_provider_that_is_not_there() -> None:
    named = {path.stem.replace("_", "-") for path in RECORDED.glob("*.toml")} | rows().keys()
    assert named - PROVIDERS.keys() == set()


def test_the_folder_is_the_registry() -> None:
    files = {path.stem for path in Path(lookups.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert {name.replace("-", "_") for name in PROVIDERS} == files


def test_the_page_says_what_a_lookup_costs_and_whether_ports_are_told_as_the_code_does() -> None:
    for name, provider in PROVIDERS.items():
        row = rows()[name]
        assert f"{provider.price}" in row, name
        assert ("yes" in row[2]) == provider.tells_ports, name
        assert str(provider.batch) in row, name


def test_every_provider_is_read_in_a_mobile_a_landline_and_a_failing_case() -> None:
    for name in PROVIDERS.keys() - {"infobip", "hlr-lookups"}:  # these tell no line type
        answers = [one for case in CASES if case.provider.name == name for one in case.wanted.values()]
        kinds = {one.line_type if isinstance(one, Found) else "failed" for one in answers}
        assert {"mobile", "landline", "failed"} <= kinds, name


def test_the_settings_on_the_page_ask_and_read() -> None:
    """Takes the settings of `http` out of docs/lookups.md as a stranger would, and looks a number up with them."""
    blocks = re.findall(r"```toml\n(.*?)```", page(), re.DOTALL)
    options = next(tomllib.loads(block)["lookup"]["http"] for block in blocks if "[lookup.http]" in block)
    answer = re.search(r"```json\n(.*?)```", page(), re.DOTALL)
    assert answer
    call = PROVIDERS["http"].build([NUMBER], options)
    assert on_the_wire(call) == "https://numbers.example.com/v1/carrier/%2B15555551234?deep=1"
    found = read(PROVIDERS["http"], HttpAnswer(200, {}, answer[1].encode()), [NUMBER], options)[NUMBER]
    assert isinstance(found, Found)
    assert (found.carrier, found.ported, found.line_type) == ("T-Mobile USA, Inc.", True, "mobile")
    assert (found.mcc, found.mnc, found.ported_at) == ("310", "260", datetime(2026, 11, 18, tzinfo=UTC))
