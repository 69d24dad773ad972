"""Erasure: nothing of a number stays anywhere, and nobody who was erased is subscribed again by an old list."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import make_url, text

from app.feeds import FEEDS
from app.models.tables import metadata
from app.services import held, unread, upkeep
from app.services.deactivations import files, importing
from app.services.deactivations.importing import Order
from app.services.erase import SEARCHED, WITHOUT_NUMBERS, written
from app.services.held import Which
from app.services.store import FEED_LOCK
from tests.conftest import Service, Start
from tests.locks import waiting
from tests.provider import Reply, answering, telnyx, today
from tests.running import sendable

WHO, DIGITS, OTHER = "+14155550001", "4155550001", "+14155550002"
SPRING = "/v1/senders/12345/lists/spring/subscribers"
HOLDING = {
    "receipts", "messages", "unnamed", "numbers", "sender_blocks", "subscriptions", "changes", "lookups",
    "lookup_answers", "lookup_spend", "unread", "import_lines", "rnd_checks", "breaker_hits", "alarms", "unknown_words",
}  # fmt: skip


async def columns_that_hold(service: Service, digits: str) -> set[tuple[str, str]]:
    """Every column of every table of the schema, looked through."""
    columns = await service.sql("SELECT table_name, column_name, data_type FROM information_schema.columns "
                                "WHERE table_schema = 'public' ORDER BY 1, 2")  # fmt: skip
    assert len(columns) > 120
    found = set()
    for table, column, kind in columns:
        value = f"encode(\"{column}\", 'escape')" if kind == "bytea" else f'"{column}"::text'
        plain = f"regexp_replace({value}, '[^0-9]', '', 'g')"
        holding = f'SELECT count(*) FROM "{table}" WHERE strpos({plain}, :digits) > 0'  # noqa: S608 - our own tables
        ((rows,),) = await service.sql(holding, digits=digits)
        if rows:
            found.add((re.sub(r"_\d{8}$", "", table), column))
    return found


async def opt_in(service: Service, number: str, at: str = "2026-03-02T09:15:00Z", **more: str) -> Any:
    call = {"consented_at": at, "source": "web form", "evidence": f"form of {number}"} | more
    return await service.client.put(f"{SPRING}/{number}", json=call)


async def a_life(service: Service, number: str) -> None:
    """Everything that can be held of a number."""
    post = service.client.post
    await opt_in(service, number)
    await service.client.put(f"/v1/senders/12345/lists/fall/subscribers/{number}",
                             json={"consented_at": "2026-03-02T09:15:00Z", "source": "web form"})  # fmt: skip
    sent = {"gateway": "native", "message_id": f"id-{number[-4:]}", "number": number, "sender": "12345",
            "carrier": "T-Mobile", "sent_at": "2026-11-01T00:00:00Z"}  # fmt: skip
    await post("/v1/messages", json=[sent])
    failed = {"message_id": f"m{number[-4:]}", "number": number, "sender": "12345", "status": "undeliverable"}
    await post("/v1/receipts/native", json=failed | {"code": "592"})
    await post("/v1/receipts/native", json={"message_id": f"n{number[-4:]}", "number": number, "code": "560",
                                            "status": "undeliverable"})  # fmt: skip
    await post("/v1/receipts/native", json=failed | {"message_id": f"o{number}", "code": number[1:]})
    for body in (f'{{"number": "{number}", broken', f'{{"to": "({number[2:5]}) {number[5:8]}-{number[8:]}", broken',
                 f"To=%2B{number[1:]}&x=[", f"To=%20{number[1:]}&x={{"):  # fmt: skip
        await post("/v1/receipts/native", content=body)
    assert (await post(f"/v1/numbers/{number}/lookup")).json()["outcome"] == "ok"
    await service.sql("INSERT INTO lookups (number, reason, cause, asked_at, due_at) VALUES "
                      "(:n, 'deactivated', '{}', now(), now() + interval '1 day') RETURNING 1", n=number)  # fmt: skip
    await service.sql(
        "INSERT INTO import_lines VALUES (gen_random_uuid(), 2, :n, '1', 'x', now(), 'x') RETURNING 1", n=number
    )
    await service.sql("INSERT INTO rnd_checks (number, consented_on, asked_at, via) VALUES (:n, now(), now(), 'api') "
                      "RETURNING 1", n=number)  # fmt: skip
    await service.client.delete(f"{SPRING}/{number}", params={"at": "2026-11-02T00:00:00Z"})


async def told_of(service: Service, number: str) -> Any:
    """What others are told of a number, whatever else has happened."""
    history = (await service.client.get(f"/v1/numbers/{number}/history")).json()["items"]
    receipts = (await service.client.get("/v1/receipts", params={"number": number})).json()["items"]
    return (await service.client.get(f"/v1/numbers/{number}")).json(), history, receipts


async def test_nothing_of_a_number_stays_in_any_column_of_any_table(start: Start) -> None:
    async with answering(lambda number: Reply(telnyx(number, "Verizon Wireless", on=today()))) as provider:
        async with start(lookup=provider.settings()) as service:
            await a_life(service, WHO)
            await a_life(service, OTHER)
            assert {table for table, _ in await columns_that_hold(service, DIGITS)} == HOLDING
            neighbour = await told_of(service, OTHER)
            answer = await service.client.delete(f"/v1/numbers/{WHO}")
            assert (answer.status_code, answer.json()["erased"].keys()) == (200, HOLDING)
            assert answer.json()["erased"]["unread"] == 4
            assert DIGITS not in answer.text
            assert await columns_that_hold(service, DIGITS) == set()
            assert await told_of(service, OTHER) == neighbour
            told = (await service.client.get(f"/v1/numbers/{WHO}")).json()
            assert (told["state"], told["lists"], told["evidence"]) == ("unseen", [], None)
            assert (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"] == []
            again = await service.client.delete(f"/v1/numbers/{WHO}")
            assert again.json() == {"erased": {}}


def test_every_table_is_either_erased_from_or_known_to_hold_no_number() -> None:
    """Whoever adds a table says which."""
    with_number = {name for name, table in metadata.tables.items() if "number" in table.columns}
    assert metadata.tables.keys() == with_number | SEARCHED | WITHOUT_NUMBERS
    assert not with_number & (SEARCHED | WITHOUT_NUMBERS)


SAID: dict[str, Callable[[str], dict[str, Any]]] = {
    "body": lambda number: {"method": "POST", "content": f'{{"to": "{number}", broken'},
    "query": lambda number: {"method": "GET", "params": {"to": number, "id": "7"}},
    "headers": lambda number: {"method": "POST", "content": f"{{{number[-1]}", "headers": {"X-Recipient": number}},
}
"""Where a callback that cannot be read, or proves nothing, may name somebody."""


@pytest.mark.parametrize(("table", "token"), [("unread", "right"), ("refused", "wrong")])
@pytest.mark.parametrize("where", SAID)
async def test_a_callback_that_was_kept_is_forgotten_wherever_in_it_the_number_stands(
    start: Start, where: str, table: str, token: str
) -> None:
    async with start(gateways={"native": {"secrets": ["right"]}}) as service:
        for number in (WHO, OTHER):
            said = SAID[where](number)
            said["headers"] = said.get("headers", {}) | {"X-Sendable-Token": token}
            await service.client.request(url="/v1/receipts/native", **said)
        await service.app.state.refusals.write()
        assert await columns_that_hold(service, DIGITS) == {(table, where)}
        assert (await service.client.delete(f"/v1/numbers/{WHO}")).json()["erased"] == {table: 1}
        assert await columns_that_hold(service, DIGITS) == set()
        assert await columns_that_hold(service, OTHER[1:]) == {(table, where)}


# Kept opted out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["call", "file"])
@pytest.mark.parametrize("had_left", [True, False])
async def test_an_old_opt_in_is_refused_after_an_erasure_and_a_new_one_taken(
    service: Service, how: str, *, had_left: bool
) -> None:
    async def come(at: str) -> str | None:
        if how == "call":
            answer = (await opt_in(service, WHO, at)).json()
            return None if answer["consent"] == "opted_in" else str(answer["reason"])
        rows = f"number,consented_at,source\n{WHO},{at},web form\n"
        told = (await service.client.post(SPRING, content=rows)).json()
        return None if told["opted_in"] or told["already"] else ",".join(told["reasons"])

    await opt_in(service, WHO)
    if had_left:
        await service.client.delete(f"{SPRING}/{WHO}", params={"at": "2026-04-01T00:00:00Z"})
    await service.client.delete(f"/v1/numbers/{WHO}")
    erased = datetime.now(UTC)
    assert await come("2026-03-02T09:15:00Z") == "erased"
    assert await come((erased - timedelta(seconds=5)).isoformat()) == "erased"
    assert await service.sql("SELECT count(*) FROM published.sendable") == [(0,)]
    assert await service.sql("SELECT reason FROM published.opt_outs") == [("erased",)]
    receipt = {"message_id": "m", "number": WHO, "sender": "12345", "status": "delivered"}
    await service.client.post("/v1/receipts/native", json=receipt)
    assert await come("2026-03-02T09:15:00Z") == "erased"
    assert await come((erased + timedelta(seconds=1)).isoformat()) is None
    assert await service.sql("SELECT number, list FROM published.sendable") == [(WHO, "spring")]


async def test_whoever_is_erased_again_is_out_since_then(service: Service) -> None:
    """An opt-in that was given between the two is older than the newer one."""
    await service.client.delete(f"/v1/numbers/{WHO}")
    between = datetime.now(UTC).isoformat()
    assert (await opt_in(service, WHO, between)).status_code == 200
    await service.client.delete(f"/v1/numbers/{WHO}")
    assert (await opt_in(service, WHO, between)).json()["reason"] == "erased"
    assert await service.sql("SELECT count(*) FROM published.sendable") == [(0,)]


async def test_an_opt_in_that_was_there_is_no_newer_one_by_whatever_clock_it_was_dated(service: Service) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=4)
    assert (await opt_in(service, WHO, ahead.isoformat())).status_code == 200
    await service.client.delete(f"/v1/numbers/{WHO}")
    assert (await opt_in(service, WHO, ahead.isoformat())).json().get("reason") == "erased"
    assert (await opt_in(service, WHO, (ahead + timedelta(seconds=1)).isoformat())).status_code == 200


async def test_others_are_not_touched_by_an_erasure(service: Service) -> None:
    await opt_in(service, WHO)
    await service.client.delete(f"/v1/numbers/{WHO}")
    assert (await opt_in(service, OTHER, "2020-01-01T00:00:00Z")).status_code == 200


async def test_what_is_kept_is_an_hmac_under_a_key_of_this_database(service: Service) -> None:
    await service.client.delete(f"/v1/numbers/{WHO}")
    ((inner, outer),) = await service.sql("SELECT inner_pad, outer_pad FROM erasure_key")
    ((digest, at),) = await service.sql("SELECT digest, at FROM erased")
    key = bytes(byte ^ 0x36 for byte in inner)
    assert bytes(digest) == hmac.new(key, WHO.encode(), hashlib.sha256).digest()
    assert (bytes(byte ^ 0x5C for byte in outer), len(key), len({*key}) > 20) == (key, 64, True)
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
    await service.client.delete(f"/v1/numbers/{OTHER}")
    assert await service.sql("SELECT inner_pad FROM erasure_key") == [(inner,)]


@pytest.mark.parametrize("provider", [True, False])
async def test_a_new_number_that_a_file_tells_of_another_is_forgotten_there(start: Start, *, provider: bool) -> None:
    """Where it stands as a hint, in the facts, the lookups and the history of who gave a number up for it."""
    async with start(**({"lookup": {}} if provider else {})) as service:
        await opt_in(service, OTHER)
        await opt_in(service, "+14155550003")
        rows = f"{OTHER},TRANSFER,2026-11-19,{WHO}\n+14155550003,TRANSFER,2026-11-19,+442079460018\n"
        file = f"number,type,date,new number\n{rows}"
        await service.client.post("/v1/deactivations/records", content=file, params={"yes": True})
        hinted = {("numbers", "facts"), ("numbers", "steps"), ("changes", "cause")}
        hinted |= {("lookups", "cause")} if provider else set()
        assert await columns_that_hold(service, WHO[1:]) == hinted
        before = await told_of(service, "+14155550003")
        erased = (await service.client.delete(f"/v1/numbers/{WHO}")).json()["erased"]
        assert erased == {"hints": 2 if provider else 3}  # its facts, the change of its state, of its consent
        assert await columns_that_hold(service, WHO[1:]) == set()
        told, history, _ = await told_of(service, OTHER)
        assert (told["state"], history[0]["cause"]["evidence"]) == ("deactivated", "now a number that was erased")
        assert await told_of(service, "+14155550003") == before
        assert (await service.client.delete(f"/v1/numbers/{WHO}")).json() == {"erased": {}}


async def test_roll_ups_forget_the_number_too(service: Service) -> None:
    for number in (WHO, OTHER):
        await opt_in(service, number)
        await service.client.delete(f"{SPRING}/{number}", params={"at": "2026-11-10T10:30:00Z"})
    await service.client.delete(f"/v1/numbers/{WHO}")
    frame = {"from": "2026-11-10T10:00:00Z", "to": "2026-11-10T11:00:00Z"}
    assert (await service.client.get("/v1/reports/opt-outs", params=frame)).json()["total"] == 1
    (spring,) = (await service.client.get("/v1/lists")).json()["items"]
    assert (spring["subscribers"], spring["opted_out"]) == (0, 1)


# While others write ------------------------------------------------------------------------------------------------


async def test_a_receipt_that_waits_for_the_number_is_taken_after_the_erasure(service: Service) -> None:
    """And an opt-in that waits sees that the number was erased."""
    await opt_in(service, WHO)
    receipt = {"message_id": "m", "number": WHO, "sender": "12345", "status": "undeliverable", "code": "560"}
    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers WHERE number = :number FOR UPDATE"), {"number": WHO})
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 1, erasing)
        others = [asyncio.create_task(service.client.post("/v1/receipts/native", json=receipt)),
                  asyncio.create_task(opt_in(service, WHO))]  # fmt: skip
        await waiting(service, 3, *others)
    assert (await erasing).status_code == 200
    assert [(await task).status_code for task in others] == [200, 409]
    assert await service.sql("SELECT sender, reason FROM published.sender_blocks") == [
        ("12345", "carrier_blocked_subscriber")
    ]
    assert await service.sql("SELECT consent FROM subscriptions") == [("opted_out",)]


async def test_a_receipt_that_waits_for_a_name_and_is_on_its_way_is_erased_with_the_number(service: Service) -> None:
    """It has the number's lock, and is committed behind the first look for what waits."""
    await opt_in(service, WHO)
    nameless = {"message_id": "m", "number": WHO, "status": "undeliverable", "code": "560"}
    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": FEED_LOCK})
        posting = asyncio.create_task(service.client.post("/v1/receipts/native", json=nameless))
        await waiting(service, 1, posting)
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 2, posting, erasing)
    assert (await posting).status_code == 200
    assert (await erasing).json()["erased"]["unnamed"] == 1
    assert await columns_that_hold(service, DIGITS) == set()


