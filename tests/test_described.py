"""Gateways that settings describe: they read what gateways of code read, and what is wrong is told by its key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import SettingsError, read_settings
from app.gateways import GATEWAYS, custom, read
from app.models.described import Fields
from app.models.receipt import Broken, Gateway, Receipt
from app.models.settings import CustomTable
from app.wiring import gateways_of, links_of
from tests.conftest import Service, Start
from tests.gateway_cases import RECORDED, Case, cases_of, described

PAGE = (Path(__file__).parents[1] / "docs" / "gateways" / "custom.md").read_text()
CUSTOM = RECORDED / "custom.toml"

# -- what gateways of code read ----------------------------------------------------------------------------------------

NEEDS_CODE = {
    "refused by the centre: its SMPP answer, no foreign id": "the code stands inside a text that is no receipt text",
    "refused with a code of the vendor's own": "the same",
    "a receipt with TLVs only: an expiry, the code in %D if the template asks for it": "two bytes, escaped twice",
    "DELIVRD in the text of a failure is undeliverable": "the status of the text is held against the bits",
    "what is no receipt is kept without our token: a template that nobody filled in": "any word is unknown",
}
"""What Kannel's own file knows and no description can say."""
CHANNELS = re.compile(r"infobip: (of an (MMS|RCS) message|a chat \()")
"""And Infobip's: where a channel is named, and it is not SMS."""


def told(gateway: Gateway, case: Case) -> tuple[list[Receipt], int]:
    found = read(gateway, case.callback, case.link)
    receipts = [one for one in found if isinstance(one, Receipt)]
    return wordless(receipts), sum(isinstance(one, Broken) for one in found)


def wordless(receipts: list[Receipt]) -> list[Receipt]:
    """A description joins the words of all places that tell the status, code the ones that count."""
    return [msgspec.structs.replace(one, word=None) for one in receipts]


def known(name: str) -> list[Case]:
    return [*cases_of(GATEWAYS[name], RECORDED / f"{name}.toml")]


@pytest.mark.parametrize("case", known("infobip"), ids=lambda case: case.name)
def test_infobip_by_settings_alone_reads_the_recorded_cases_of_infobip(case: Case) -> None:
    table = tomllib.loads(CUSTOM.read_text())["described"]["infobip"]
    if case.callback.body.lstrip()[:1] == b"<":
        table |= {"reads": "xml", "each": "results.result"}
    by_settings = custom.described("infobip", custom.Description.model_validate(table))
    # `only` names words, not what is missing: a message of a person is kept as unread here, without its words.
    found, wanted = told(by_settings, case), (wordless(case.receipts), len(case.broken) + case.inbound)
    if CHANNELS.match(case.name):
        assert found != wanted
    else:
        assert found == wanted


@pytest.mark.parametrize(
    "case", [case for case in known("kannel") if case.callback.method == "GET"], ids=lambda case: case.name
)
def test_kannel_by_settings_alone_reads_the_recorded_cases_of_kannel(case: Case) -> None:
    found = told(described("kannel", CUSTOM), case)
    if case.name.removeprefix("kannel: ") in NEEDS_CODE:
        assert found != (wordless(case.receipts), len(case.broken))
    else:
        assert found == (wordless(case.receipts), len(case.broken))


# -- as the service has it ---------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def acme() -> dict[str, object]:
    """`[gateways.custom.acme]` as the page describes it."""
    return tomllib.loads(blocks("toml")[0])["gateways"]["custom"]["acme"]


async def test_the_gateway_that_the_page_describes_works(start: Start) -> None:
    async with start(auth="on", first_key="k" * 30, gateways={"custom": {"acme": acme()}}) as service:
        url, (sample,) = "/v1/receipts/custom/acme", blocks("json")
        refused = await service.client.post(url, content=sample)
        answer = await service.client.post(f"{url}?token=SECRET", content=sample)
        assert (refused.status_code, answer.status_code, answer.text) == (403, 200, "OK")
        assert await stored(service) == [
            ("custom/acme", "", "7f3b", "+15555551234", "12345", "undeliverable", "openmarket", "3041", 1795286527)
        ]


STORED = """SELECT gateway, account, message_id, number, sender, status, code_space, code,
extract(epoch FROM occurred_at)::bigint FROM receipts"""


async def stored(service: Service) -> list[tuple[object, ...]]:
    return await service.sql(STORED)


