"""What could not be read or proven is kept, and counts once when it can be: as if it had just come."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from asyncpg import CheckViolationError
from sqlalchemy import text

from app.gateways import GATEWAYS, _verify
from app.models.receipt import Callback, Link
from app.services import metrics, refused, unread
from app.services.connection import connect
from tests.conftest import Service, Start
from tests.locks import waiting
from tests.running import environment, sendable

BERLIN = "030 555012"
"""Possible where numbers are German, and nowhere in North America."""
WHO = "+4930555012"


def receipt(**said: Any) -> dict[str, Any]:
    return {"message_id": "m1", "number": BERLIN, "sender": "12345", "status": "undeliverable", "code": "629"} | said


async def post(service: Service, body: Any, path: str = "native", **more: Any) -> Any:
    return await service.client.post(f"/v1/receipts/{path}", json=body, **more)


async def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    engine = connect(url, pool=1)
    try:
        async with engine.connect() as db:
            return [tuple(row) for row in await db.execute(text(statement))]
    finally:
        await engine.dispose()


async def answered(*args: str, **settings: str) -> Any:
    said = await sendable(*args, "--json", **settings)
    assert (said.code, said.err) == (0, "")
    return json.loads(said.out)


# Replayed ----------------------------------------------------------------------------------------------------------


async def test_after_a_fix_a_replay_applies_what_could_not_be_read_once(start: Start) -> None:
    async with start() as service:
        assert (await post(service, [receipt(), receipt(message_id="m2", number="x")])).headers["sendable-unread"]
    async with start(region="DE") as service:
        again = await service.client.post("/v1/unread/replay", json={"all": True})
        assert again.json() == {"read": 1, "receipts": 1, "left": 1}
        status = (await service.client.get(f"/v1/numbers/{WHO}")).json()
        assert (status["state"], status["evidence"]["message_id"]) == ("not_sms_capable", "m1")
        again = await service.client.post("/v1/unread/replay", json={"all": True})
        assert again.json() == {"read": 0, "receipts": 0, "left": 1}
        assert await service.sql("SELECT message_id FROM receipts") == [("m1",)]
        assert await service.sql("SELECT sum(total) FROM hourly_counts WHERE outcome = 'sent'") == [(1,)]


async def test_a_replay_can_name_ids_or_a_gateway(start: Start) -> None:
    async with start() as service:
        for name in ("m1", "m2", "m3"):
            await post(service, receipt(message_id=name))
        ids = [id_ for (id_,) in await service.sql("SELECT id FROM unread ORDER BY id")]
    async with start(region="DE") as service:

        async def replay(**which: Any) -> Any:
            return (await service.client.post("/v1/unread/replay", json=which)).json()

        assert await replay(gateway="twilio") == {"read": 0, "receipts": 0, "left": 0}
        assert await replay(ids=ids[1:2]) == {"read": 1, "receipts": 1, "left": 0}
        assert await replay(gateway="native") == {"read": 2, "receipts": 2, "left": 0}
        assert (await service.client.post("/v1/unread/replay", json={})).status_code == 422


async def test_two_replays_at_once_apply_once(start: Start) -> None:
    async with start() as service:
        for n in range(300):
            await post(service, receipt(message_id=f"m{n}", occurred_at="2026-01-01T00:00:00Z"))
    async with start(region="DE") as service:
        calls = [service.client.post("/v1/unread/replay", json={"all": True}) for _ in range(4)]
        answers = [answer.json() for answer in await asyncio.gather(*calls)]
        assert sum(answer["read"] for answer in answers) == 300
        assert sum(answer["receipts"] for answer in answers) == 300
        assert await service.sql("SELECT count(*), count(DISTINCT message_id) FROM receipts") == [(300, 300)]
        assert await service.sql("SELECT count(*) FROM unread") == [(0,)]


async def test_a_replayed_receipt_without_a_time_does_not_end_a_later_opt_in(start: Start) -> None:
    async with start() as service:
        await post(service, receipt(message_id=None, code="603"))
    async with start(region="DE") as service:
        await service.sql("UPDATE unread SET first_at = now() - interval '2 hours' RETURNING 1")
        when = await service.sql("SELECT to_char(now() - interval '1 hour', 'YYYY-MM-DD\"T\"HH24:MI:SSOF:00')")
        given = {"consented_at": when[0][0], "source": "web form"}
        path = f"/v1/senders/12345/lists/spring/subscribers/{WHO}"
        assert (await service.client.put(path, json=given)).status_code == 200
        assert (await service.client.post("/v1/unread/replay", json={"all": True})).json()["receipts"] == 1
        status = (await service.client.get(f"/v1/numbers/{WHO}?sender=12345&list=spring")).json()
        assert status["lists"][0]["consent"] == "opted_in"


async def test_of_a_receipt_that_came_twice_before_it_could_be_read_the_first_arrival_counts(start: Start) -> None:
    async with start() as service:
        await post(service, receipt(code="603"))
        await post(service, receipt(code="603", carrier="o2"))
    async with start(region="DE") as service:
        await service.sql("UPDATE unread SET first_at = now() - CAST(12 / id AS int) * interval '1 hour'")
        given = {"consented_at": (datetime.now(UTC) - timedelta(hours=9)).isoformat(), "source": "web form"}
        path = f"/v1/senders/12345/lists/spring/subscribers/{WHO}"
        assert (await service.client.put(path, json=given)).status_code == 200
        done = (await service.client.post("/v1/unread/replay", json={"all": True})).json()
        assert done == {"read": 2, "receipts": 1, "left": 0}
        status = (await service.client.get(f"/v1/numbers/{WHO}?sender=12345&list=spring")).json()
        assert (status["lists"][0]["consent"], status["sender"]["blocked"]) == ("opted_in", False)


async def test_a_replay_counts_nothing_twice_however_late_it_is(start: Start) -> None:
    """The gateway had sent it again, and it could be read by then; repetitions are known for 8 days."""
    async with start() as service:
        await post(service, [receipt(), receipt(message_id="m2")])
    async with start(region="DE") as service:
        await post(service, receipt())
        await service.sql("DELETE FROM receipt_keys")
        await service.sql("UPDATE unread SET first_at = now() - interval '20 days'")
        done = (await service.client.post("/v1/unread/replay", json={"all": True})).json()
        assert done == {"read": 2, "receipts": 1, "left": 0}
        assert await service.sql("SELECT message_id FROM receipts ORDER BY 1") == [("m1",), ("m2",)]
        assert await service.sql("SELECT sum(total) FROM hourly_counts WHERE outcome = 'sent'") == [(2,)]


async def test_what_came_on_a_day_that_has_gone_since_is_read_all_the_same(start: Start) -> None:
    """Receipts are kept by the day of their arrival, for 90 days; what could not be read has no such end."""
    async with start() as service:
        await post(service, receipt())
    async with start(region="DE") as service:
        await service.sql("UPDATE unread SET first_at = now() - interval '200 days' RETURNING 1")
        done = (await service.client.post("/v1/unread/replay", json={"all": True})).json()
        assert done == {"read": 1, "receipts": 1, "left": 0}
        assert (await service.client.get(f"/v1/numbers/{WHO}")).json()["state"] == "not_sms_capable"


async def test_a_replayed_receipt_of_a_day_that_has_gone_does_not_end_a_later_opt_in_either(start: Start) -> None:
    """Nor is a time believed that lay ahead when it came."""
    ahead = (datetime.now(UTC) - timedelta(days=70)).isoformat()
    async with start() as service:
        for more in ({}, {"message_id": "m2", "occurred_at": ahead}, {"message_id": None}):
            await post(service, receipt(code="603", **more))
    async with start(region="DE") as service:
        await service.sql("UPDATE unread SET first_at = now() - interval '100 days' RETURNING 1")
        given = {"consented_at": (datetime.now(UTC) - timedelta(days=80)).isoformat(), "source": "web form"}
        path = f"/v1/senders/12345/lists/spring/subscribers/{WHO}"
        assert (await service.client.put(path, json=given)).status_code == 200
        assert (await service.client.post("/v1/unread/replay", json={"all": True})).json()["receipts"] == 3
        status = (await service.client.get(f"/v1/numbers/{WHO}?sender=12345&list=spring")).json()
        assert (status["lists"][0]["consent"], status["sender"]["blocked"]) == ("opted_in", False)


async def test_the_same_bytes_of_another_gateway_or_account_are_kept_too(start: Start) -> None:
    """Each has to be read again as its own; of one link a repetition is kept once."""
    async with start(gateways={"native": {"accounts": {"eu": {}}}}) as service:
        for path in ("native", "native/eu", "sinch") * 2:
            answer = await service.client.post(f"/v1/receipts/{path}", content=b"{")
            assert answer.headers["sendable-unread"] == "1"
        kept = await service.sql("SELECT gateway, account, times FROM unread ORDER BY 1, 2")
        assert kept == [("native", "", 2), ("native", "eu", 2), ("sinch", "", 2)]


async def test_of_a_callback_that_is_read_in_part_the_rest_stays(start: Start) -> None:
    async with start() as service:
        body = json.dumps([receipt(), receipt(message_id="m2", number="x")]).encode()
        await post(service, [receipt(status=None)])
        await service.sql("UPDATE unread SET body = :body RETURNING 1", body=body)
    async with start(region="DE") as service:
        done = (await service.client.post("/v1/unread/replay", json={"all": True})).json()
        assert done == {"read": 1, "receipts": 1, "left": 0}  # what is kept of it is not tried again at once
        [(kept,)] = await service.sql("SELECT body FROM unread")
        assert json.loads(kept)["message_id"] == "m2"


async def test_a_callback_that_cannot_be_told_apart_stays_whole_until_all_of_it_is_read(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GATEWAYS, "whole", replace(GATEWAYS["native"], name="whole", split=None))
    body = [receipt(number="+15555550100"), receipt(message_id="m2")]
    async with start() as service:
        await post(service, body, "whole")
        [(kept, many)] = await service.sql("SELECT body, (SELECT count(*) FROM receipts) FROM unread")
        assert (json.loads(kept), many) == (body, 1)
        done = (await service.client.post("/v1/unread/replay", json={"all": True})).json()
        assert done == {"read": 0, "receipts": 0, "left": 1}
        assert await service.sql("SELECT body, times FROM unread") == [(kept, 1)]
    async with start(region="DE") as service:
        done = (await service.client.post("/v1/unread/replay", json={"all": True})).json()
        assert done == {"read": 1, "receipts": 1, "left": 0}
        assert await service.sql("SELECT message_id FROM receipts ORDER BY 1") == [("m1",), ("m2",)]


async def test_a_callback_of_many_transactions_stays_until_the_last_of_them(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "GROUP_MOST", 2)
    async with start() as service:
        await post(service, [receipt()])
        lines = "\n".join(json.dumps(receipt(message_id=f"m{n}")) for n in range(5)).encode()
        await service.sql("UPDATE unread SET body = :lines RETURNING 1", lines=lines)
    async with start(region="DE") as service:
        await service.sql("ALTER TABLE receipts ADD CONSTRAINT none CHECK (message_id <> 'm4')")
        with pytest.raises(CheckViolationError):
            await service.client.post("/v1/unread/replay", json={"all": True})
        assert await service.sql("SELECT (SELECT count(*) FROM receipts), (SELECT count(*) FROM unread)") == [(4, 1)]
        await service.sql("ALTER TABLE receipts DROP CONSTRAINT none")
        done = (await service.client.post("/v1/unread/replay", json={"all": True})).json()
        assert done == {"read": 1, "receipts": 1, "left": 0}
        assert await service.sql("SELECT (SELECT count(*) FROM receipts), (SELECT count(*) FROM unread)") == [(5, 0)]


async def test_a_replay_that_is_killed_loses_nothing_and_repeats_nothing(start: Start, database_url: str) -> None:
    total = 5_000
    async with start() as service:
        lines = "\n".join(json.dumps(receipt(message_id=f"m{n}", number=f"030 5{n:05}")) for n in range(total))
        good = json.dumps(receipt(message_id="good", number="+15555550100"))  # else it would be kept as one
        await service.client.post("/v1/receipts/native", content=f"{lines}\n{good}")
        assert await service.sql("SELECT count(*) FROM unread") == [(total,)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "unread", "replay", "--all",
        env=environment(database_url=database_url, region="DE"),
    )  # fmt: skip

    async def left() -> int:
        return (await rows(database_url, "SELECT count(*) FROM unread"))[0][0]

    while await left() == total:
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    between = await left()
    assert 0 < between < total, "it was over before it was killed"
    done = await answered("unread", "replay", "--all", database_url=database_url, region="DE")
    assert done["read"] <= between
    assert await left() == 0
    counted = "SELECT count(*), count(DISTINCT message_id) FROM receipts WHERE message_id <> 'good'"
    assert await rows(database_url, counted) == [(total, total)]


async def test_what_is_dropped_is_gone(start: Start, database_url: str) -> None:
    async with start() as service:
        for name in ("m1", "m2"):
            await post(service, receipt(message_id=name))
        (id_, _) = [id_ for (id_,) in await service.sql("SELECT id FROM unread ORDER BY id")]
    assert await answered("unread", "drop", str(id_), database_url=database_url) == {"dropped": 1}
    assert await answered("unread", "drop", "--gateway", "native", database_url=database_url) == {"dropped": 1}
    assert await answered("unread", "drop", "--all", database_url=database_url) == {"dropped": 0}
    said = await sendable("unread", "drop", database_url=database_url)
    assert (said.code, said.err) == (2, "sendable: say which in one way: by ids, with --gateway, or with --all\n")


# Refused -----------------------------------------------------------------------------------------------------------

AMERICAN = receipt(number="+15555550100")


def links(**given: Any) -> dict[str, Any]:
    return {"auth": "on", "gateways": {name.replace("_", "-"): link for name, link in given.items()}, "first_key": KEY}


KEY = "a-first-key-of-at-least-24-characters"
ADMIN = {"Authorization": f"Bearer {KEY}"}


async def reverify(service: Service, **which: Any) -> Any:
    return (await service.client.post("/v1/unread/reverify", json=which, headers=ADMIN)).json()


TOMORROWS = "to/morrow s&+%41"
"""Much of it means something else where an address holds it as it is."""
PRESENTED: dict[str, dict[str, Any]] = {
    "in the URL": {"params": {"token": TOMORROWS}},
    "in a header": {"headers": {"X-Sendable-Token": TOMORROWS}},
    "as a Basic password": {"auth": ("anyone", TOMORROWS)},
}


@pytest.mark.parametrize("how", PRESENTED.values(), ids=PRESENTED)
async def test_a_wrong_secret_loses_nothing_and_none_is_stored(start: Start, how: dict[str, Any]) -> None:
    async with start(**links(native={"secrets": ["todays"]})) as service:
        assert (await post(service, AMERICAN, **how)).status_code == 403
        assert (await post(service, AMERICAN, params={"token": "forged"})).status_code == 403
        assert await service.sql("SELECT count(*) FROM receipts") == [(0,)]
    async with start(**links(native={"secrets": [TOMORROWS]})) as service:
        stored = str(await service.sql("SELECT headers, query, url, body FROM refused ORDER BY id"))
        assert "morrow" not in stored
        assert base64.b64encode(f"anyone:{TOMORROWS}".encode()).decode() not in stored
        assert await reverify(service) == {"proven": 1, "receipts": 1, "left": 1}
        assert await reverify(service) == {"proven": 0, "receipts": 0, "left": 1}
        assert await service.sql("SELECT message_id FROM receipts") == [("m1",)]


async def test_a_pair_of_user_and_password_is_proven_as_a_pair(start: Start) -> None:
    async with start(**links(native={"secrets": ["todays"]})) as service:
        assert (await post(service, AMERICAN, auth=("us", "secret"))).status_code == 403
        assert (await post(service, AMERICAN, auth=("them", "secret"))).status_code == 403
    async with start(**links(native={"secrets": ["us:secret"]})) as service:
        assert await reverify(service, gateway="native") == {"proven": 1, "receipts": 1, "left": 1}


BODY = ("AccountSid=AC00000000000000000000000000000001&ErrorCode=30005&From=%2B15005550006&MessageStatus=undelivered"
        "&MessageSid=SM00000000000000000000000000000042&To=%2B15005550123")  # fmt: skip
FORM = {"content-type": "application/x-www-form-urlencoded"}
CALLED = "/v1/receipts/twilio?tenant=7"


def signed_by_twilio(body: str) -> Callback:
    """As the vendor would post it to the URL that it was given."""
    given = Callback("POST", f"https://dlr.example.net{CALLED}", FORM, "tenant=7", body.encode())
    return GATEWAYS["twilio"].sign(given, "tok_example_1", Link("twilio"))


WRONG: dict[str, dict[str, Any]] = {
    "another secret": {"secrets": ["another"], "public_url": "https://dlr.example.net"},
    "no public_url": {"secrets": ["tok_example_1"]},
    "another public_url": {"secrets": ["tok_example_1"], "public_url": "https://dlr.example.com/prefix"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_signature_is_proven_again_once_the_settings_are_right(start: Start, wrong: dict[str, Any]) -> None:
    sent = signed_by_twilio(BODY)
    async with start(**links(twilio=wrong)) as service:
        answer = await service.client.post(CALLED, content=sent.body, headers=sent.headers)
        assert answer.status_code == 403
        assert (await service.client.post(CALLED, content=b"MessageSid=x", headers=sent.headers)).status_code == 403
    right = {"secrets": ["tok_example_1"], "public_url": "https://dlr.example.net"}
    async with start(**links(twilio=right)) as service:
        assert await reverify(service) == {"proven": 1, "receipts": 1, "left": 1}


def timely(callback: Callback, secret: str, link: Link) -> bool:
    signed = datetime.fromisoformat(callback.header("signed-at"))
    return abs(callback.at - signed) <= link.window and _verify.body_hmac(callback, secret, ("x-signature",))


def signing(secret: str, at: datetime, body: bytes) -> dict[str, str]:
    return {"signed-at": at.isoformat(), "x-signature": hmac.digest(secret.encode(), body, "sha256").hex()}


async def test_a_signed_time_is_held_against_the_arrival(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a gateway of this test, for none of those there are signs a time."""
    monkeypatch.setitem(GATEWAYS, "clock", replace(GATEWAYS["native"], name="clock", verify=timely))
    now = datetime.now(UTC)
    async with start(**links(clock={"secrets": ["old"]})) as service:
        for name, at in (("fresh", now), ("stale", now - timedelta(minutes=6))):
            body = json.dumps(AMERICAN | {"message_id": name}).encode()
            answer = await service.client.post("/v1/receipts/clock", content=body, headers=signing("new", at, body))
            assert answer.status_code == 403
    async with start(**links(clock={"secrets": ["new"]})) as service:
        await service.sql("""UPDATE refused SET arrived_at = arrived_at - interval '1 day', headers = headers ||
            jsonb_build_object('signed-at', (headers->>'signed-at')::timestamptz - interval '1 day') RETURNING 1""")
        assert await reverify(service) == {"proven": 1, "receipts": 1, "left": 1}
        assert await service.sql("SELECT message_id FROM receipts") == [("fresh",)]