@pytest.mark.parametrize("by", ["a person", "time"])
async def test_whoever_has_looked_for_the_number_and_waits_for_its_lock_does_not_bring_it_back(
    service: Service, by: str
) -> None:
    """Who releases what a code holds, and the telling of lapses."""
    state = service.app.state
    for number in (WHO, OTHER):
        receipt = {"message_id": number[-4:], "number": number, "status": "undeliverable", "code": "345"}
        await service.client.post("/v1/receipts/native", json=receipt)
    if by == "time":
        await service.sql("UPDATE numbers SET until = now() - interval '1 second'")
    async with state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers WHERE number = :number FOR UPDATE"), {"number": WHO})
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 1, erasing)
        if by == "time":
            acting = asyncio.create_task(upkeep.tell_lapses(state.engine, state.meaning.policy, datetime.now(UTC)))
        else:
            acting = asyncio.create_task(held.release(state.engine, Which(code="345"), state.meaning.policy, "test"))
        await waiting(service, 2, erasing, acting)
    assert (await erasing).status_code == 200
    assert await acting >= 1
    assert await columns_that_hold(service, DIGITS) == set()
    assert await service.sql("SELECT number FROM numbers") == [(OTHER,)]


@pytest.mark.parametrize("table", ["import_lines", "breaker_hits", "rnd_checks"])
async def test_whoever_holds_a_waiting_line_of_the_number_and_then_needs_its_lock_ends_in_no_deadlock(
    service: Service, table: str
) -> None:
    await opt_in(service, WHO)
    values = {
        "import_lines": "(import, line, number, sender, list, consented_at, source) "
        "VALUES (gen_random_uuid(), 2, :n, '1', 'x', now(), 'x')",
        "breaker_hits": "(key, number, at) VALUES ('k', :n, now())",
        "rnd_checks": "(number, consented_on, asked_at, via) VALUES (:n, now(), now(), 'file')",
    }
    await service.sql(f"INSERT INTO {table} {values[table]} RETURNING 1", n=WHO)
    async with service.app.state.engine.begin() as db:
        await db.execute(text(f"SELECT FROM {table} WHERE number = :n FOR UPDATE"), {"n": WHO})
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 1, erasing)
        await db.execute(text("SELECT FROM numbers WHERE number = :n FOR UPDATE"), {"n": WHO})
    answer = await erasing
    assert (answer.status_code, answer.json()["erased"]) == (
        200, {"numbers": 1, "subscriptions": 1, "changes": 2, table: 1},
    )  # fmt: skip


