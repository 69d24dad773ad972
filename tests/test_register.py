"""The sent-message register: receipts that carry only an id find their number and sender, whichever comes first."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.routers import messages
from app.services import upkeep
from tests import turns
from tests.conftest import Service, Start

WHO = "+15555551234"
EVERYTHING = ("receipts", "receipt_keys", "messages", "unnamed", "numbers", "sender_blocks", "subscriptions", "changes",
              "hourly_counts", "alarms", "lookups", "breaker_hits")  # fmt: skip


def ago(**span: int) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def sent(message_id: str = "m1", **said: Any) -> dict[str, Any]:
    entry = {
        "gateway": "native",
        "message_id": message_id,
        "number": WHO,
        "sender": "12345",
        "sent_at": ago(minutes=10),
    }
    return entry | said


async def register(service: Service, *entries: Any) -> Any:
    return await service.client.post("/v1/messages", json=list(entries))


async def post(service: Service, message_id: str = "m1", account: str = "", **said: Any) -> Any:
    body = {"message_id": message_id, "status": "undeliverable", "code": "560"} | said
    answer = await service.client.post(f"/v1/receipts/native{account}", json=body)
    assert answer.status_code == 200
    return answer


async def subscribe(service: Service, consented_at: str | None = None) -> None:
    call = {"consented_at": consented_at or ago(days=9), "source": "web form"}
    assert (await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{WHO}", json=call)).status_code == 200


async def status(service: Service) -> Any:
    return (await service.client.get(f"/v1/numbers/{WHO}", params={"sender": "12345"})).json()


async def end_of(service: Service, *, by_carrier: bool = True) -> list[Any]:
    told = await status(service)
    facts = ("state", "reason", "waiting_for", "lists", "sender", "decision")
    counted = Counter[tuple[str, ...]]()
    for sender, carrier, outcome, total in await service.sql(
        "SELECT sender, carrier, outcome, total FROM hourly_counts"
    ):
        counted[(sender, carrier, outcome) if by_carrier else (sender, outcome)] += total
    receipts = "SELECT message_id, number, sender, status, code, reason FROM receipts ORDER BY 1"
    shown = [told[fact] for fact in facts]
    return [*shown, {key: total for key, total in counted.items() if total}, await service.sql(receipts)]


NAMED = {"number": WHO, "sender": "12345"}
DATED = NAMED | {"sent_at": ago(minutes=10)}


@pytest.mark.parametrize("consented", [ago(days=9), ago(minutes=5)], ids=["long ago", "after it was sent"])
@pytest.mark.parametrize("provider", [{}, {"lookup": {}}], ids=["alone", "with a provider"])
@pytest.mark.parametrize(
    "known", [{}, {"number": WHO}, NAMED, DATED],
    ids=["an id alone", "a number", "a number and a sender", "a send date too"],
)  # fmt: skip
@pytest.mark.parametrize("code", [None, "345", "514", "560", "603", "629", "3041"])
async def test_either_order_of_arrival_ends_the_same(
    start: Start, code: str | None, known: dict[str, str], provider: dict[str, Any], consented: str
) -> None:
    """But for one: a receipt that lacked nothing is counted under the carrier that was known when it came."""
    ends = []
    said = known | ({"status": "undeliverable", "code": code} if code else {"status": "delivered", "code": None})
    at, occurred = ago(minutes=10), ago(minutes=1)
    async with start(**provider) as service:
        for receipt_first in (True, False):
            await subscribe(service, consented)
            calls = [
                lambda: post(service, occurred_at=occurred, **said),
                lambda: register(service, sent(sent_at=at, carrier=None if code == "3041" else "AT&T")),
            ]
            for call in calls if receipt_first else reversed(calls):
                await call()
            ends.append(await end_of(service, by_carrier="sender" not in known))
            await service.sql(f"TRUNCATE {', '.join(EVERYTHING)}")
    assert ends[0] == ends[1]


@pytest.mark.parametrize("register_first", [True, False])
async def test_a_message_sent_before_a_death_and_delivered_after_it_shows_no_stranger(
    service: Service, *, register_first: bool
) -> None:
    calls = [lambda: register(service, sent(sent_at=ago(minutes=30))),
             lambda: post(service, status="delivered", code=None, occurred_at=ago(minutes=1), **NAMED)]  # fmt: skip
    await post(service, "m0", code="3041", occurred_at=ago(minutes=10), sent_at=ago(minutes=11), **NAMED)
    for call in calls if register_first else reversed(calls):
        await call()
    assert (await status(service))["state"] == "deactivated"


@pytest.mark.parametrize("register_first", [True, False])
@pytest.mark.parametrize("known", [{}, {"number": WHO}, NAMED], ids=["an id", "a number", "a number and a sender"])
async def test_of_messages_that_were_delivered_in_another_order_than_sent_each_counts_by_its_own_date(
    service: Service, known: dict[str, str], *, register_first: bool
) -> None:
    """The one that was sent after the failure ends the hold, though the other one was delivered last."""
    await post(service, "m0", code="345", occurred_at=ago(minutes=9), sent_at=ago(minutes=11), **NAMED)
    delivered = known | {"status": "delivered", "code": None}
    entries = [sent("m1", sent_at=ago(minutes=10)), sent("m2", sent_at=ago(minutes=8))]
    if register_first:
        await register(service, *entries)
    await post(service, "m2", occurred_at=ago(minutes=2), **delivered)
    await post(service, "m1", occurred_at=ago(minutes=1), **delivered)
    if not register_first:
        await register(service, *entries)
    assert (await status(service))["state"] == "active"


@pytest.mark.parametrize("known", [{}, {"number": WHO}], ids=["an id alone", "a number"])
async def test_a_receipt_that_waits_and_comes_again_after_more_than_a_week_waits_once(
    service: Service, known: dict[str, str]
) -> None:
    """Repetitions are known for 8 days, what waits for the register does so for 14."""
    await post(service, **known)
    await service.sql("UPDATE receipt_keys SET arrived_at = arrived_at - interval '9 days'")
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
    await post(service, **known)
    assert (await register(service, sent())).json()["receipts_applied"] == 1
    assert (await status(service))["sender"]["reason"] == "carrier_blocked_subscriber"
    assert await service.sql("SELECT sum(total) FROM hourly_counts WHERE sender = '12345'") == [(2,)]


@pytest.mark.parametrize("first", ["a message", "a receipt"])
async def test_an_entry_is_kept_for_two_weeks_from_when_it_was_told(service: Service, first: str) -> None:
    """Whatever was known by its id before: another message, or a receipt that waited."""
    await (register(service, sent(number="+15555551235")) if first == "a message" else post(service))
    aged = "UPDATE messages SET registered_at = registered_at - CAST(:days AS int) * interval '1 day'"
    await service.sql(aged, days=10)
    await register(service, sent())
    await service.sql(aged, days=5)
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
    await post(service, code="603")
    assert (await status(service))["sender"]["reason"] == "opted_out"


async def test_a_consent_that_was_ended_for_want_of_a_send_date_is_told_to_be_back(service: Service) -> None:
    await subscribe(service, ago(minutes=5))
    await post(service, code="629", occurred_at=ago(minutes=1), **NAMED)
    assert (await status(service))["lists"][0]["consent"] == "opted_out"
    await register(service, sent(sent_at=ago(minutes=10), carrier="AT&T"))
    assert (await status(service))["lists"][0]["consent"] == "opted_in"
    told = "SELECT kind, before, after, reason FROM changes WHERE list IS NOT NULL ORDER BY seq"
    assert (await service.sql(told))[1:] == [
        ("list.opted_out", "opted_in", "opted_out", "not_sms_capable"),
        ("list.opted_in", "opted_out", "opted_in", "not_sms_capable"),
    ]
    left = "SELECT sender, carrier, hour FROM hourly_counts WHERE outcome = 'list.opted_out' AND total <> 0"
    assert await service.sql(left) == []  # under the carrier that was known when it was counted
    assert await service.sql("SELECT sum(total) FROM opt_out_hours") == [(0,)]
    before = await service.sql("SELECT count(*) FROM changes")
    await register(service, sent(sent_at=ago(minutes=10), carrier="AT&T"))
    assert await service.sql("SELECT count(*) FROM changes") == before


async def test_both_at_once_never_miss_each_other(service: Service) -> None:
    names = [f"m{place}" for place in range(60)]
    await asyncio.gather(
        *(post(service, name, status="delivered", code=None) for name in names),
        *(register(service, sent(name, number=f"+1415555{place:04}")) for place, name in enumerate(names)),
    )
    assert await service.sql("SELECT count(*) FROM receipts WHERE number IS NULL OR sender IS NULL") == [(0,)]
    assert await service.sql("SELECT count(*) FROM unnamed") == [(0,)]
    assert await service.sql("SELECT count(*) FROM numbers WHERE state = 'active'") == [(60,)]


async def test_receipts_are_named_and_erased_though_they_are_replicated_logically(service: Service) -> None:
    await service.sql("CREATE PUBLICATION copied FOR TABLE receipts")
    await post(service)
    assert (await register(service, sent())).json()["receipts_applied"] == 1
    assert await service.sql("SELECT number FROM receipts") == [(WHO,)]
    assert (await service.client.delete(f"/v1/numbers/{WHO}")).json()["erased"]["receipts"] == 1


async def test_a_receipt_without_a_number_waits_without_effect(service: Service) -> None:
    await subscribe(service)
    await post(service)
    assert (await status(service))["decision"]["sendable"]
    assert await service.sql("SELECT number, status FROM receipts") == [(None, "undeliverable")]


async def test_a_receipt_of_what_is_under_way_waits_for_no_sender(service: Service) -> None:
    waiting = "SELECT count(*) FROM unnamed"
    await post(service, "m1", number=WHO, status="sent", code=None)
    assert await service.sql(waiting) == [(0,)]
    await post(service, "m1", number=WHO, status="delivered", code=None)
    assert await service.sql(waiting) == [(1,)]


async def test_a_receipt_that_has_no_id_waits_for_nobody(service: Service) -> None:
    """No entry could ever name it."""
    answer = await service.client.post("/v1/receipts/native", json={"number": WHO, "status": "delivered"})
    assert (answer.status_code, "sendable-unread" in answer.headers) == (200, False)
    assert await service.sql("SELECT (SELECT count(*) FROM unnamed), (SELECT count(*) FROM messages)") == [(0, 0)]


@pytest.mark.parametrize("code", ["345", "514", "560", "592", "603", "629", None])
async def test_what_told_its_send_date_itself_is_not_heard_again(service: Service, code: str | None) -> None:
    """But for a deactivation: to have named no carrier decides about that."""
    tables = ("numbers", "sender_blocks", "subscriptions", "changes", "hourly_counts", "lookups", "breaker_hits")
    holds = [f"SELECT to_jsonb(t) AS row FROM {table} t ORDER BY 1::text" for table in tables]  # noqa: S608
    await subscribe(service)
    status = "delivered" if code is None else "undeliverable"
    await post(service, number=WHO, sender="12345", status=status, code=code, sent_at=ago(minutes=12))
    before = [await service.sql(statement) for statement in holds]
    assert (await register(service, sent())).json()["receipts_applied"] == 0
    assert [await service.sql(statement) for statement in holds] == before


async def test_a_reason_that_concerns_the_sender_holds_the_number_until_it_is_named(service: Service) -> None:
    await subscribe(service)
    await post(service, number=WHO)
    told = await status(service)
    assert (told["state"], told["waiting_for"], told["sender"]["blocked"]) == ("held", "sender", False)
    assert told["lists"][0]["consent"] == "opted_in"
    assert (await register(service, sent())).json()["receipts_applied"] == 1
    told = await status(service)
    assert (told["state"], told["waiting_for"], told["sender"]["blocked"]) == ("active", None, True)
    assert told["lists"][0]["consent"] == "opted_out"


async def test_what_concerns_the_number_acts_at_once_without_a_sender(service: Service) -> None:
    await post(service, number=WHO, code="629")
    assert (await status(service))["state"] == "not_sms_capable"


async def test_a_gateway_whose_setting_names_the_sender_never_waits(start: Start) -> None:
    async with start(gateways={"native": {"sender": "12345"}}) as service:
        await post(service, number=WHO)
        assert (await status(service))["sender"]["blocked"]


@pytest.mark.parametrize("registered", ["before", "after"])
@pytest.mark.parametrize("number", [None, WHO])
async def test_the_sender_of_the_register_goes_before_that_of_a_setting(
    start: Start, registered: str, number: str | None
) -> None:
    """Unless the receipt, with that of the setting, had all that it needs, and has acted."""
    async with start(gateways={"native": {"sender": "67890"}}) as service:
        await subscribe(service)
        if registered == "before":
            await register(service, sent())
        await post(service, number=number, code="603")
        if registered == "after":
            await register(service, sent())
        told = await status(service)
        (stored,) = (await service.client.get("/v1/receipts")).json()["items"]
        acted = registered == "after" and number is not None
        assert (stored["number"], stored["sender"]) == (WHO, "67890" if acted else "12345")
        assert (told["sender"]["blocked"], told["lists"][0]["consent"] == "opted_out") == (not acted, not acted)


@pytest.mark.parametrize("account", ["", "/eu"])
@pytest.mark.parametrize("code", [None, "345", "514", "560", "603", "629", "3041"])
async def test_a_sender_that_is_set_later_names_what_waited_for_it(
    start: Start, code: str | None, account: str
) -> None:
    said = {"number": WHO} | ({"code": code} if code else {"status": "delivered", "code": None})
    links = {"accounts": {"eu": {}}}
    ends, consented, occurred = [], ago(days=9), ago(minutes=1)
    for late in (False, True):
        async with start(gateways={"native": links if late else links | {"sender": "12345"}}) as service:
            await subscribe(service, consented)
            await post(service, account=account, occurred_at=occurred, **said)
        async with start(gateways={"native": links | {"sender": "12345"}}) as service:
            state = service.app.state
            await upkeep.name_senders(state.engine, state.settings, state.meaning)
            ends.append(await end_of(service))
            assert await service.sql("SELECT count(*) FROM unnamed") == [(0,)]
            assert (await register(service, sent(account=account[1:]))).json()["receipts_applied"] == 0
            await service.sql(f"TRUNCATE {', '.join(EVERYTHING)}")
    assert ends[0] == ends[1]


async def test_the_sender_of_a_setting_is_read_in_the_region_of_the_settings(start: Start) -> None:
    async with start(region="GB", gateways={"native": {"sender": "7911 123456"}}) as service:
        await post(service, number="+442071838750")
        (receipt,) = (await service.client.get("/v1/receipts")).json()["items"]
        assert receipt["sender"] == "+447911123456"


async def test_the_register_tells_when_the_message_was_sent(service: Service) -> None:
    """An opt-in newer than the send is never ended by that message's receipt."""
    await register(service, sent(sent_at=ago(hours=2)))
    await subscribe(service, consented_at=ago(hours=1))
    await post(service, code="603")
    assert (await status(service))["lists"][0]["consent"] == "opted_in"


