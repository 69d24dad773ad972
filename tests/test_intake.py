"""Taking receipts in: once, whole, together, and never at a neighbour's cost."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from structlog.testing import capture_logs

from app.routers import receipts
from app.routers.body import MIB, SMALL
from app.services import intake
from app.services.connection import ACQUIRE_WITHIN, POOL_SIZE
from tests import turns
from tests.conftest import Service, Start
from tests.locks import waiting
from tests.number_steps import WHO, status


def receipt(**said: Any) -> dict[str, Any]:
    return {"message_id": "m1", "number": WHO, "sender": "12345", "status": "undeliverable", "code": "560"} | said


async def post(service: Service, body: Any, query: dict[str, str] | None = None) -> Any:
    return await service.client.post("/v1/receipts/native", json=body, params=query)


async def opt_in(service: Service, name: str = "spring", at: datetime | None = None) -> Any:
    at = at or datetime.now(UTC) - timedelta(days=1)
    call = {"consented_at": at.isoformat(), "source": "web form"}
    return await service.client.put(f"/v1/senders/12345/lists/{name}/subscribers/{WHO}", json=call)


async def test_the_next_question_sees_a_receipt_that_was_answered(service: Service) -> None:
    assert (await status(service))["state"] == "unseen"
    assert (await post(service, receipt())).status_code == 200
    told = await status(service, sender="12345")
    assert (told["state"], told["sendable"], told["sender"]["blocked"]) == ("active", True, True)
    assert told["decision"] == {"sendable": False, "axis": "sender", "reason": "carrier_blocked_subscriber"}


async def test_the_same_receipt_again_changes_nothing_and_counts_once(service: Service) -> None:
    first, again = receipt(), receipt(occurred_at=datetime.now(UTC).isoformat())
    await asyncio.gather(*(post(service, [first, again, first]) for _ in range(5)))
    await post(service, again)
    assert await service.sql("SELECT count(*) FROM receipts") == [(1,)]
    assert await service.sql("SELECT sum(total) FROM hourly_counts WHERE outcome = 'sent'") == [(1,)]
    assert await service.sql("SELECT count(*) FROM changes WHERE kind = 'sender.blocked'") == [(1,)]


async def test_a_receipt_is_known_for_a_week_and_one_without_an_id_for_a_day(service: Service) -> None:
    nameless = receipt(message_id=None, occurred_at="2026-11-20T10:00:00Z")
    await post(service, [receipt(), nameless])
    await service.sql("UPDATE receipt_keys SET arrived_at = arrived_at - interval '23 hours'")
    await post(service, [receipt(), nameless])
    assert await service.sql("SELECT count(*) FROM receipts") == [(2,)]
    await service.sql("UPDATE receipt_keys SET arrived_at = arrived_at - interval '6 days'")
    await post(service, [receipt(), nameless])
    assert await service.sql("SELECT count(*), count(message_id) FROM receipts") == [(3, 1)]


async def test_what_recognises_a_receipt_is_the_same_in_every_version(service: Service) -> None:
    await post(service, receipt())
    known = b"\x1f".join((b"native", b"", b"m1", WHO.encode(), b"None", b"undeliverable", b"560"))
    [(key,)] = await service.sql("SELECT key FROM receipt_keys")
    assert key.bytes == hashlib.blake2b(known, digest_size=16).digest()


async def test_another_status_code_segment_or_number_of_a_message_is_another_receipt(service: Service) -> None:
    others = [receipt(status="sent"), receipt(code="561"), receipt(segment=2), receipt(number="+14155550001")]
    await post(service, [receipt(), *others])
    assert await service.sql("SELECT count(*) FROM receipts") == [(5,)]


async def test_good_elements_are_taken_and_broken_ones_kept(service: Service) -> None:
    answer = await post(service, [receipt(), {"status": "delivered"}, "nonsense", receipt(message_id="m2")])
    assert (answer.status_code, answer.headers["sendable-unread"]) == (200, "1")
    await post(service, [{"status": "delivered"}])
    assert await service.sql("SELECT count(*) FROM receipts") == [(2,)]
    assert sorted(times for (times,) in await service.sql("SELECT times FROM unread")) == [1, 2]


async def test_what_came_unread_as_often_as_can_be_counted_is_still_answered(service: Service) -> None:
    await post(service, [receipt(), "nonsense"])
    await service.sql("UPDATE unread SET times = 2147483647")
    answer = await post(service, [receipt(message_id="m2"), "nonsense"])
    assert (answer.status_code, answer.headers["sendable-unread"]) == (200, "1")
    assert await service.sql("SELECT count(*) FROM receipts") == [(2,)]
    assert await service.sql("SELECT times FROM unread") == [(2147483647,)]


async def test_each_number_of_a_group_is_stored_with_what_is_known_of_itself(service: Service) -> None:
    states = {"3041": "deactivated", "629": "not_sms_capable", "560": "active"}
    told = {f"+1415555000{place}": code for place, code in enumerate([*states] * 3)}
    await post(service, [receipt(number=number, code=code) for number, code in reversed(told.items())])
    stored = await service.sql("SELECT number, facts ->> 'number', state FROM numbers ORDER BY number")
    assert stored == [(number, number, states[code]) for number, code in told.items()]


async def test_ten_thousand_receipts_in_one_array_are_one_answer(service: Service) -> None:
    body = [
        receipt(message_id=f"m{place}", number=f"+1415555{place:04}", status="delivered") for place in range(10_000)
    ]
    assert (await post(service, body)).status_code == 200
    assert await service.sql("SELECT count(*) FROM numbers WHERE state = 'active'") == [(10_000,)]


@pytest.mark.parametrize("said", ["2026-11-21T10:00:00", "1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "soon"])
async def test_a_time_that_cannot_be_believed_is_the_arrival(service: Service, said: str) -> None:
    before = datetime.now(UTC)
    await post(service, receipt(occurred_at=said, code="629"))
    at = datetime.fromisoformat((await status(service))["evidence"]["occurred_at"])
    assert before <= at <= datetime.now(UTC)


async def test_an_unknown_status_is_kept_without_effect_and_an_unknown_code_is_alarmed(service: Service) -> None:
    await opt_in(service)
    await post(service, [receipt(status="teleported"), receipt(message_id="m2", code="31337x")])
    assert (await status(service, sender="12345"))["decision"]["sendable"]
    assert await service.sql("SELECT status, reason FROM receipts ORDER BY message_id") == [
        ("unknown", None), ("undeliverable", "unknown"),
    ]  # fmt: skip
    assert await service.sql("SELECT kind, key FROM alarms") == [("unknown_code", "native/openmarket/31337x")]


async def test_a_code_with_leading_zeros_raises_the_alarm_of_the_one_in_the_table(service: Service) -> None:
    await post(service, [receipt(code="331"), receipt(message_id="m2", code="0331")])
    assert await service.sql("SELECT kind, key, count FROM alarms") == [("account_error", "native/openmarket/331", 2)]


async def test_a_gzipped_body_is_read_and_a_bomb_is_refused(service: Service) -> None:
    async def send(body: bytes) -> Any:
        return await service.client.post("/v1/receipts/native", content=body, headers={"content-encoding": "gzip"})

    assert (await send(gzip.compress(json.dumps(receipt()).encode()))).status_code == 200
    bomb = await send(gzip.compress(b" " * 64 * 1024 * 1024))
    assert (bomb.status_code, bomb.headers["content-type"]) == (413, "application/problem+json")
    broken = await send(b"\x1f\x8bnot really")
    assert (broken.status_code, broken.headers["sendable-unread"]) == (200, "1")
    assert await service.sql("SELECT body FROM unread") == [(b"\x1f\x8bnot really",)]


@pytest.mark.parametrize("named", ["UTF-8", "utf8", "identity", ""])
async def test_a_charset_where_a_coding_should_stand_packs_nothing(service: Service, named: str) -> None:
    """As some senders of callbacks write it, who will not mend it."""
    answer = await service.client.post("/v1/receipts/native", json=receipt(), headers={"content-encoding": named})
    assert (answer.status_code, "sendable-unread" in answer.headers) == (200, False)
    assert await service.sql("SELECT message_id FROM receipts") == [("m1",)]


async def test_gzip_in_several_members_is_read_to_its_end(service: Service) -> None:
    """As `cat a.gz b.gz` makes it (RFC 1952, 2.2)."""
    lines = [gzip.compress(json.dumps(receipt(message_id=f"m{n}")).encode() + b"\n") for n in range(3)]

    async def send(body: bytes) -> Any:
        return await service.client.post("/v1/receipts/native", content=body, headers={"content-encoding": "gzip"})

    assert "sendable-unread" not in (await send(b"".join(lines))).headers
    assert await service.sql("SELECT message_id FROM receipts ORDER BY 1") == [("m0",), ("m1",), ("m2",)]
    for broken in (lines[0] + b"and more", lines[0] + lines[1][:-4], gzip.compress(b"") * 9_000):
        assert (await send(broken)).headers["sendable-unread"] == "1"
    half = json.dumps(receipt()).encode().ljust(5 * 1024 * 1024)
    assert (await send(gzip.compress(half) * 2)).status_code == 413


async def test_receipts_may_come_to_8_mib_and_not_to_a_byte_more(service: Service) -> None:
    body, most = json.dumps(receipt()).encode(), 8 * 1024 * 1024
    for size, expected in ((most, 200), (most + 1, 413)):
        for content, headers in (
            (body.ljust(size), {}),
            (gzip.compress(body.ljust(size)), {"content-encoding": "gzip"}),
        ):
            answer = await service.client.post("/v1/receipts/native", content=content, headers=headers)
            assert answer.status_code == expected
    assert await service.sql("SELECT count(*) FROM receipts") == [(1,)]


async def test_an_endless_line_is_refused_and_nothing_of_it_is_kept(service: Service) -> None:
    async def endless() -> Any:
        for _ in range(9 * 1024):
            yield b"x" * 1024

    assert (await service.client.post("/v1/receipts/native", content=endless())).status_code == 413
    assert await service.sql("SELECT count(*) FROM unread") == [(0,)]


async def test_bytes_that_postgres_takes_no_text_of_are_still_kept(service: Service) -> None:
    answer = await service.client.post("/v1/receipts/native", content=b"\x00\xff{]")
    assert (answer.status_code, answer.headers["sendable-unread"]) == (200, "1")
    assert await service.sql("SELECT body FROM unread") == [(b"\x00\xff{]",)]


async def test_a_full_queue_answers_503_and_loses_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "WAITING_MOST", 10)
    async with start() as service:
        posts = [post(service, receipt(message_id=f"m{place}")) for place in range(200)]
        answers = await asyncio.gather(*posts)
        taken = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(taken) + len(refused) == 200
        assert refused
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert await service.sql("SELECT count(*) FROM receipts") == [(len(taken),)]


async def test_readers_that_wait_for_a_lock_keep_no_receipt_single_question_or_probe_waiting(
    service: Service, database_url: str
) -> None:
    holder = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with holder.transaction():
        await holder.execute("LOCK TABLE unread")
        asked = [asyncio.create_task(service.client.get("/v1/unread")) for _ in range(2 * POOL_SIZE)]
        async with asyncio.timeout(30):
            while await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < POOL_SIZE:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(ACQUIRE_WITHIN / 2):
            assert (await post(service, receipt())).status_code == 200
            assert (await status(service))["last_receipt_at"]
            assert (await service.client.get("/readyz")).status_code == 200
    await holder.close()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_a_callback_of_more_than_may_wait_is_taken_when_nothing_does(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be refused for ever, however often its gateway came again."""
    monkeypatch.setattr(intake, "WAITING_MOST", 10)
    async with start() as service:
        answer = await post(service, [receipt(message_id=f"m{place}") for place in range(25)])
        assert answer.status_code == 200
        assert await service.sql("SELECT count(*) FROM receipts") == [(25,)]