async def test_only_the_newest_refused_requests_stay(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "KEPT", 10)
    async with start(**links(native={"secrets": ["s"]}, kannel={"secrets": ["s"]})) as service:
        await post(service, {}, "kannel")
        for n in range(30):
            await post(service, AMERICAN | {"message_id": f"m{n}"})
        await post(service, {}, "kannel")
    async with start() as service:
        kept = await service.sql("SELECT convert_from(body, 'UTF8') FROM refused WHERE gateway = 'native' ORDER BY id")
        assert [json.loads(body)["message_id"] for (body,) in kept] == [f"m{n}" for n in range(20, 30)]
        assert await service.sql("SELECT count(*) FROM refused WHERE gateway = 'kannel'") == [(2,)]


async def test_refused_requests_are_bounded_by_size_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "BYTES_KEPT", 100_000)
    async with start(**links(native={"secrets": ["s"]})) as service:
        for n in range(20):
            await service.client.post("/v1/receipts/native", content=b"%d" % n * 5_000)
        assert (await service.client.post("/v1/receipts/native", content=b"x" * 2_000_000)).status_code == 403
    async with start() as service:
        [(count, size, longest)] = await service.sql(
            "SELECT count(*), sum(octet_length(body)), max(octet_length(body)) FROM refused"
        )
        assert 5 < count < 20
        assert size <= 100_000
        assert longest <= 10_000