@pytest.mark.parametrize("table", ["messages", "breaker_hits"])
async def test_several_rows_of_a_number_are_erased_in_the_order_in_which_a_group_of_receipts_takes_them(
    service: Service, table: str
) -> None:
    """Else each would have what the other still needs: here the later one lies first in its table."""
    sent = {"gateway": "native", "number": WHO, "sender": "12345", "sent_at": "2026-11-01T00:00:00Z"}
    failed = {"number": WHO, "sender": "12345", "status": "undeliverable"}
    if table == "messages":
        for name in ("b", "a"):
            await service.client.post("/v1/messages", json=[sent | {"message_id": name}])
        batch, first = [{"message_id": name, "status": "delivered"} for name in ("a", "b")], "message_id = 'a'"
    else:
        for code in ("568", "560"):
            await service.client.post("/v1/receipts/native", json=failed | {"message_id": code, "code": code})
        batch = [failed | {"message_id": f"again {code}", "code": code} for code in ("560", "568")]
        first = "strpos(key, '560') > 0"
    async with service.app.state.engine.begin() as db:
        await db.execute(text(f"SELECT FROM {table} WHERE {first} FOR UPDATE"))
        posting = asyncio.create_task(service.client.post("/v1/receipts/native", json=batch))
        await waiting(service, 1, posting)
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 2, posting, erasing)
    assert (await posting).status_code == (await erasing).status_code == 200
    assert (await erasing).json()["erased"][table] == 2
    assert await columns_that_hold(service, DIGITS) == set()