async def test_a_large_callback_keeps_no_single_receipt_out_or_waiting(
    start: Start, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 110,000 receipts, which is 8 MiB, had all others answered 503 for 8 s, and the service not ready."""
    monkeypatch.setattr(intake, "WAITING_MOST", 10)
    monkeypatch.setattr(intake, "GROUP_MOST", 4)
    holder = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with start() as service:
        async with holder.transaction():
            await holder.execute("LOCK TABLE receipts")
            many = [receipt(message_id=f"m{place}") for place in range(25)]
            large = asyncio.create_task(post(service, many))
            await waiting(service, 1, large)
            single = asyncio.create_task(post(service, receipt(message_id="single")))
            assert (await service.client.get("/readyz")).status_code == 200
            assert not single.done()
            room = service.app.state.intake.has_room
            assert [room(size) for size in (4, 5)] == [True, False], "another large one waits for this one"
            monkeypatch.setattr(intake, "WAITING_MOST", 5)
            assert not room(4), "its part that is in the queue takes room from everybody"
        assert [answer.status_code for answer in await asyncio.gather(large, single)] == [200, 200]
        rows = await service.sql("SELECT message_id, dense_rank() OVER (ORDER BY xmin::text::bigint) FROM receipts")
        commits = dict(rows)
        assert (len(commits), commits["single"], max(commits.values())) == (26, 2, 7)
        assert service.app.state.intake.depth == 0
    await holder.close()


async def test_large_bodies_are_read_in_turn_and_others_are_answered_between_two(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty of 8 MiB at once kept everybody waiting for 17 s."""
    body = [receipt(message_id=f"m{place}") for place in range(700)]
    assert len(json.dumps(body)) > SMALL
    read, had = receipts.read, []
    async with turns.counted() as now:
        monkeypatch.setattr(receipts, "read", lambda *given: (had.append(now.count), read(*given))[1])
        answers = await asyncio.gather(*(post(service, body) for _ in range(30)))
    assert len(had) == len({*had}) == 30
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert await service.sql("SELECT count(*) FROM receipts") == [(700,)]


async def test_a_large_body_that_would_find_no_room_is_not_read(
    start: Start, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "WAITING_MOST", 10)
    holder = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with start() as service:
        async with holder.transaction():
            await holder.execute("LOCK TABLE receipts")
            first = asyncio.create_task(post(service, [receipt(message_id=f"m{place}") for place in range(5_000)]))
            await waiting(service, 1, first)
            with monkeypatch.context() as patched:
                patched.setattr(receipts, "read", None)
                answer = await post(service, [receipt(sender=" " * MIB)])
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert (await first).status_code == 200
    await holder.close()


async def test_one_receipt_that_the_database_refuses_does_not_fail_its_neighbours(service: Service) -> None:
    await service.sql("ALTER TABLE receipts ADD CONSTRAINT no_poison CHECK (message_id <> 'poison')")
    bodies = [receipt(message_id=name) for name in ("a", "poison", "b")]
    answers = await asyncio.gather(*(post(service, body) for body in bodies))
    assert [answer.status_code for answer in answers] == [200, 503, 200]
    assert sorted(await service.sql("SELECT message_id FROM receipts")) == [("a",), ("b",)]


async def test_the_log_says_what_refused_a_group_and_where(service: Service) -> None:
    await service.sql("ALTER TABLE receipts ADD CONSTRAINT no_poison CHECK (message_id <> 'poison')")
    with capture_logs() as lines:
        assert (await post(service, receipt(message_id="poison"))).status_code == 503
    (line,) = [line for line in lines if line["event"] == "group not committed"]
    assert (line["lost"], line["size"], line["error"]) == (False, 1, ["CheckViolationError 23514"])
    assert line["frames"][0].startswith("services/store/receipts.py:")


async def test_a_fault_of_ours_costs_one_group_and_not_all_that_come_after(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is: here behind the commit, so that the repetition must count once."""

    def fails(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(intake.metrics, "committed", fails)
        assert (await asyncio.wait_for(post(service, receipt()), 30)).status_code == 503
    assert (await asyncio.wait_for(post(service, receipt()), 30)).status_code == 200
    assert await service.sql("SELECT count(*) FROM receipts") == [(1,)]
    assert await service.sql("SELECT sum(total) FROM hourly_counts WHERE outcome = 'sent'") == [(1,)]


async def test_a_forged_receipt_is_refused_and_an_unconfigured_gateway_is_not_there(start: Start) -> None:
    async with start(auth="on", gateways={"native": {"secrets": ["s3cret", "older"]}}) as service:
        assert (await post(service, receipt())).status_code == 403
        assert (await post(service, receipt(), {"token": "wrong"})).status_code == 403
        assert (await post(service, receipt(), {"token": "older"})).status_code == 200
        for gateway in ("twilio", "carrier-pigeon", "native/elsewhere"):
            answer = await service.client.post(f"/v1/receipts/{gateway}", json=[])
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert await service.sql("SELECT count(*) FROM receipts") == [(1,)]


@pytest.mark.parametrize("gateway", ["bandwidth", "aws-eum"])
async def test_who_shows_credentials_only_when_asked_for_them_is_asked(start: Start, gateway: str) -> None:
    """Without the challenge they do not come again, and every receipt is lost."""
    async with start(auth="on", gateways={gateway: {"secrets": ["s3cret"]}}) as service:
        callback = partial(service.client.post, f"/v1/receipts/{gateway}", json=[])
        asked = await callback()
        assert (asked.status_code, asked.headers["www-authenticate"]) == (401, 'Basic realm="Sendable"')
        assert asked.headers["content-type"] == "application/problem+json"
        assert (await callback(auth=("anybody", "s3cret"))).status_code == 200
        for wrong in ({"auth": ("anybody", "")}, {"params": {"token": "x"}}, {"headers": {"x-sendable-token": "x"}}):
            assert (await callback(**wrong)).status_code == 403


@pytest.mark.parametrize(
    ("gateway", "secrets"), [("infobip", ["s3cret"]), ("aws-eum", ["arn:aws:sns:us-east-1:123456789012:sms", "s3cret"])]
)
async def test_nobody_else_is_asked_for_credentials(start: Start, gateway: str, secrets: list[str]) -> None:
    """SNS neither, where it signs."""
    async with start(auth="on", gateways={gateway: {"secrets": secrets}}) as service:
        assert (await service.client.post(f"/v1/receipts/{gateway}", json=[])).status_code == 403


async def test_a_signed_time_is_held_against_the_arrival_of_the_request(start: Start) -> None:
    async with start(auth="on", gateways={"sinch": {"secrets": ["s3cret"], "window": "1h"}}) as service:
        now = datetime.now(UTC)
        for late, status in ((timedelta(minutes=59), 200), (timedelta(minutes=61), 403)):
            at = str(int((now - late).timestamp()))
            assert (await post_sinch(service, "s3cret", at)).status_code == status


async def post_sinch(service: Service, secret: str, at: str) -> Any:
    body = b'{"batch_id":"b-1","recipient":"15005550123","status":"Delivered"}'
    signed = hmac.digest(secret.encode(), body + b".once." + at.encode(), "sha256")
    name = "x-sinch-webhook-signature"
    headers = {name: base64.b64encode(signed).decode(), f"{name}-nonce": "once", f"{name}-timestamp": at}
    return await service.client.post("/v1/receipts/sinch", content=body, headers=headers)


async def test_a_message_in_parts_is_delivered_when_all_parts_are(service: Service) -> None:
    failed = receipt(message_id="first", code="629", occurred_at=ago(minutes=30))
    await post(service, failed)
    part = {"ticketId": "long", "status": {"code": 4}, "totalSegments": 2, "destination": {"address": WHO[1:]}}
    for segment, state in ((1, "not_sms_capable"), (2, "active")):
        body = part | {"segmentNumber": segment, "deliveryDate": ago(minutes=5)}
        await service.client.post("/v1/receipts/openmarket", json=body)
        assert (await status(service))["state"] == state


async def test_parts_that_two_processes_take_at_once_deliver_their_message(start: Start) -> None:
    """Each of them sees the part of the other only once that is committed."""
    part = {"ticketId": "long", "totalSegments": 2, "status": {"code": 4}, "source": {"address": "12345"},
            "destination": {"address": WHO[1:]}}  # fmt: skip
    async with start() as one, start() as two:
        await post(one, receipt(message_id="first", code="629", occurred_at=ago(minutes=30)))
        async with one.app.state.engine.begin() as db:
            await db.execute(text("SELECT FROM numbers FOR UPDATE"))
            posts = [
                service.client.post("/v1/receipts/openmarket", json=part | {"segmentNumber": place})
                for place, service in enumerate((one, two), 1)
            ]
            taking = [asyncio.create_task(call) for call in posts]
            await waiting(one, len(taking), *taking)
        assert [(await task).status_code for task in taking] == [200, 200]
        assert (await status(one))["state"] == "active"


async def test_a_message_in_parts_has_failed_when_one_of_them_has(service: Service) -> None:
    part = {"ticketId": "long", "totalSegments": 2, "destination": {"address": WHO[1:]}}
    for segment, code in ((1, 4), (2, 629)):
        body = part | {"status": {"code": code}, "segmentNumber": segment, "deliveryDate": ago(minutes=5)}
        await service.client.post("/v1/receipts/openmarket", json=body)
    assert (await status(service))["state"] == "not_sms_capable"


async def test_a_messages_status_only_moves_forward_and_a_late_delivery_still_counts(service: Service) -> None:
    await opt_in(service)
    await post(service, receipt(code="629", occurred_at=ago(minutes=30)))
    before = await status(service)
    for late in ("accepted", "sent", "unknown"):
        await post(service, receipt(status=late, code=None, occurred_at=ago(minutes=1)))
    after = await status(service)
    assert {**after, "last_receipt_at": None} == {**before, "last_receipt_at": None}
    await post(service, receipt(status="delivered", code=None, occurred_at=ago(minutes=1)))
    assert (await status(service))["state"] == "active"
    counted = await service.sql("SELECT outcome, sum(total)::int FROM hourly_counts WHERE outcome <> 'list.opted_out' "
                                "GROUP BY 1 ORDER BY 1")  # fmt: skip
    assert counted == [("delivered", 1), ("not_sms_capable", 1), ("sent", 2)]


async def test_whoever_refused_and_whoever_left_are_counted_apart(service: Service) -> None:
    """A STOP is heard of again with each message that is still sent: only the first of them is an opt-out."""
    await opt_in(service)
    for message_id in ("first", "second", "third"):
        await post(service, receipt(message_id=message_id, code="603", occurred_at=ago(minutes=30)))
    counted = await service.sql("SELECT outcome, total FROM hourly_counts ORDER BY 1")
    assert counted == [("list.opted_out", 1), ("opted_out", 3), ("sent", 3)]


@pytest.mark.parametrize(("told", "counted"), [
    ("AT&T Mobility", "AT&T"), ("Smalltown Wireless", "Smalltown Wireless"), (None, ""),
])  # fmt: skip
async def test_who_left_is_counted_by_sender_and_carrier(service: Service, told: str | None, counted: str) -> None:
    """By the canonical name where the catalogue knows one, else as the receipt named it."""
    await opt_in(service)
    await post(service, receipt(code="603", occurred_at=ago(minutes=30), carrier=told))
    rows = await service.sql("SELECT DISTINCT sender, carrier FROM hourly_counts")
    assert rows == [("12345", counted)]


async def test_a_receipt_without_a_carrier_counts_under_the_numbers_own_once_its_sender_is_known(
    service: Service,
) -> None:
    await post(service, receipt(message_id="m0", status="delivered", code=None, carrier="AT&T Mobility"))
    await post(service, receipt(message_id="m1", code="603"))
    await post(service, receipt(message_id="m2", code="629", sender=None))
    rows = "SELECT outcome, sender, carrier FROM hourly_counts WHERE outcome NOT IN ('sent', 'delivered') ORDER BY 1"
    assert await service.sql(rows) == [("not_sms_capable", "", ""), ("opted_out", "12345", "AT&T")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_message_has_failed_when_one_part_has_though_nobody_tells_how_many_there_are(
    service: Service, order: tuple[int, int]
) -> None:
    failed = receipt(message_id="long", code="629", occurred_at=ago(minutes=6), segment=1)
    reached = receipt(message_id="long", status="delivered", code=None, occurred_at=ago(minutes=5), segment=2)
    for place in order:
        await post(service, (failed, reached)[place])
    assert (await status(service))["state"] == "not_sms_capable"


async def test_a_later_part_of_how_many_nobody_tells_delivers_with_all_before_it(service: Service) -> None:
    await post(service, receipt(message_id="first", code="629", occurred_at=ago(minutes=30)))
    for segment, state in ((3, "not_sms_capable"), (2, "not_sms_capable"), (1, "active")):
        part = receipt(message_id="long", status="delivered", code=None, occurred_at=ago(minutes=5), segment=segment)
        await post(service, part)
        assert (await status(service))["state"] == state


async def test_a_first_part_of_how_many_nobody_tells_speaks_of_the_whole_message(service: Service) -> None:
    await post(service, receipt(message_id="first", code="629", occurred_at=ago(minutes=30)))
    whole = receipt(message_id="long", status="delivered", code=None, occurred_at=ago(minutes=5), segment=1)
    await post(service, whole)
    assert (await status(service))["state"] == "active"


async def test_a_receipt_that_names_no_part_speaks_of_the_whole_message(service: Service) -> None:
    await post(service, receipt(message_id="first", code="629", occurred_at=ago(minutes=30)))
    to = {"phone_number": WHO, "status": "delivered"}
    payload = {"id": "long", "parts": 3, "to": [to], "completed_at": ago(minutes=5)}
    event = {"data": {"event_type": "message.finalized", "payload": payload}}
    await service.client.post("/v1/receipts/telnyx", json=event)
    assert (await status(service))["state"] == "active"


def ago(**span: int) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat().replace("+00:00", "Z")


async def test_what_people_write_is_answered_and_counted_and_nothing_of_it_is_kept(service: Service) -> None:
    async def counted() -> int:
        text = (await service.client.get("/metrics")).text
        return sum(
            int(n) for n in re.findall(r'^sendable_inbound_total\{gateway="bandwidth"\} (\d+)', text, re.MULTILINE)
        )

    before = await counted()
    said = {"type": "message-received", "message": {"id": "in1", "direction": "in", "from": WHO, "text": "hello"}}
    answer = await service.client.post("/v1/receipts/bandwidth", json=[said, said])
    assert (answer.status_code, answer.content) == (200, b"")
    assert "sendable-unread" not in answer.headers
    assert await counted() == before + 2
    tables = await service.sql("SELECT (SELECT count(*) FROM receipts) + (SELECT count(*) FROM unread)")
    assert tables == [(0,)]
    assert (await status(service))["state"] == "unseen"


async def test_a_signed_time_is_held_against_the_arrival(start: Start) -> None:
    key = Ed25519PrivateKey.generate()
    body = b'{"data":{"event_type":"message.received"}}'

    async def answered(service: Service, at: datetime) -> int:
        stamp = str(int(at.timestamp()))
        signed = base64.b64encode(key.sign(stamp.encode() + b"|" + body)).decode()
        headers = {"telnyx-timestamp": stamp, "telnyx-signature-ed25519": signed}
        answer = await service.client.post("/v1/receipts/telnyx", content=body, headers=headers)
        return answer.status_code

    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    async with start(gateways={"telnyx": {"secrets": [public], "window": "1h"}}) as service:
        now = datetime.now(UTC)
        hours = (0.0, 0.9, 1.1, -0.9, -1.1)
        assert [await answered(service, now - timedelta(hours=ago)) for ago in hours] == [200, 200, 403, 200, 403]