async def test_a_flood_of_forgeries_holds_up_no_receipt_while_they_cannot_be_written(start: Start) -> None:
    async with start(**links(native={"secrets": ["s"]})) as service:
        async with service.app.state.engine.begin() as db:
            await db.execute(text("LOCK TABLE refused IN ACCESS EXCLUSIVE MODE"))
            for n in range(3_000):
                assert (await service.client.post("/v1/receipts/native", content=b"%d" % n)).status_code == 403
            assert (await post(service, AMERICAN, params={"token": "s"})).status_code == 200
        queue = service.app.state.refusals._queues["native"]
        assert len(queue.waiting) <= refused.WAITING
        assert queue.waiting[-1][1].body == b"2999"


def test_what_waits_to_be_written_is_bounded_by_size_too_and_the_newest_stays() -> None:
    queue, link = refused.Queue(), Link("native")
    for n in range(20):
        queue.add(refused.Refused(link, Callback("POST", "", {}, "", bytes([n]) * refused.LONGEST)))
    assert queue.size == len(queue.waiting) * refused.LONGEST <= refused.BYTES_WAITING
    assert [one.callback.body[0] for one in queue.waiting] == [*range(20)][-len(queue.waiting) :]
    assert len(queue.waiting) > 1


async def test_what_cannot_be_written_yet_waits_in_its_order() -> None:
    refusals = refused.Refusals(connect("postgresql+asyncpg://nobody@127.0.0.1:1/none", pool=1))
    link = Link("native")
    for body in (b"1", b"2"):
        refusals.keep(link, Callback("POST", "http://h/v1/receipts/native", {}, "", body))
    with pytest.raises(OSError, match="Connect call failed"):
        await refusals.write()
    refusals.keep(link, Callback("POST", "http://h/v1/receipts/native", {}, "", b"3"))
    assert [callback.body for _, callback, _ in refusals._queues["native"].waiting] == [b"1", b"2", b"3"]