async def test_a_registration_that_comes_behind_the_first_look_and_needs_the_number_ends_in_no_deadlock(
    service: Service,
) -> None:
    """It holds its message, which is there by now, and waits for the number, which the erasure has first."""
    sent = {"gateway": "native", "message_id": "m", "number": WHO, "sender": "12345", "sent_at": "2026-11-01T00:00:00Z"}
    await opt_in(service, WHO)
    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers WHERE number = :n FOR UPDATE"), {"n": WHO})
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 1, erasing)
        assert (await service.client.post("/v1/messages", json=[sent])).status_code == 200
        again = asyncio.create_task(service.client.post("/v1/messages", json=[sent | {"carrier": "T-Mobile"}]))
        await waiting(service, 2, erasing, again)
    assert (await again).status_code == 200
    answer = await erasing
    assert (answer.status_code, answer.json()["erased"]) == (
        200, {"numbers": 1, "subscriptions": 1, "changes": 3, "messages": 1},
    )  # fmt: skip
    assert await columns_that_hold(service, DIGITS) == set()


async def test_an_erasure_that_gives_way_gives_back_what_it_had_deleted_too(service: Service) -> None:
    """Whoever holds a message may need a hit of the breaker before the number."""
    sent = {"gateway": "native", "message_id": "m", "number": WHO, "sender": "12345", "sent_at": "2026-11-01T00:00:00Z"}
    await opt_in(service, WHO)
    await service.sql("INSERT INTO breaker_hits (key, number, at) VALUES ('k', :n, now())", n=WHO)

    async def act() -> None:
        async with service.app.state.engine.begin() as db:
            for held in ("messages", "breaker_hits", "numbers"):
                await db.execute(text(f"SELECT FROM {held} WHERE number = :n FOR UPDATE"), {"n": WHO})

    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers WHERE number = :n FOR UPDATE"), {"n": WHO})
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 1, erasing)
        assert (await service.client.post("/v1/messages", json=[sent])).status_code == 200
        acting = asyncio.create_task(act())
        await waiting(service, 2, erasing, acting)
    await acting
    answer = await erasing
    assert (answer.status_code, answer.json()["erased"]) == (
        200, {"numbers": 1, "subscriptions": 1, "changes": 2, "messages": 1, "breaker_hits": 1},
    )  # fmt: skip


