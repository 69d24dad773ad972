"""Receipts that never came are asked for, and count as if they had been pushed: once."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from app.config import Settings, SettingsError
from app.gateways import GATEWAYS, answered
from app.main import create_app
from app.models.http import HttpAnswer
from app.models.receipt import Broken, Link, Missed, Status
from app.services.reconcile import FAILURES_MOST, Reconciled, reconcile
from app.wiring import inquirers_of
from tests.clock import set_clock
from tests.conftest import Service, Start
from tests.running import environment, sendable

NUMBER = "+15555550100"
DAY = timedelta(hours=24)
KEYS = {"account_sid": "AC01", "auth_token": "a/token"}

# The readers -------------------------------------------------------------------------------------------------------

MISSED = Missed("SM01", NUMBER, "12345", None)
TWILIO: dict[str, Any] = {
    "account_sid": "AC01", "api_version": "2010-04-01", "body": "the words",
    "date_sent": "Thu, 24 Aug 2023 05:01:45 +0000", "date_updated": "Thu, 24 Aug 2023 05:02:00 +0000",
    "direction": "outbound-api", "error_code": 30006, "error_message": None, "from": "+15555550199", "num_media": "0",
    "num_segments": "1", "price": None, "sid": "SM01", "status": "undelivered", "to": NUMBER,
}  # fmt: skip
RECORD: dict[str, Any] = {
    "account_id": "abcdef01", "message_id": "0A01", "direction": "outbound", "from": "12345", "to": "15555550100",
    "network": "310260", "status": "failed", "error_code": "9", "date_received": "2026-01-01T10:00:00+0000",
    "date_finalized": "2026-01-01T10:00:05+0000",
}  # fmt: skip


def said(gateway: Any, body: Any, *asked: Missed) -> list[Any]:
    given = HttpAnswer(200, {}, body if isinstance(body, bytes) else json.dumps(body).encode())
    return answered(gateway, given, asked, Link(gateway.name))


def test_twilio_is_asked_for_one_message_and_its_words_are_not_read() -> None:
    call = GATEWAYS["twilio"].inquiry.ask([replace(MISSED, message_id="SM/1")], KEYS)
    assert call.url == "https://api.twilio.com/2010-04-01/Accounts/AC01/Messages/SM%2F1.json"
    assert call.basic == ("AC01", "a/token")
    (one,) = said(GATEWAYS["twilio"], TWILIO, MISSED)
    assert (one.message_id, one.status, one.number, one.sender) == (
        "SM01", Status.UNDELIVERABLE, NUMBER, "+15555550199",
    )  # fmt: skip
    assert (one.code_space, one.code) == ("twilio", "30006")
    assert one.occurred_at == datetime(2023, 8, 24, 5, 2, tzinfo=UTC)
    assert one.sent_at == datetime(2023, 8, 24, 5, 1, 45, tzinfo=UTC)
    assert "words" not in repr(one)


def test_vonage_is_asked_for_many_and_answers_for_those_it_knows() -> None:
    asked = [replace(MISSED, message_id=name) for name in ("0A01", "0A02")]
    call = GATEWAYS["vonage-sms"].inquiry.ask(asked, {"api_key": "abcdef01", "api_secret": "s"})
    assert call.url == "https://api.nexmo.com/v2/reports/records"
    assert dict(call.params) == {"account_id": "abcdef01", "product": "SMS", "direction": "outbound", "id": "0A01,0A02",
                                 "include_message": "false"}  # fmt: skip
    (one,) = said(GATEWAYS["vonage-sms"], {"records": [RECORD], "ids_not_found": "0A02"}, *asked)
    assert (one.message_id, one.status, one.number, one.sender) == ("0A01", Status.UNDELIVERABLE, NUMBER, "12345")
    assert (one.code_space, one.code, one.mcc, one.mnc) == ("vonage_dlr", "9", "310", "260")
    assert one.occurred_at == datetime(2026, 1, 1, 10, 0, 5, tzinfo=UTC)
    (danish,) = said(GATEWAYS["vonage-sms"], {"records": [RECORD | {"from": "4512345678"}]}, *asked)
    assert danish.sender == "+4512345678"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"records": 1}', b'{"sid": "SM02", "status": "sent"}']
)
def test_an_answer_that_cannot_be_read_is_no_receipt(body: bytes) -> None:
    for gateway in (GATEWAYS["twilio"], GATEWAYS["vonage-sms"]):
        assert all(isinstance(one, Broken) for one in said(gateway, body, MISSED))


def test_what_is_said_of_another_message_is_left_out() -> None:
    assert said(GATEWAYS["vonage-sms"], {"records": [RECORD]}, MISSED) == []


# Against a server on loopback --------------------------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Vendor:
    """A vendor's API on loopback: a real HTTP server. `says` answers for a path and its query."""

    says: Callable[[str, dict[str, list[str]]], Answer]
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    authorized: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                target = urlsplit(head.split(" ", 2)[1])
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                self.authorized.add({k.lower(): v for k, v in fields.items()}["authorization"])
                path = unquote(target.path)
                self.asked[path] += 1
                status, headers, body = self.says(path, parse_qs(target.query))
                lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def vendor(says: Callable[[str, dict[str, list[str]]], Answer]) -> AsyncIterator[Vendor]:
    one = Vendor(says)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()