async def test_a_gateway_whose_first_refusal_comes_while_others_are_written_waits_for_the_next_time(
    service: Service,
) -> None:
    refusals = service.app.state.refusals
    callback = Callback("POST", "http://h/v1/receipts/native", {}, "", b"1")
    async with service.app.state.engine.begin() as db:
        await db.execute(text("LOCK TABLE refused IN ACCESS EXCLUSIVE MODE"))
        refusals.keep(Link("native"), callback)
        writing = asyncio.create_task(refusals.write())
        await waiting(service, 1, writing)
        refusals.keep(Link("twilio"), callback)
    await writing
    await refusals.write()
    assert await service.sql("SELECT gateway FROM refused ORDER BY id") == [("native",), ("twilio",)]


async def test_the_command_proves_them_again(start: Start, database_url: str, tmp_path: Path) -> None:
    async with start(**links(native={"secrets": ["todays"]})) as service:
        assert (await post(service, AMERICAN, params={"token": "tomorrows"})).status_code == 403
    config = tmp_path / "sendable.toml"
    config.write_text('[gateways.native]\nsecrets = ["tomorrows"]\n')
    given = {"database_url": database_url, "config": str(config)}
    found = json.loads((await sendable("doctor", "--json", **given)).out)
    assert ["1 requests to native proved nothing" in one["says"] for one in found if one["about"] == "refused"] == [
        True
    ]
    none = await answered("unread", "reverify", "--gateway", "twilio", **given)
    assert none == {"proven": 0, "receipts": 0, "left": 0}
    assert await answered("unread", "reverify", **given) == {"proven": 1, "receipts": 1, "left": 0}
    assert (await sendable("unread", "reverify", "--gateway", "nobody", **given)).code == 2