@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("by_call", [True, False])
async def test_an_answer_that_was_on_its_way_does_not_bring_the_number_back(
    start: Start, tries: int, *, by_call: bool
) -> None:
    """It is about nobody any more. What it cost counts for the day."""
    go = asyncio.Event()

    def says(number: str) -> Reply:
        fails = provider.calls[number] < tries
        return Reply(telnyx(number, "Verizon Wireless", on=today()), status=503 if fails else 200, after=go)

    async with answering(says) as provider, start(lookup=provider.settings()) as service:
        await opt_in(service, WHO)
        failed = {"message_id": "m", "number": WHO, "sender": "12345", "status": "undeliverable", "code": "3041"}
        call = ("numbers/" + WHO + "/lookup", {}) if by_call else ("receipts/native", failed)
        asking = asyncio.create_task(service.client.post(f"/v1/{call[0]}", json=call[1]))
        await provider.asked.wait()
        assert (await service.client.delete(f"/v1/numbers/{WHO}")).json()["erased"]["lookup_spend"] == 1
        go.set()
        assert (await asking).status_code == 200
        while service.app.state.lookups._flights:
            await asyncio.sleep(0.01)
        assert provider.calls == {WHO: tries}
        assert await columns_that_hold(service, DIGITS) == set()
        assert await service.sql("SELECT spent FROM lookup_days") == [(Decimal("0.01") * tries,)]