def twilio(path: str, _: dict[str, list[str]], **more: Any) -> Answer:
    sid = path.rpartition("/")[2].removesuffix(".json")
    return 200, {}, json.dumps(TWILIO | {"sid": sid, "date_updated": "Thu, 01 Jan 2026 05:02:00 +0000"} | more).encode()


async def sent(service: Service, *ids: str, hours: int = 48, gateway: str = "twilio") -> None:
    at = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    lines = [
        {"gateway": gateway, "message_id": id_, "number": NUMBER, "sender": "+15555550199", "sent_at": at}
        for id_ in ids
    ]
    assert (await service.client.post("/v1/messages", json=lines)).status_code == 200


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {"gateways": {"twilio": {"reconcile": KEYS | {"base_url": url, "per_second": 1000} | more}}}


async def no_wait(_: float) -> None:
    """Time does not pass here: what is waited for is asked elsewhere."""


async def run(service: Service, most: int = 1000, sleep: Callable[[float], Awaitable[None]] = no_wait) -> Reconciled:
    state = service.app.state
    ((_, inquirer),) = inquirers_of(state.settings).items()
    return await reconcile(state.engine, state.intake, inquirer, DAY, most, sleep=sleep)


async def test_what_is_missed_is_asked_for_and_applied_as_a_pushed_receipt_is(start: Start) -> None:
    async with vendor(twilio) as api, start(**settings(api.url)) as service:
        await sent(service, "SM01", "SM02")
        await sent(service, "SM03", hours=1)
        pushed = {"MessageSid": "SM02", "MessageStatus": "delivered", "To": NUMBER, "From": "+15555550199"}
        assert (await service.client.post("/v1/receipts/twilio", data=pushed)).status_code == 200
        assert await run(service) == Reconciled(asked=1, final=1)
        assert api.asked == {"/2010-04-01/Accounts/AC01/Messages/SM01.json": 1}
        assert api.authorized == {"Basic " + base64.b64encode(b"AC01:a/token").decode()}
        stored = "SELECT message_id, status, code, reason FROM receipts ORDER BY message_id"
        assert (await service.sql(stored))[0][:3] == ("SM01", "undeliverable", "30006")
        late = {"MessageSid": "SM01", "MessageStatus": "undelivered", "ErrorCode": "30006", "To": NUMBER}
        await service.client.post("/v1/receipts/twilio", data=late | {"From": "+15555550199"})
        assert await service.sql("SELECT count(*) FROM receipts") == [(2,)]
        assert await run(service) == Reconciled()