async def test_a_described_receipt_without_a_number_finds_it_in_the_register(start: Start) -> None:
    table = {"reads": "query", "fields": {"message_id": "id", "status": "state"}}
    async with start(gateways={"custom": {"acme": table}}) as service:
        sent = {"gateway": "custom/acme", "message_id": "7", "number": "+15555551234", "sender": "12345",
                "sent_at": "2026-11-21T18:42:00Z"}  # fmt: skip
        assert (await service.client.post("/v1/messages", json=[sent])).status_code == 200
        assert (await service.client.get("/v1/receipts/custom/acme?id=7&state=delivered")).status_code == 200
        number = (await service.client.get("/v1/numbers/+15555551234")).json()
        assert (number["state"], number["last_receipt_at"] is None) == ("active", False)


async def test_a_secret_under_a_name_of_theirs_is_not_kept_with_what_could_not_be_read(start: Start) -> None:
    by_param = {"secrets": ["swordfish"], "reads": "query", "token": {"param": "Pw"},
                "fields": {"message_id": "id", "status": "state"}}  # fmt: skip
    by_header = by_param | {"token": {"header": "X-Pass"}}
    async with start(gateways={"custom": {"one": by_param, "two": by_header}}) as service:
        for name, query, headers in (("one", "&Pw=swordfish", {}), ("two", "", {"X-Pass": "swordfish"})):
            answer = await service.client.get(f"/v1/receipts/custom/{name}?id=7{query}", headers=headers)
            assert (answer.status_code, answer.headers["sendable-unread"]) == (200, "1")
        kept = await service.sql("SELECT query, headers::text FROM unread")
        assert len(kept) == 2
        assert "swordfish" not in repr(kept)
        assert (await service.client.get("/v1/receipts/custom/two?id=7", headers={"X-Pass": "x"})).status_code == 403


async def test_nothing_answers_where_nothing_is_described(start: Start) -> None:
    async with start() as service:
        for path in ("custom", "custom/acme"):
            answer = await service.client.get(f"/v1/receipts/{path}")
            assert answer.status_code == 404
            assert "there is no gateway of this name" in answer.json()["detail"]


# -- what is wrong with a description ----------------------------------------------------------------------------------

WHOLE = {"reads": "json", "fields": {"message_id": "id", "status": "state"}}
HERE = "`gateways.custom.acme"
WRONG = {
    "an unknown key": ({"read": "json"}, f"{HERE}.read` is no setting of Sendable: remove it, or see docs/gate"),
    "an unknown field": ({"fields": {"status": "s", "id": "i"}}, f"{HERE}.fields.id` is no setting of Sendable"),
    "no fields": ({"fields": None}, f"{HERE}.fields` must be a table"),
    "no status": ({"fields": {"message_id": "id"}}, f"{HERE}.fields.status` is missing: docs/gateways/custom.md says"),
    "no id": ({"fields": {"status": "s"}}, f"{HERE}.fields` must say where `message_id` or `number` lies"),
    "no way to read": ({"reads": "yaml"}, f"{HERE}.reads` must be 'json', 'lines', 'form', 'query' or 'xml'"),
    "no path": ({"fields": {"status": 7}}, f'{HERE}.fields.status` must be a path such as "data.state"'),
    "an empty step": ({"fields": {"status": "a..b"}}, f"{HERE}.fields.status` has an empty step: write a path"),
    "an empty code": ({"fields": {"status": "a", "code": ""}}, f"{HERE}.fields.code.0.at` must be a path"),
    "no status of ours": ({"statuses": {"DONE": "done"}}, f"{HERE}.statuses.DONE` must be 'accepted', 'sent'"),
    "a batch in a form": ({"reads": "form", "each": "a"}, f"{HERE}` `each` leads into JSON or XML: take it out"),
    "a batch nowhere": ({"each": "a | b"}, f"{HERE}.each` must be the path of a list in the body"),
    "only without words": ({"only": {"kind": "dlr"}}, f"{HERE}.only` must say which words to take at which path"),
    "an answer that fails": ({"answer": {"status": 404}}, f"{HERE}.answer.status` must be less than or equal"),
    "an answer that breaks off": (
        {"answer": {"status": 204, "body": "OK"}}, f"{HERE}.answer` has a `body`, which no answer 204 or 205 can hold",
    ),
    "an answer that no header holds": (
        {"answer": {"content_type": "text/plain\n"}}, f"{HERE}.answer` has no valid `content_type`: write one",
    ),
    "an answer of no letters": ({"answer": {"content_type": "text/\N{EURO SIGN}"}}, f"{HERE}.answer` has no valid "),
    "a token nowhere": ({"token": {}}, f"{HERE}.token` must name one of `header` and `param`"),
    "both proofs": ({"token": {"param": "a"}, "signature": {"header": "b"}}, f"{HERE}` `token` and `signature` ex"),
    "an unsigned body": ({"signature": {"header": "x", "over": "{url}"}}, f"{HERE}` `signature.over` must hold {{bod"),
    "an unsigned query": (
        {"reads": "query", "signature": {"header": "x"}}, f"{HERE}` `signature.over` must hold {{url}} or {{query}}",
    ),
    "an unsigned time": (
        {"signature": {"header": "x", "time": "x-time"}}, f"{HERE}.signature` has a `time` that is not signed: name it",
    ),
    "a hash that is broken": ({"signature": {"header": "x", "hash": "md5"}}, f"{HERE}.signature.hash` must be"),
    "a key that is none": (
        {"secrets": ["swordfish"], "signature": {"header": "x", "key": "hex"}}, f"{HERE}` has a secret that is not hex",
    ),
    "no receipt text": ({"fields": {"status": "smpp.stat", "number": "to"}}, f"{HERE}` a path begins with `smpp`: say"),
    "no format": ({"time_format": "%Y %"}, f"{HERE}.time_format` is no format of a time: write one such as"),
    "no year": ({"time_format": "%d/%m %H:%M"}, f"{HERE}.time_format` must tell year, day, hour and minute"),
    "nothing of a time": ({"time_format": "%"}, f"{HERE}.time_format` must tell year, day, hour and minute"),
    "no hour": ({"time_format": "%d/%m/%Y"}, f"{HERE}.time_format` must tell year, day, hour and minute"),
    "half a day": ({"time_format": "%d/%m/%Y %I:%M"}, f"{HERE}.time_format` must tell year, day, hour and minute"),
    "the name of a zone": ({"time_format": "%d/%m/%Y %H:%M %Z"}, f"{HERE}.time_format` has %Z, a name that tells no"),
    "a blank secret": ({"secrets": [" "]}, f"{HERE}.secrets` a secret must not be blank"),
    "accounts": ({"accounts": {"eu": {}}}, f"{HERE}.accounts` is no setting of Sendable"),
    "no space": ({"code_space": "acme"}, f"{HERE}.code_space` is no code space; there are"),
    "no space of a code": (
        {"fields": {"status": "s", "number": "n", "code": [{"at": "c", "space": "acme"}]}},
        f"{HERE}.fields.code.0.space` is no code space; there are",
    ),
}  # fmt: skip