async def test_a_deactivated_code_for_a_message_sent_without_a_carrier_needs_no_lookup(start: Start) -> None:
    async with start(lookup={}) as service:
        await subscribe(service)
        await register(service, sent(carrier=None))
        await post(service, code="3041")
        told = await status(service)
        assert (told["state"], told["waiting_for"], told["lists"][0]["consent"]) == ("deactivated", None, "opted_out")
        assert await service.sql("SELECT count(*) FROM lookups") == [(0,)]


async def test_a_register_entry_stores_the_carrier_and_leaves_the_number_unseen(service: Service) -> None:
    await register(service, sent(carrier="T-Mobile USA, Inc."))
    told = await status(service)
    assert told["state"] == "unseen"
    assert (told["carrier"]["name"], told["carrier"]["name_raw"]) == ("T-Mobile", "T-Mobile USA, Inc.")
    assert told["carrier"]["source"] == "register"


@pytest.mark.parametrize("first", ["the register", "the receipt"])
async def test_the_same_id_of_another_gateway_or_account_is_another_message(start: Start, first: str) -> None:
    people = {"native": "+14155550001", "native/eu": "+14155550002", "sinch": "+14155550003"}

    async def registered(service: Service) -> None:
        entries = []
        for place, number in people.items():
            gateway, _, account = place.partition("/")
            entries.append(sent(gateway=gateway, account=account, number=number))
        assert (await register(service, *entries)).json()["registered"] == 3

    async with start(gateways={"native": {"accounts": {"eu": {}}}}) as service:
        if first == "the register":
            await registered(service)
        failed = {"message_id": "m1", "status": "undeliverable", "code": "629"}
        await service.client.post("/v1/receipts/native/eu", json=failed)
        if first == "the receipt":
            await registered(service)
        shown = await service.sql("SELECT number FROM published.number_status WHERE state = 'not_sms_capable'")
        assert shown == [(people["native/eu"],)]
        assert await service.sql("SELECT number, sender FROM receipts") == [(people["native/eu"], "12345")]