@pytest.mark.parametrize("receipts", [1, 3])
async def test_a_callback_that_is_being_read_again_does_not_bring_the_number_back(
    start: Start, monkeypatch: pytest.MonkeyPatch, receipts: int
) -> None:
    """It was fetched before the erasure, and waits to be committed, whole or in parts."""
    monkeypatch.setattr(unread, "GROUP_MOST", 2)
    berlin = "+4930555012"
    async with start() as service:
        failed = {"number": "030 555012", "sender": "12345", "status": "undeliverable", "code": "629"}
        for place in range(receipts):
            await service.client.post("/v1/receipts/native", json=failed | {"message_id": f"m{place}"})
        ids = await service.sql("SELECT array_agg(encode(body, 'escape')) FROM unread")
        whole = f"[{','.join(ids[0][0])}]"
        await service.sql("DELETE FROM unread WHERE id > 1")
        await service.sql("UPDATE unread SET body = convert_to(:whole, 'UTF8')", whole=whole)
    async with start(region="DE") as service:
        await opt_in(service, berlin)
        async with service.app.state.engine.begin() as db:
            await db.execute(text("SELECT FROM numbers WHERE number = :n FOR UPDATE"), {"n": berlin})
            erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{berlin}"))
            await waiting(service, 1, erasing)
            reading = asyncio.create_task(service.client.post("/v1/unread/replay", json={"all": True}))
            await waiting(service, 2, erasing, reading)
        assert (await erasing).json()["erased"]["unread"] == 1
        assert (await reading).json() == {"read": 0, "receipts": 0, "left": 0}
        assert await columns_that_hold(service, "30555012") == set()