async def test_what_is_on_the_way_is_asked_for_again_after_hours_only(start: Start) -> None:
    async with vendor(lambda path, query: twilio(path, query, status="sent", error_code=None)) as api:
        async with start(**settings(api.url)) as service:
            await sent(service, "SM01")
            assert await run(service) == Reconciled(asked=1, on_the_way=1)
            assert await run(service) == Reconciled()
            await service.sql("UPDATE messages SET asked_at = asked_at - interval '7 hours' RETURNING 1")
            assert await run(service) == Reconciled(asked=1, on_the_way=1)


@pytest.mark.parametrize("apart", ["-3 days", "3 days"])
async def test_when_it_is_asked_for_again_goes_by_the_clock_of_the_database(
    start: Start, database_url: str, apart: str
) -> None:
    """A run on a machine that was ahead by days put it off by as many for everybody."""
    await set_clock(database_url, apart)
    since = "SELECT clock_timestamp() - asked_at FROM messages"
    claimed: list[timedelta] = []
    async with vendor(lambda path, query: twilio(path, query, status="sent", error_code=None)) as api:
        async with start(**settings(api.url)) as service:

            async def look(_: float) -> None:
                claimed.append((await service.sql(since))[0][0])

            await sent(service, "SM01")
            assert await run(service, sleep=look) == Reconciled(asked=1, on_the_way=1)
            [(asked,)] = await service.sql(since)
            assert [round(one / timedelta(minutes=1)) for one in (*claimed, asked)] == [355, 0]


async def test_a_message_that_the_gateway_does_not_know_is_counted(start: Start) -> None:
    async with vendor(lambda *_: (404, {}, b'{"code": 20404}')) as api, start(**settings(api.url)) as service:
        await sent(service, "SM01")
        assert await run(service) == Reconciled(asked=1, not_known=1)


async def test_a_passing_failure_is_tried_again_and_a_lasting_one_left_for_the_next_run(start: Start) -> None:
    turns = iter([500, 429, 200])

    def says(path: str, query: dict[str, list[str]]) -> Answer:
        status = next(turns, 200)
        return twilio(path, query) if status == 200 else (status, {"retry-after": "0"}, b"")

    async with vendor(says) as api, start(**settings(api.url)) as service:
        await sent(service, "SM01")
        assert await run(service) == Reconciled(asked=1, final=1)
        assert sum(api.asked.values()) == 3
    async with vendor(lambda *_: (503, {}, b"")) as api, start(**settings(api.url)) as service:
        await sent(service, *(f"SN{n:02}" for n in range(30)))
        done = await run(service)
        assert (done.asked, done.stopped) == (0, f"{FAILURES_MOST} requests in a row failed")
    async with vendor(twilio) as api, start(**settings(api.url)) as service:
        assert await run(service) == Reconciled(asked=30, final=30)


async def test_a_gateway_that_asks_for_an_hour_by_the_clock_is_left_for_the_next_run(start: Start) -> None:
    asks = {"date": "Sat, 21 Nov 2026 12:00:00 GMT", "retry-after": "Sat, 21 Nov 2026 13:00:00 GMT"}
    async with vendor(lambda *_: (429, asks, b"")) as api, start(**settings(api.url)) as service:
        await sent(service, "SM01")
        assert await run(service) == Reconciled(failed=1)
        assert sum(api.asked.values()) == 1


async def test_wrong_credentials_end_the_run_at_once(start: Start) -> None:
    async with vendor(lambda *_: (401, {}, b"")) as api, start(**settings(api.url)) as service:
        await sent(service, *(f"SM{n:02}" for n in range(30)))
        done = await run(service)
        assert done.stopped == "it answers 401: its credentials are not good for this"
        assert sum(api.asked.values()) <= 8
        assert await service.sql("SELECT count(*) FROM messages WHERE asked_at IS NOT NULL") == [(0,)]