@pytest.mark.parametrize("at_once", [True, False])
async def test_of_a_message_that_is_registered_again_the_last_entry_counts_in_every_part(
    start: Start, *, at_once: bool
) -> None:
    other, wrong = "+14155550002", ago(hours=2)
    entries = sent(number=other, sender="67890", sent_at=wrong), sent(carrier="AT&T", sent_at=ago(minutes=10))
    async with start(lookup={}) as service:
        for several in [entries] if at_once else [[one] for one in entries]:
            assert (await register(service, *several)).status_code == 200
        await subscribe(service, consented_at=ago(hours=1))  # before the message was sent, as it says now
        await post(service, code="603")
        told = await status(service)
        assert (told["sender"]["blocked"], told["lists"][0]["consent"]) == (True, "opted_out")
        await post(service, code="3041")
        assert (await status(service))["waiting_for"] == "lookup"  # it was sent with a carrier
        assert await service.sql("SELECT DISTINCT number, sender FROM receipts") == [(WHO, "12345")]


async def test_however_many_are_registered_at_once_each_finds_its_receipt(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.register.AT_ONCE", 2)
    names = [f"m{place}" for place in range(5)]
    for name in names:
        await post(service, name)
    assert (await register(service, *map(sent, names))).json()["receipts_applied"] == 5
    assert await service.sql("SELECT count(*) FROM receipts WHERE number IS NULL") == [(0,)]


async def test_good_entries_are_kept_and_bad_ones_named(service: Service) -> None:
    bad = [sent(number="12"), sent(sent_at="2026-11-21T10:00:00"), "no entry", sent(sender=" "), {"gateway": "native"}]
    answer = await register(service, sent(), *bad, sent("m2"))
    assert answer.status_code == 200
    assert answer.json()["registered"] == 2
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/1", "/2", "/3", "/4", "/5"]
    none_good = await register(service, *bad)
    assert (none_good.status_code, none_good.headers["content-type"]) == (422, "application/problem+json")
    assert len(none_good.json()["errors"]) == 5


@pytest.mark.parametrize("write", [b"[%s]", b"%s"], ids=["array", "lines"])
async def test_more_entries_than_messages_find_room_for_are_refused_unread(service: Service, write: bytes) -> None:
    async def send(entries: int) -> Any:
        between = b"," if write == b"[%s]" else b"\n"
        return await service.client.post("/v1/messages", content=write % between.join([b"{}"] * entries))

    assert (await send(100_000)).status_code == 422
    refused = await send(100_001)
    assert (refused.status_code, refused.json()["detail"]) == (
        413,
        "more than 100000 entries: send them in smaller parts",
    )


async def test_an_account_that_is_null_is_none(service: Service) -> None:
    """As `GET /v1/receipts` writes it, and as clients do that leave nothing out."""
    answer = await register(service, sent(account=None, carrier=None))
    assert answer.json() == {"registered": 1, "receipts_applied": 0, "errors": []}


async def test_what_is_no_object_is_told_without_the_names_of_our_code(service: Service) -> None:
    (told,) = (await register(service, "no entry")).json()["errors"]
    assert told["pointer"] == "/0"
    assert told["detail"].startswith("not a JSON object: ")


async def test_ndjson_and_repeats_are_read(service: Service) -> None:
    lines = "\n".join([json.dumps(sent()), "", json.dumps(sent("m2")), json.dumps(sent())])
    answer = await service.client.post("/v1/messages", content=lines, headers={"content-type": "application/x-ndjson"})
    assert (answer.status_code, answer.json()["registered"]) == (200, 3)
    assert await service.sql("SELECT message_id FROM messages ORDER BY 1") == [("m1",), ("m2",)]


async def test_a_long_register_is_read_in_parts_and_others_are_answered_between_two(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty of 8 MiB at once kept everybody waiting for 8 s."""
    monkeypatch.setattr(messages, "READ_AT_ONCE", 2)
    read, had = messages._sent, []
    entries = [sent(f"m{place}") if place % 3 else None for place in range(100)]
    async with turns.counted() as now:
        monkeypatch.setattr(messages, "_sent", lambda *given: (had.append(now.count), read(*given))[1])
        told = [answer.json() for answer in await asyncio.gather(*(register(service, *entries) for _ in range(5)))]
    assert (len(had), max(Counter(had).values())) == (500, 2)
    assert {one["registered"] for one in told} == {66}
    assert [error["pointer"] for error in told[0]["errors"]] == [f"/{place}" for place in range(0, 100, 3)]
    assert await service.sql("SELECT count(*) FROM messages") == [(66,)]