# Without our token -------------------------------------------------------------------------------------------------

TOLD = "id=7&token=sword.fish.77&%74oken=sword.fish.77"
"""A GET whose address proves it; of a token with dots, and of one whose name is escaped."""
REPEATED = {"X-Original-URL": f"/v1/receipts/kannel?{TOLD}", "Referer": f"https://dlr.example.com/?{TOLD}"}


@pytest.mark.parametrize("live", ["sword.fish.77", "another"])
async def test_a_token_in_the_address_of_a_get_is_kept_nowhere(start: Start, live: str) -> None:
    """Neither with what cannot be read or is refused, nor in a metric, though a proxy repeats the address."""
    async with start(**links(kannel={"secrets": [live]})) as service:
        answer = await service.client.get(f"/v1/receipts/kannel?{TOLD}", headers=REPEATED)
        assert answer.status_code == (200 if live != "another" else 403)
        await service.app.state.refusals.write()
        kept = await service.sql(
            "SELECT headers::text, query, body FROM unread UNION ALL "
            "SELECT headers::text, query || url, body FROM refused"
        )
        metrics = (await service.client.get("/metrics", headers=ADMIN)).text
        assert len(kept) == 1
        assert "fish" not in f"{kept} {metrics}"
        assert "sendable_" in metrics