THIRD = "+14155550003"
FILE = f"""number,type,new number
{WHO},DEACT,
{THIRD},TRANSFER,{WHO}
{OTHER},DEACT,
{WHO},SUSPEND,
{OTHER},TRANSFER,{WHO}
"""


async def test_a_number_that_is_erased_while_a_file_lies_half_read_does_not_come_back_with_it(service: Service) -> None:
    """Neither with the lines that were read before, nor with those that are read after it."""
    engine, raw = service.app.state.engine, io.BytesIO(FILE.encode())
    for number in (WHO, OTHER, THIRD):
        await opt_in(service, number)
    async with importing._own_connection(engine) as db:
        given = importing._given(Order(FEEDS["records"], raw))
        begun = await files.prepare(db, await files.begin(db, given, datetime.now(UTC)))
        lines = [(2, WHO, "DEACT", None, None, None, None, None), (3, THIRD, "TRANSFER", None, None, None, WHO, None)]
        await files.stage(db, begun, lines, [], 3)
    assert ("feed_lines_1", "number") in await columns_that_hold(service, DIGITS)
    erased = (await service.client.delete(f"/v1/numbers/{WHO}")).json()["erased"]
    assert erased["feed_lines"] == 2
    assert await columns_that_hold(service, DIGITS) == set()
    told = (await service.client.post("/v1/deactivations/records", content=FILE, params={"yes": True})).json()
    assert (told["already"], told["records"], told["broken"], told["opted_out"]) == (False, 5, 0, 2)
    assert await columns_that_hold(service, DIGITS) == set()
    assert await service.sql("SELECT number, state FROM published.number_status ORDER BY 1") == [
        (OTHER, "deactivated"), (THIRD, "deactivated"),
    ]  # fmt: skip
    old = await opt_in(service, WHO)
    assert (old.status_code, old.json()["reason"]) == (409, "erased")


async def test_it_works_where_an_administrator_keeps_our_tables_in_another_schema_than_public(
    start: Start, database_url: str
) -> None:
    async with start() as service:
        await service.sql("ALTER SCHEMA public RENAME TO ours")
        await service.sql(f"ALTER DATABASE {make_url(database_url).database} SET search_path = ours")
    async with start() as service:
        await opt_in(service, WHO)
        await service.sql("CREATE TABLE feed_lines_7 (number text, new_number text)")
        await service.sql("INSERT INTO feed_lines_7 VALUES (:number)", number=WHO)
        erased = (await service.client.delete(f"/v1/numbers/{WHO}")).json()["erased"]
        assert (erased["feed_lines"], erased["numbers"]) == (1, 1)