async def test_two_runs_at_once_share_the_work(start: Start) -> None:
    async with vendor(twilio) as api, start(**settings(api.url)) as service:
        await sent(service, *(f"SM{n:03}" for n in range(100)))
        one, other = await asyncio.gather(run(service), run(service))
        assert one.final + other.final == 100
        assert set(api.asked.values()) == {1}


async def test_a_limit_is_kept_and_the_next_run_goes_on(start: Start) -> None:
    async with vendor(twilio) as api, start(**settings(api.url)) as service:
        await sent(service, *(f"SM{n:02}" for n in range(20)))
        assert (await run(service, most=12)).asked == 12
        assert (await run(service, most=12)).asked == 8
        assert set(api.asked.values()) == {1}


async def test_many_are_asked_for_in_one_request_where_the_gateway_takes_it(
    start: Start,
) -> None:
    def says(_: str, query: dict[str, list[str]]) -> Answer:
        ids = query["id"][0].split(",")
        return 200, {}, json.dumps({"records": [RECORD | {"message_id": id_} for id_ in ids[1:]]}).encode()

    async with vendor(says) as api:
        keys = {"api_key": "abcdef01", "api_secret": "s", "base_url": api.url}
        async with start(gateways={"vonage-sms": {"reconcile": keys}}) as service:
            await sent(service, *(f"0A{n:02}" for n in range(30)), gateway="vonage-sms")
            assert await run(service) == Reconciled(asked=30, final=28, not_known=2)
            assert api.asked == {"/v2/reports/records": 2}
            assert await service.sql("SELECT count(*) FROM receipts WHERE gateway = 'vonage-sms'") == [(28,)]


# The command -------------------------------------------------------------------------------------------------------


def config(folder: Path, url: str, per_second: int = 1000) -> str:
    file = folder / "sendable.toml"
    file.write_text(
        f'[gateways.twilio]\nsecrets = ["s"]\n[gateways.twilio.reconcile]\naccount_sid = "AC01"\n'
        f'auth_token = "t"\nbase_url = "{url}"\nper_second = {per_second}\n'
    )
    return str(file)


async def test_the_command_tells_what_it_would_do_and_does_it(
    service: Service, database_url: str, tmp_path: Path
) -> None:
    await sent(service, "SM01", "SM02")
    async with vendor(twilio) as api:
        given = {"database_url": database_url, "config": config(tmp_path, api.url)}
        would = await sendable("reconcile", "--dry-run", "--json", **given)
        assert json.loads(would.out) == [{"gateway": "twilio", "account": None, "due": 2}]
        assert not api.asked
        done = await sendable("reconcile", "--json", **given)
        assert (done.code, json.loads(done.out)[0]["final"]) == (0, 2)
    async with vendor(lambda *_: (403, {}, b"")) as api:
        await sent(service, "SM03")
        refused = await sendable("reconcile", database_url=database_url, config=config(tmp_path, api.url))
        assert (refused.code, "sendable: twilio was given up: it answers 403" in refused.err) == (1, True)
    assert (await sendable("reconcile", database_url=database_url)).code == 2