PROVES = ("Authorization", "Proxy-Authorization", "Cookie", "X-Auth-Token", "X-Twilio-Signature", "X-Webhook-Secret",
          "X-Api-Key")  # fmt: skip


@pytest.mark.parametrize("name", PROVES)
async def test_nothing_that_would_prove_an_origin_is_kept_with_what_could_not_be_read(
    service: Service, name: str
) -> None:
    said = {"headers": {name: "swordfish"}, "params": {name.lower().replace("-", "_"): "swordfish", "id": "7"}}
    answer = await service.client.post("/v1/receipts/native", content=b"{", **said)
    assert answer.headers["sendable-unread"] == "1"
    [(headers, query)] = await service.sql("SELECT headers::text, query FROM unread")
    assert "swordfish" not in f"{headers} {query}"
    assert query == "id=7"


@pytest.mark.parametrize("header", [
    {"Authorization": "swordfish"}, {"Authorization": "Bearer swordfish"}, {"Proxy-Authorization": "Bearer swordfish"},
    {"Cookie": "session=swordfish"}, {"X-Auth-Token": "swordfish"}, {"X-Webhook-Secret": "swordfish"},
    {"X-Password": "swordfish"},
])  # fmt: skip
async def test_a_secret_that_a_refused_request_presents_is_kept_as_a_digest_or_not_at_all(
    start: Start, header: dict[str, str]
) -> None:
    async with start(**links(native={"secrets": ["todays"]})) as service:
        assert (await post(service, AMERICAN, headers=header)).status_code == 403
        await service.app.state.refusals.write()
        [(headers,)] = await service.sql("SELECT headers::text FROM refused")
        assert "swordfish" not in headers