def start_with(table: object) -> None:
    read_in = read_settings({}, gateways={"custom": table})
    links_of(read_in)
    gateways_of(read_in)


def test_the_description_from_which_the_wrong_ones_differ_is_right() -> None:
    start_with({"acme": WHOLE})


@pytest.mark.parametrize(("change", "line"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_description_stops_the_start_and_names_its_key(change: dict[str, object], line: str) -> None:
    with pytest.raises(SettingsError) as raised:
        start_with({"acme": WHOLE | change})
    assert str(raised.value).startswith(line)
    assert "swordfish" not in str(raised.value)


ANYTHING = st.sampled_from([
    None, 1, 1.5, True, "", "a", "a.b", "/x", "?", " | ", " + ", "smpp.stat", "json", "form", "hex", "%Y", [], ["a"],
    [1],
    {}, {"a": 1}, {"a": ["x"]}, [{"at": "a"}], [{"at": "a", "space": 7}],
    {"header": "X"}, {"status": 201, "body": ""},
])  # fmt: skip
KEYS, FIELDS = st.sampled_from([*CustomTable.model_fields]), st.sampled_from([*Fields.model_fields])


@settings(max_examples=300)
@given(st.dictionaries(KEYS, ANYTHING, max_size=3), st.dictionaries(FIELDS, ANYTHING, max_size=3))
def test_any_description_is_taken_or_refused_in_one_line(table: dict[str, object], fields: dict[str, object]) -> None:
    whole = {"reads": "json", "fields": {"message_id": "id", "status": "state"} | fields} | table
    assert re.fullmatch(r"|`gateways\.custom\.acme[^`\n]*`[^\n]+", told_of(whole))


def told_of(table: object) -> str:
    """The line that stops the start, or nothing."""
    try:
        gateways_of(read_settings({}, gateways={"custom": {"acme": table}}))
    except SettingsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("table", [{"secrets": ["x"]}, {"ACME": WHOLE}, {"a/b": WHOLE}, {"reads": "json"}])
def test_a_described_gateway_has_a_name_that_can_stand_in_an_address(table: object) -> None:
    with pytest.raises(SettingsError, match=r"write \[gateways\.custom\.NAME\], a name of a-z, 0-9 and -"):
        start_with(table)


def test_every_block_of_the_page_is_taken_as_settings() -> None:
    first, *others = blocks("toml")
    for block in (first, *(f"{first}\n{other}" for other in others if ".fields]" not in other)):
        read_settings({}, gateways=tomllib.loads(block)["gateways"])
    (codes,) = [tomllib.loads(other) for other in others if ".fields]" in other]
    fields = codes["gateways"]["custom"]["acme"]["fields"]
    start_with({"acme": {"reads": "json", "fields": fields}})