async def test_the_command_asks_vonage_for_what_it_has_not_pushed(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    """With the keys of the page, each account with its own; what Vonage pushes later of the same is known by then."""
    asked: list[dict[str, list[str]]] = []

    def says(_: str, query: dict[str, list[str]]) -> Answer:
        asked.append(query)
        return (
            200,
            {},
            json.dumps({"records": [RECORD | {"message_id": id_} for id_ in query["id"][0].split(",")]}).encode(),
        )

    async with vendor(says) as api, start() as service:
        await sent(service, "0A01", "0A02", gateway="vonage-sms")
        file = tmp_path / "sendable.toml"
        file.write_text(
            '[gateways.vonage-sms]\nsecrets = ["sha256:s"]\n[gateways.vonage-sms.reconcile]\napi_key = "abcdef01"\n'
            f'api_secret = "a/secret"\naccount_id = "fedcba10"\nbase_url = "{api.url}"\n'
        )
        given = {"database_url": database_url, "config": str(file)}
        done = await sendable("reconcile", "--gateway", "vonage-sms", "--json", **given)
        assert (done.code, done.err) == (0, "")
        assert {name: json.loads(done.out)[0][name] for name in ("gateway", "asked", "final")} == {
            "gateway": "vonage-sms", "asked": 2, "final": 2,
        }  # fmt: skip
        assert [(one["account_id"], one["id"]) for one in asked] == [(["fedcba10"], ["0A01,0A02"])]
        assert api.authorized == {"Basic " + base64.b64encode(b"abcdef01:a/secret").decode()}
        pushed = {"messageId": "0A01", "msisdn": "15555550100", "to": "12345", "status": "failed", "err-code": "9"}
        assert (await service.client.post("/v1/receipts/vonage-sms", data=pushed)).status_code == 200
        stored = await service.sql("SELECT message_id, status, code_space, code FROM receipts ORDER BY 1")
        assert stored == [(id_, "undeliverable", "vonage_dlr", "9") for id_ in ("0A01", "0A02")]


async def test_a_run_that_is_killed_goes_on_where_it_was(service: Service, database_url: str, tmp_path: Path) -> None:
    total = 60
    await sent(service, *(f"SM{n:02}" for n in range(total)))
    async with vendor(twilio) as api:
        file = config(tmp_path, api.url, per_second=20)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "reconcile",
            env=environment(database_url=database_url, config=file), stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        while sum(api.asked.values()) < 20:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        again = await sendable("reconcile", database_url=database_url, config=config(tmp_path, api.url))
        assert again.code == 0
        assert set(api.asked.values()) == {1}
        assert total - 8 <= len(api.asked) <= total
    await service.sql("UPDATE messages SET asked_at = asked_at - interval '5 minutes' RETURNING 1")
    async with vendor(twilio) as api:
        await sendable("reconcile", database_url=database_url, config=config(tmp_path, api.url))
        assert sum(api.asked.values()) <= 8, "what was under way when it was killed is asked for once more, no other"
    assert await service.sql("SELECT count(DISTINCT message_id) FROM receipts") == [(total,)]


# Settings ----------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"account_sid": "AC01"}, r"`gateways.twilio.reconcile.auth_token` is missing: twilio needs"),
    "an unknown key": (KEYS | {"colour": 1}, r"`gateways.twilio.reconcile.colour` is no setting of it; there are"),
    "no address": (KEYS | {"base_url": "h"}, r"`gateways.twilio.reconcile.base_url` must be an absolute URL"),
    "no pace": (KEYS | {"per_second": 0}, r"`gateways.twilio.reconcile.per_second` must be a number above 0"),
}


@pytest.mark.parametrize(("table", "says"), WRONG.values(), ids=WRONG)
def test_wrong_settings_stop_the_start(table: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        create_app(Settings.model_validate({"auth": "off", "gateways": {"twilio": {"reconcile": table}}}))


def test_a_gateway_that_cannot_be_asked_is_named_with_those_that_can() -> None:
    with pytest.raises(SettingsError, match=r"`gateways.kannel.reconcile`: .* cannot be asked .*; these can: .*twilio"):
        inquirers_of(Settings.model_validate({"gateways": {"kannel": {"reconcile": {"x": 1}}}}))


def test_an_account_is_asked_with_its_own_keys_or_those_of_the_gateway() -> None:
    table = {"reconcile": KEYS, "accounts": {"eu": {}, "us": {"reconcile": KEYS | {"account_sid": "AC02"}}}}
    found = inquirers_of(Settings.model_validate({"gateways": {"twilio": table}}))
    assert {account: one.options["account_sid"] for (_, account), one in found.items()} == {
        "": "AC01", "eu": "AC01", "us": "AC02",
    }  # fmt: skip