async def test_a_number_that_is_erased_while_a_file_is_acted_on_does_not_come_back_with_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line was matched already, and waits for the numbers before it."""
    monkeypatch.setattr(importing, "ACTED_AT_ONCE", 1)
    for number in (WHO, OTHER):
        await opt_in(service, number)
    first = min(WHO, OTHER, "+13155550000")
    await opt_in(service, first)
    file = f"{first}\n{WHO}\n{OTHER}"
    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers WHERE number = :n FOR UPDATE"), {"n": first})
        post = service.client.post("/v1/deactivations/twilio", content=file, params={"yes": True})
        importing_ = asyncio.create_task(post)
        await waiting(service, 1, importing_)
        erasing = asyncio.create_task(service.client.delete(f"/v1/numbers/{WHO}"))
        await waiting(service, 2, importing_, erasing)
    assert (await erasing).status_code == 200
    assert (await importing_).json()["opted_out"] == 2
    assert await columns_that_hold(service, DIGITS) == set()
    assert await service.sql("SELECT number, state FROM published.number_status ORDER BY 1") == [
        (first, "deactivated"), (OTHER, "deactivated"),
    ]  # fmt: skip


# How numbers are written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "held"), [
    ("+14155550001", True), ("x=14155550001&", True), ("4155550001", True), ("(415) 555-0001", True),
    ("to=%2B14155550001", True), ("%2014155550001", True), ("001 415.555.0001", True), ("415%20555%200001", True),
    ("01114155550001", True), ("011 1 415 555 0001", True), ("415 \u2013 555\u20110001", True),
    (r"415\302\240555\342\200\2210001", True), (r"\35114155550001", True), (r"\00014155550001", True),
    (r"4\0001\0005\0005\0005\0005\0000\0000\0000\0001\000", True), (r"415\\u00a0555\\u20110001", True),
    ("991415555000177", False), ("24155550001", False), ("41555500012", False), ("4155550002", False),
])  # fmt: skip
def test_a_number_is_found_in_whatever_form_it_was_written(said: str, *, held: bool) -> None:
    assert bool(re.search(written(WHO), said)) is held


@pytest.mark.parametrize("body", [
    '{"to": "(415)\u00a0555\u20110001", broken'.encode(), "{é4155550001".encode(), "{é14155550001".encode("latin-1"),
    '{"to": "+14155550001", broken'.encode("utf-16-le"), '{"to": "+14155550001", broken'.encode("utf-16-be"),
    b'{"to": "415\\u00a0555\\u20110001", broken', b'{"to": "01114155550001", broken',
])  # fmt: skip
async def test_bytes_that_are_no_ascii_hide_no_number(service: Service, body: bytes) -> None:
    answer = await service.client.post("/v1/receipts/native", content=body)
    assert answer.headers["sendable-unread"] == "1"
    assert (await service.client.delete(f"/v1/numbers/{OTHER}")).json() == {"erased": {}}
    assert (await service.client.delete(f"/v1/numbers/{WHO}")).json() == {"erased": {"unread": 1}}


@pytest.mark.parametrize(("said", "held"), [("+500 12345", True), ("50012345", True), ("12345", False)])
def test_a_short_number_is_found_with_its_country_alone(said: str, *, held: bool) -> None:
    """Without it, every callback that names a short code of the same digits would go."""
    assert bool(re.search(written("+50012345"), said)) is held


def test_numbers_of_other_countries_are_found_with_and_without_their_country() -> None:
    assert all(
        re.search(written("+447700900123"), said) for said in ("07700 900123", "+44 7700 900123", "447700900123")
    )


@pytest.mark.parametrize(("number", "said"), [
    ("+79161234567", "89161234567"), ("+36201234567", "06201234567"), ("+375294911911", "80294911911"),
    ("+525512345678", "5215512345678"), ("+4915132846098", "004915132846098"),
])  # fmt: skip
def test_a_number_is_found_behind_what_its_country_writes_in_front_of_it(number: str, said: str) -> None:
    assert re.search(written(number), said)
    assert not re.search(written(number), "9" + said)


# By whom -----------------------------------------------------------------------------------------------------------


async def test_only_an_admin_may_erase(start: Start) -> None:
    async with start(auth="on", first_key="a-first-key-of-at-least-24-characters") as service:
        path = f"/v1/numbers/{WHO}"
        assert (await service.client.delete(path)).status_code == 401
        headers = {"authorization": "Bearer a-first-key-of-at-least-24-characters"}
        assert (await service.client.delete(path, headers=headers)).status_code == 200


async def test_a_number_is_erased_by_command(service: Service, database_url: str) -> None:
    await opt_in(service, WHO)
    said = await sendable("erase", "(415) 555-0001", "--yes", "--json", database_url=database_url)
    assert (said.code, json.loads(said.out)["erased"]["subscriptions"]) == (0, 1)
    assert await columns_that_hold(service, DIGITS) == set()
    wrong = await sendable("erase", "12", "--yes", database_url=database_url)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
