"""Every lookup provider against its recorded requests and answers, and against its page.

This is the one driver for all of them; no provider has test code of its own. The cases are data (`lookup_cases.py`).
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app import lookups
from app.lookups import PROVIDERS, read
from app.models.http import Call, HttpAnswer
from app.models.lookup import Failed, Found, Provider
from tests.lookup_cases import (
    CASES,
    GOOD,
    NUMBER,
    RECORDED,
    Case,
    each_build,
    each_case,
    each_that_sends,
    rsa_key,
    told,
)

REPOSITORY = Path(__file__).parent.parent


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