# Described by the settings -----------------------------------------------------------------------------------------

ACME = {"reads": "query", "fields": {"message_id": "id", "number": "to", "sender": "from", "status": "state"},
        "token": {"param": "Pw"}}  # fmt: skip
TOML = """
[gateways.custom.acme]
secrets = ["swordfish"]
reads = "query"
fields = { message_id = "id", number = "to", sender = "from", status = "state", code = "err" }
token = { param = "Pw" }
"""


async def test_a_described_gateway_is_replayed_proven_again_and_named_like_any_other(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    url, to = "/v1/receipts/custom/acme?Pw=swordfish", "to=%2B15555550100&from=12345"
    before = {"custom": {"acme": ACME | {"secrets": ["todays"]}}}
    async with start(auth="on", first_key=KEY, gateways=before) as service:
        assert (await service.client.get(f"{url}&id=1&{to}&state=delivered")).status_code == 403
        sent = {"gateway": "custom/acme", "message_id": "1", "number": "+15555550100", "sender": "12345",
                "sent_at": "2026-11-21T18:42:00Z"}  # fmt: skip
        said = await service.client.post(
            "/v1/messages", json=[sent, sent | {"gateway": "custom/nobody"}], headers=ADMIN
        )
        assert (said.json()["registered"], len(said.json()["errors"])) == (1, 1)
    after = {"custom": {"acme": ACME | {"secrets": ["swordfish"]}}}
    async with start(auth="on", first_key=KEY, gateways=after) as service:
        assert "swordfish" not in str(await service.sql("SELECT headers, query, url, body FROM refused"))
        assert await reverify(service, gateway="custom/acme") == {"proven": 1, "receipts": 1, "left": 0}
        assert (await service.client.get(f"{url}&id=2&{to}&word=exploded")).headers["sendable-unread"] == "1"
        stored = await service.sql("SELECT gateway, message_id, status FROM receipts")
        assert stored == [("custom/acme", "1", "delivered")]
    config = tmp_path / "sendable.toml"
    config.write_text(TOML.replace('"state"', '"state | word"'))
    given = {"database_url": database_url, "config": str(config)}
    done = await answered("unread", "replay", "--gateway", "custom/acme", **given)
    assert done == {"read": 1, "receipts": 1, "left": 0}
    (word,) = await answered("codes", "unknown", "--gateway", "custom/acme", **given)
    assert (word["gateway"], word["kind"], word["word"]) == ("custom/acme", "status", "exploded")
    suggested = await sendable("codes", "suggest", **given)
    assert "the status 'exploded' belongs in [gateways.custom.acme.statuses]" in suggested.err
    asked = await sendable("reconcile", "--gateway", "custom/acme", **given)
    assert (asked.code, "custom/acme cannot be asked" in asked.err) == (2, True)
    for command in (("codes", "unknown"), ("unread", "replay"), ("unread", "reverify"), ("reconcile",)):
        none = await sendable(*command, "--gateway", "custom/nobody", **given)
        assert (none.code, "'custom/nobody' is no gateway" in none.err) == (2, True), command


# Copies ------------------------------------------------------------------------------------------------------------


async def test_a_copied_request_is_answered_as_success_and_changes_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = replace(GATEWAYS["native"], name="once", nonce=lambda callback: callback.header("x-nonce") or None)
    monkeypatch.setitem(GATEWAYS, "once", once)
    async with start(**links(once={"secrets": ["s"]})) as one, start(**links(once={"secrets": ["s"]})) as other:

        async def send(service: Service, nonce: str, **said: Any) -> httpx.Response:
            answer = await post(service, [AMERICAN | said, "broken"], "once",
                                params={"token": "s"}, headers={"x-nonce": nonce})  # fmt: skip
            assert answer.status_code == 200
            return answer

        await send(one, "n1")
        before = metrics.DUPLICATES._value.get()
        await asyncio.gather(*(send(service, "n1") for service in (one, other) for _ in range(5)))
        assert metrics.DUPLICATES._value.get() == before + 10
        assert await one.sql("SELECT times FROM unread") == [(1,)]
        await send(other, "n2")
        assert await one.sql("SELECT times FROM unread") == [(2,)]
        await send(other, "n1", message_id="m2")  # a vendor that uses a nonce twice loses nothing
        assert await one.sql("SELECT count(*) FROM receipts") == [(2,)]


async def test_a_callback_that_was_not_committed_is_no_original(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    once = replace(GATEWAYS["native"], name="once", nonce=lambda _: "n1")
    monkeypatch.setitem(GATEWAYS, "once", once)
    async with start(**links(once={"secrets": ["s"]})) as service:
        await service.sql("ALTER TABLE receipts ADD CONSTRAINT none CHECK (message_id <> 'm1')")
        assert (await post(service, AMERICAN, "once", params={"token": "s"})).status_code == 503
        await service.sql("ALTER TABLE receipts DROP CONSTRAINT none")
        assert (await post(service, AMERICAN, "once", params={"token": "s"})).status_code == 200
        assert await service.sql("SELECT count(*) FROM receipts") == [(1,)]
