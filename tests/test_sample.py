"""`sendable doctor --gateway` finds the proxy that breaks signatures, and says which and how to mend it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
from prometheus_client import REGISTRY

from app.config import Settings, SettingsError, read_settings
from app.gateways import GATEWAYS, custom, not_a_secret, prove
from app.main import create_app
from app.models.described import Description
from app.models.receipt import Callback, Link
from app.services.doctor.finding import Finding
from app.services.doctor.gateway import of_gateway
from app.services.sample import HEADER
from tests.conftest import Service, Start
from tests.running import sendable, serving


class Passed(NamedTuple):
    """A request on its way through the proxy."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def as_it_is(passed: Passed) -> Passed:
    return passed


PASSED_BACK = {"content-type", "location", "webhook-allowed-origin", "webhook-allowed-rate"}


@dataclass
class Proxy:
    """A real HTTP proxy on loopback, which may change what it passes on, or answer itself."""

    change: Callable[[Passed], Passed | httpx.Response] = as_it_is
    url: str = ""
    upstream: str = ""
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(trust_env=False))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.pop("content-length", "0")))
        del headers["host"]
        said = self.change(Passed(method, target, headers, body))
        if isinstance(said, Passed):
            said = await self.client.request(said.method, f"{self.upstream}{said.target}", headers=said.headers,
                                             content=said.body)  # fmt: skip
        kept = {name: value for name, value in said.headers.items() if name in PASSED_BACK}
        lines = [f"HTTP/1.1 {said.status_code} Said", f"content-length: {len(said.content)}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in kept.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + said.content)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def passing() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.client.aclose()


class Way(NamedTuple):
    """A service that runs, with a proxy before it, and its settings file."""

    proxy: Proxy
    config: Path
    own: str


CONFIG = """
[gateways.twilio]
secrets = ["an auth token"]
public_url = "{url}/dlr"
[gateways.twilio.accounts.eu]
secrets = ["older", "newer"]
[gateways.kannel]
secrets = ["a token/of ours"]
public_url = "{url}/dlr"
[gateways.infobip]
secrets = ["user:password"]
public_url = "{url}/dlr"
[gateways.telnyx]
secrets = ["ZXpjU08ifSfa/qMFdJOCCWnj56OJZAbcPsBMZ3TZzaw="]
public_url = "{url}/dlr"
[gateways.aws-eum]
secrets = ["arn:aws:sns:us-east-1:123456789012:sms-events"]
public_url = "{url}/dlr"
[gateways.azure-acs]
secrets = ["a token"]
public_url = "{url}/dlr"
[gateways.custom.acme]
secrets = ["a token"]
public_url = "{url}/dlr"
reads = "json"
fields = {{ message_id = "id", status = "state" }}
token = {{ param = "pw" }}
[gateways.openmarket]
"""


@pytest.fixture
async def way(database_url: str, tmp_path: Path) -> AsyncIterator[Way]:
    async with passing() as proxy:
        config = tmp_path / "sendable.toml"
        config.write_text(CONFIG.format(url=proxy.url))
        async with serving(tmp_path / "log", database_url=database_url, config=str(config)) as served:
            proxy.upstream = served.url
            yield Way(proxy, config, served.url)


def stripped(passed: Passed) -> Passed:
    """What a proxy does that keeps the service under a path of its own."""
    return passed._replace(target=passed.target.removeprefix("/dlr"))


def with_query(passed: Passed, query: str) -> Passed:
    return stripped(passed)._replace(target=stripped(passed).target.partition("?")[0] + query)


def query(passed: Passed) -> str:
    return passed.target.partition("?")[2]


def reencoded(passed: Passed) -> Passed:
    return stripped(passed)._replace(body=urlencode(parse_qsl(passed.body.decode()), safe="!").encode())


def filtered(passed: Passed) -> Passed:
    return stripped(passed)._replace(body=passed.body.replace(b"%21", b""))


def without(passed: Passed, *names: str) -> Passed:
    return stripped(passed)._replace(headers={k: v for k, v in passed.headers.items() if k not in names})


def answer(status: int, body: str = "<html>", **headers: str) -> Callable[[Passed], httpx.Response]:
    return lambda _: httpx.Response(status, text=body, headers=headers)


BREAKS: dict[str, tuple[str, Callable[[Passed], Any], str]] = {
    "changes the body": ("twilio", filtered, "the proxy changes the body ("),
    "sorts the query": ("twilio", lambda p: with_query(p, "?" + "&".join(sorted(query(p).split("&")))),
                        "the proxy changes the order of the query"),
    "drops the query": ("kannel", lambda p: with_query(p, ""), "the proxy drops the query"),
    "adds to the query": ("twilio", lambda p: with_query(p, f"?{query(p)}&utm=1"), "the proxy adds to the query"),
    "decodes the query": ("twilio", lambda p: with_query(p, "?" + query(p).replace("%7E", "~")),
                          "the proxy writes the query anew"),
    "drops the signature": ("twilio", lambda p: without(p, "x-twilio-signature"),
                            "the proxy drops the header x-twilio-signature"),
    "drops credentials": ("infobip", lambda p: without(p, "authorization"), "the proxy drops the header authorization"),
    "changes the path": ("twilio", lambda p: p._replace(target=stripped(p).target.replace("twilio", "%74wilio")),
                         "the service takes the address for another one"),
    "makes a GET of it": ("twilio", lambda p: stripped(p)._replace(method="GET", body=b""), "POST arrives as GET"),
    "redirects": ("twilio", answer(301, location="https://elsewhere.example/x?token=1"),
                  "/dlr/v1/receipts/twilio redirects to https://elsewhere.example/x: "),
    "asks for a login": ("twilio", answer(401), "something before Sendable answers 401"),
    "reaches nobody": ("twilio", answer(502), "the proxy answers 502: it does not reach Sendable"),
    "is a web site": ("twilio", answer(200), "something else than Sendable answers 200 there"),
    "keeps the prefix": ("twilio", as_it_is, "Sendable answers 404 there"),
}  # fmt: skip


async def found(way: Way, gateway: str, account: str = "") -> list[Finding]:
    link = read_settings({"SENDABLE_CONFIG": str(way.config)}).links()[gateway, account]
    return [finding async for finding in of_gateway(GATEWAYS[gateway], link, way.own, auth=True)]


async def test_every_way_to_break_a_signature_is_named_and_the_right_way_is_fine(way: Way) -> None:
    way.proxy.change = stripped
    for gateway in ("twilio", "kannel", "infobip"):
        *_, last = await found(way, gateway)
        assert (last.level, last.says.endswith("as it was sent, and proves its origin")) == ("ok", True), last
    for name, (gateway, change, says) in BREAKS.items():
        way.proxy.change = change
        *_, last = await found(way, gateway)
        assert (last.level, says in last.says, bool(last.mend)) == ("wrong", True, True), (name, last)
        assert "token" not in last.says + (last.mend or ""), name


@pytest.mark.parametrize("gateway", ["kannel", "twilio"])
async def test_what_the_signature_does_not_cover_is_a_note(way: Way, gateway: str) -> None:
    """Twilio signs what the form says, in whatever escapes it is written."""
    way.proxy.change = reencoded
    *_, last = await found(way, gateway)
    assert (last.level, last.says.startswith("the proxy changes the body")) == ("note", True)


async def test_each_live_secret_is_tried(way: Way) -> None:
    way.proxy.change = stripped
    way.config.write_text(way.config.read_text().replace('"older", "newer"', '"older", "newest"'))
    older, newest = (await found(way, "twilio", "eu"))[-2:]
    assert (older.level, older.about) == ("ok", "gateways.twilio.accounts.eu, secret 1 of 2")
    assert (newest.level, newest.says) == (
        "wrong", "the sample arrived as it was sent, and does not prove its origin there",
    )  # fmt: skip
    assert newest.mend.startswith("restart the service")


def answering_for_browsers(passed: Passed) -> Passed | httpx.Response:
    return httpx.Response(204) if passed.method == "OPTIONS" else stripped(passed)


async def test_where_a_vendor_asks_by_options_first_a_proxy_that_answers_it_is_found(way: Way) -> None:
    way.proxy.change = stripped
    *_, sent, asked = await found(way, "azure-acs")
    assert (sent.level, sent.says.endswith("proves its origin")) == ("ok", True)
    assert (asked.level, asked.says) == (
        "ok", f"OPTIONS at {way.proxy.url}/dlr/v1/receipts/azure-acs is answered with our consent",
    )  # fmt: skip
    for change, why in (
        (answering_for_browsers, "204"),
        (lambda p: answer(405)(p) if p.method == "OPTIONS" else stripped(p), "405"),
        (lambda p: with_query(p, "") if p.method == "OPTIONS" else stripped(p), "403"),
        (lambda p: without(p, "webhook-request-origin"), "200"),
    ):
        way.proxy.change = change
        *_, sent, asked = await found(way, "azure-acs")
        assert (sent.level, asked.level) == ("ok", "note"), why
        assert asked.says.endswith(f"is answered {why} without our consent")
        assert "OPTIONS" in asked.mend


async def test_a_sample_leaves_nothing_behind(way: Way, service: Service) -> None:
    way.proxy.change = reencoded
    await found(way, "twilio")
    way.proxy.change = stripped
    await found(way, "twilio")
    kept = """SELECT (SELECT count(*) FROM receipts), (SELECT count(*) FROM unread), (SELECT count(*) FROM refused),
        (SELECT count(*) FROM receipt_keys)"""
    assert await service.sql(kept) == [(0, 0, 0, 0)]


async def test_the_command_ends_with_1_when_something_must_be_mended(way: Way, database_url: str) -> None:
    settings = {"database_url": database_url, "config": str(way.config)}
    way.proxy.change = stripped
    well = await sendable("doctor", "--gateway", "twilio", **settings)
    assert (well.code, "proves its origin" in well.out) == (0, True)
    way.proxy.change = answer(502)
    ill = await sendable("doctor", "--gateway", "twilio", "--json", **settings)
    assert (ill.code, json.loads(ill.out)[-1]["level"]) == (1, "wrong")
    none = await sendable("doctor", "--gateway", "openmarket", **settings)
    assert (none.code, "has no secret, so it is answered 404" in none.out) == (1, True)
    assert (await sendable("doctor", "--gateway", "nobody", **settings)).code == 2
    assert (await sendable("doctor", "--gateway", "twilio", "--account", "us", **settings)).code == 2


@pytest.mark.parametrize(("host", "asked"), [
    ("::1", "[::1]"), ("[::1]", "[::1]"), ("::", "[::1]"), ("[::]", "[::1]"),
    ("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"),  # noqa: S104 - nothing is bound
])  # fmt: skip
async def test_the_service_is_asked_at_the_address_where_it_listens(tmp_path: Path, host: str, asked: str) -> None:
    (tmp_path / "s.toml").write_text('[gateways.native]\nsecrets = ["a-token-of-ours"]\n')
    said = await sendable("doctor", "--gateway", "native", config=str(tmp_path / "s.toml"), host=host, port="1")
    assert f"nothing answers at http://{asked}:1/v1/receipts/native (ConnectError)" in said.out


async def test_a_signature_over_the_address_needs_a_public_url() -> None:
    findings = [one async for one in of_gateway(GATEWAYS["twilio"], Link("twilio", secrets=("s",)), "http://127.0.0.1:1",
                                                auth=True)]  # fmt: skip
    says = [finding.says for finding in findings if finding.level == "wrong"]
    assert says[0] == "its signature covers the address, and `public_url` is not set"
    assert says[1].startswith("nothing answers at http://127.0.0.1:1/v1/receipts/twilio")
    kannel = [one async for one in of_gateway(GATEWAYS["kannel"], Link("kannel", secrets=("s",)), "http://127.0.0.1:1",
                                              auth=True)]  # fmt: skip
    assert not any("covers the address" in finding.says for finding in kannel)


@pytest.mark.parametrize(("gateway", "given", "told"), [
    ("kannel", {}, GATEWAYS["kannel"].hint),
    ("kannel", {"code_space": "openmarket"}, None),
    ("clickatell", {"code_space": "clickatell_status"}, None),
    ("jasmin", {"code_space": "openmarket"}, "receipts carry no number: post what you send to /v1/messages"),
    ("bird", {"public_url": "http://127.0.0.1:1"}, GATEWAYS["bird"].hint.partition("; ")[0]),
    ("twilio", {"public_url": "http://127.0.0.1:1"}, None),
    ("custom/acme", {"code_space": "openmarket"}, None),
])  # fmt: skip
async def test_the_doctor_asks_for_no_setting_that_is_there(
    gateway: str, given: dict[str, str], told: str | None
) -> None:
    fields = {"status": "s", "number": "n", "code": "c"}
    acme = custom.described("acme", Description.model_validate({"reads": "json", "fields": fields}))
    one = (GATEWAYS | {acme.name: acme})[gateway]
    link = replace(Link(gateway, secrets=("s",)), **given)
    findings = [found async for found in of_gateway(one, link, "http://127.0.0.1:1", auth=True)]
    assert [found.mend for found in findings if found.says == "for its console"] == ([told] if told else [])


async def test_where_the_vendor_alone_has_the_key_the_doctor_says_so_and_tries_the_way_all_the_same(way: Way) -> None:
    for gateway in ("telnyx", "aws-eum"):
        way.proxy.change = stripped
        *_, note, last = await found(way, gateway)
        assert (note.level, "only the vendor has the key that signs" in note.says) == ("note", True)
        assert (last.level, last.says.endswith("as it was sent; it proves nothing there")) == ("ok", True), last
        way.proxy.change = filtered
        *_, last = await found(way, gateway)
        assert (last.level, "which breaks a signature" in last.says) == ("wrong", True), last


async def test_the_answer_to_a_sample_tells_a_stranger_nothing(start: Start) -> None:
    link = {"secrets": ["the secret"], "public_url": "https://dlr.example.com"}
    forged = _forged()
    async with start(auth="on", gateways={"twilio": link}) as service:
        said = await service.client.post("/v1/receipts/twilio?x=1", content=b"y", headers={HEADER: "id cookie,x-own"})
    assert said.json()["proven"] is False
    assert said.json()["headers"] == {}
    assert "example" not in said.text
    assert _forged() == forged + 1  # whoever tries secrets out in this way is seen


def _forged() -> float:
    return REGISTRY.get_sample_value("sendable_forged_total", {"gateway": "twilio"}) or 0.0


FIELDS = {"message_id": "id", "status": "state"}
DESCRIBED = {
    "by our token": {},
    "by a parameter": {"token": {"param": "pass word"}},
    "by a header": {"token": {"header": "X-Pass"}},
    "by an HMAC": {"signature": {"header": "X-Signed", "prefix": "v1=", "hash": "sha512"}},
    "by an HMAC with a time": {"signature": {"header": "X-Signed", "time": "X-At", "over": "{x-at}.{url}.{body}"}},
}
SIGNERS = [gateway for gateway in GATEWAYS.values() if gateway.sign and gateway.name != "telnyx"] + [
    custom.described(name, custom.Description.model_validate({"reads": "form", "fields": FIELDS} | how))
    for name, how in DESCRIBED.items()
]
A_MORNING = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
SECRETS = {
    "telesign": ("a2V5IG9mIHRlc3Rz", "customer-1:a2V5IG9mIHRlc3Rz"),  # an API key is base64
    "bird": ("a secret/&=é", "whsec_a2V5IG9mIHRlc3Rz"),
    "plivo": ("a secret/&=é", "v3:secret"),
    "vonage-sms": ("a secret/&=é", "md5:s", "sha1:s", "sha256:s", "sha512:s", "md5hash:s"),
}
ANOTHER = {"telesign": "YW5vdGhlcg=="}


def test_every_gateway_can_be_signed_but_where_the_vendor_alone_has_the_key() -> None:
    assert GATEWAYS.keys() - {gateway.name for gateway in SIGNERS} == {"telnyx", "custom"}
    assert GATEWAYS["aws-eum"].sign(Callback("POST", "", {}, "", b"{}"), "arn:aws:sns:us-east-1:1:t", Link("x")) is None


@pytest.mark.parametrize(
    ("gateway", "secret"),
    [(one, secret) for one in SIGNERS for secret in SECRETS.get(one.name, ("a secret/&=é", "keyid:secret"))],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_what_a_gateway_signs_it_proves_with_this_secret_alone(gateway: Any, secret: str) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    url = f"https://dlr.example.com/v1/receipts/{gateway.name}"
    for query_ in ("", "a=1&b=2"):
        plain = Callback("POST", f"{url}?{query_}" if query_ else url, form, query_, b"x=1&y=2", A_MORNING)
        link = Link(gateway.name, secrets=(secret,))
        signed = gateway.sign(plain, secret, link)
        assert not_a_secret(gateway, link) is None
        assert prove(gateway, signed, link)
        assert not prove(gateway, plain, link)
        assert not prove(gateway, signed, replace(link, secrets=(ANOTHER.get(gateway.name, "another"),)))
        assert not prove(gateway, gateway.sign(plain, ANOTHER.get(gateway.name, "another"), link), link)


@pytest.mark.parametrize(
    ("gateway", "secret"),
    [
        ("telnyx", "KEY0123456789ABCDEF_anApiKey"),
        ("telesign", "no base64"),
        ("telesign", "customer-1:no base64"),
        ("bird", "whsec_no base64"),
    ],
)
@pytest.mark.parametrize("auth", ["on", "off"])
def test_a_secret_that_cannot_be_one_of_the_vendor_stops_the_start(gateway: str, secret: str, auth: str) -> None:
    good = {"telnyx": "ZXpjU08ifSfa/qMFdJOCCWnj56OJZAbcPsBMZ3TZzaw="}.get(gateway) or SECRETS[gateway][-1]
    tables = {"secrets": [good], "accounts": {"eu": {"secrets": [good, secret]}}}
    with pytest.raises(SettingsError) as stopped:
        create_app(Settings.model_validate({"auth": auth, "gateways": {gateway: tables}}))
    line = str(stopped.value)
    about = f"`gateways.{gateway}.accounts.eu.secrets.1` is not written as the secrets of {gateway} are: "
    assert line == about + GATEWAYS[gateway].hint
    assert secret not in line
