"""What others read back: receipts, the subscribers of a list, the catalogue, alarms, what could not be read."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.services import reading
from tests.conftest import Service, Start
from tests.number_steps import WHO, post


def receipt(place: int = 1, **said: Any) -> dict[str, Any]:
    return {
        "message_id": f"m{place}", "number": f"+1415555{place:04}", "sender": "12345", "status": "delivered",
    } | said  # fmt: skip


async def whole(service: Service, path: str, **query: Any) -> list[Any]:
    """All pages of a call, one behind the other."""
    items, page = [], await service.get(path, **query)
    while page["next"] is not None:
        items += page["items"]
        page = await service.get(path, **query, after=page["next"])
    return items + page["items"]


# Receipts ----------------------------------------------------------------------------------------------------------


async def test_a_stored_receipt_is_told_as_it_came(service: Service) -> None:
    await post(service, receipt(status="undeliverable", code="00560", carrier="Verizon Wireless", mcc="311", mnc="480",
                                segment=2, occurred_at="2026-11-20T10:00:00Z"))  # fmt: skip
    (only,) = (await service.get("/v1/receipts"))["items"]
    received = datetime.fromisoformat(only.pop("received_at"))
    assert abs(received - datetime.now(UTC)) < timedelta(minutes=1)
    assert only == {
        "gateway": "native", "account": None, "message_id": "m1", "number": "+14155550001", "sender": "12345",
        "status": "undeliverable", "code_space": "openmarket", "code": "00560", "reason": "carrier_blocked_subscriber",
        "carrier": "Verizon Wireless", "mcc": "311", "mnc": "480", "segment": 2, "occurred_at": "2026-11-20T10:00:00Z",
    }  # fmt: skip


async def test_receipts_are_found_by_message_number_and_gateway(service: Service) -> None:
    await post(service, receipt(1), receipt(1, status="sent"), receipt(2), receipt(3, message_id="m1"))
    found = [
        {(item["message_id"], item["number"][-1]) for item in (await service.get("/v1/receipts", **query))["items"]}
        for query in (
            {"message_id": "m1"}, {"number": "415 555 0001"}, {"message_id": "m1", "number": "+14155550003"},
            {"gateway": "native", "message_id": "m2"}, {"gateway": "twilio"}, {"message_id": "never"},
        )
    ]  # fmt: skip
    assert found == [{("m1", "1"), ("m1", "3")}, {("m1", "1")}, {("m1", "3")}, {("m2", "2")}, set(), set()]


@pytest.mark.parametrize("query", [{}, {"gateway": "native"}, {"number": "+14155550001"}])
async def test_receipts_go_by_pages_newest_first(service: Service, query: dict[str, str]) -> None:
    for turn in range(3):
        await post(service, *(receipt(1, message_id=f"m{turn}-{place}") for place in range(5)))
    items = await whole(service, "/v1/receipts", limit=4, **query)
    assert len({item["message_id"] for item in items}) == len(items) == 15
    assert [item["message_id"][1] for item in items] == ["2"] * 5 + ["1"] * 5 + ["0"] * 5


async def test_the_newest_are_found_even_when_they_are_old(service: Service) -> None:
    await post(service, receipt(1))
    yesterday = (
        "INSERT INTO receipts SELECT (r).* FROM (SELECT jsonb_populate_record(r, jsonb_build_object('received_at',"
    )
    await service.sql(
        f"{yesterday} r.received_at - interval '20 hours', 'message_id', 'old')) r FROM receipts r) a RETURNING 1"
    )
    assert [item["message_id"] for item in await whole(service, "/v1/receipts", limit=1)] == ["m1", "old"]


# Subscribers -------------------------------------------------------------------------------------------------------

SPRING = "/v1/senders/12345/lists/spring/subscribers"


async def subscribe(service: Service, *places: int, path: str = SPRING) -> None:
    call = {"consented_at": "2026-03-02T09:15:00Z", "source": "web form"}
    for place in places:
        put = await service.client.put(f"{path}/+1415555{place:04}", json=call)
        assert put.json()["consent"] == "opted_in"


async def a_list_of_every_kind(service: Service) -> None:
    """1 as opted in, 2 opted out, 3 suspended, 4 deactivated, 5 blocked; 6 on another list."""
    await subscribe(service, 1, 2, 3, 4, 5)
    await subscribe(service, 6, path="/v1/senders/12345/lists/summer/subscribers")
    await subscribe(service, 7, path="/v1/senders/67890/lists/spring/subscribers")
    await service.client.delete(f"{SPRING}/+14155550002", params={"at": "2026-04-01T00:00:00Z"})
    ((space, code),) = await service.sql("SELECT space, code FROM codes WHERE reason = 'suspended' LIMIT 1")
    failed = {"status": "undeliverable"}
    await post(service, receipt(3, **failed, code=code, code_space=space), receipt(4, **failed, code="3041"),
               receipt(5, **failed, code="592"))  # fmt: skip


async def test_a_list_names_every_subscriber_and_keeps_the_suspended(start: Start) -> None:
    async with start(lookup={}) as service:
        await a_list_of_every_kind(service)
        items = (await service.get(SPRING))["items"]
        assert [(i["number"][-1], i["consent"], i["state"], i["sendable"], i["reason"]) for i in items] == [
            ("1", "opted_in", "active", True, None),
            ("2", "opted_out", "active", False, "unsubscribed"),
            ("3", "opted_in", "suspended", False, "suspended"),
            ("4", "opted_in", "deactivated", False, "deactivated"),
            ("5", "opted_in", "active", False, "network_not_covered"),
        ]
        assert [i["at"] for i in items[:2]] == ["2026-03-02T09:15:00Z", "2026-04-01T00:00:00Z"]
        for item in items:
            told = await service.get(f"/v1/numbers/{item['number']}", sender="12345", list="spring")
            assert item == {"number": item["number"], "state": told["state"]} | {
                name: told["lists"][0][name] for name in ("consent", "sendable", "reason", "at")
            }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"consent": "opted_in"}, "1345"),
        ({"consent": "opted_out"}, "2"),
        ({"state": "suspended"}, "3"),
        ({"sendable": "true"}, "1"),
        ({"sendable": "false", "consent": "opted_in"}, "345"),
        ({"state": "active", "sendable": "false"}, "25"),
        ({"state": "porting"}, ""),
    ],
)
async def test_a_list_is_filtered(start: Start, query: dict[str, str], found: str) -> None:
    async with start(lookup={}) as service:
        await a_list_of_every_kind(service)
        for limit in (1, 1_000):
            items = await whole(service, SPRING, limit=limit, **query)
            assert "".join(item["number"][-1] for item in items) == found
        if query == {"sendable": "true"}:
            view = "SELECT number FROM published.sendable WHERE sender = '12345' AND list = 'spring'"
            assert [(item["number"],) for item in items] == await service.sql(view)


async def test_a_block_of_one_sender_stops_no_other_for_any_reader(service: Service) -> None:
    other = "/v1/senders/67890/lists/spring/subscribers"
    for path in (SPRING, other):
        await subscribe(service, 1, path=path)
    await post(service, receipt(1, status="undeliverable", code="592"))
    told = {path: (await service.get(path))["items"][0] for path in (SPRING, other)}
    assert [(one["sendable"], one["reason"]) for one in told.values()] == [(False, "network_not_covered"), (True, None)]
    sizes = {one["sender"]: (one["subscribers"], one["sendable"]) for one in (await service.get("/v1/lists"))["items"]}
    assert sizes == {"12345": (1, 0), "67890": (1, 1)}
    assert await service.sql("SELECT sender FROM published.sendable") == [("67890",)]
    lists = (await service.get("/v1/numbers/+14155550001"))["lists"]
    assert {one["sender"]: one["sendable"] for one in lists} == {"12345": False, "67890": True}


@pytest.mark.parametrize("query", ["consent=maybe", "state=fine", "sendable=perhaps", "limit=0", "after=x"])
async def test_a_filter_that_is_none_is_422(service: Service, query: str) -> None:
    answer = await service.client.get(f"{SPRING}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, query.partition("=")[0])


async def test_a_whole_list_is_streamed_as_lines_and_as_a_table(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AT_ONCE", 2)
    await subscribe(service, *range(1, 8))
    items = (await service.get(SPRING))["items"]
    lines = await service.client.get(SPRING, headers={"accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()] == items
    table = await service.client.get(SPRING, headers={"accept": "text/csv, */*;q=0.1"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    rows = [*csv.DictReader(io.StringIO(table.text))]
    assert rows == [item | {"sendable": "true", "reason": ""} for item in items]


async def test_an_empty_list_is_empty_in_every_form(service: Service) -> None:
    assert await service.get(SPRING) == {"items": [], "next": None}
    assert (await service.client.get(SPRING, headers={"accept": "application/x-ndjson"})).text == ""
    table = await service.client.get(SPRING, headers={"accept": "text/csv"})
    assert table.text == "number,consent,state,sendable,reason,at\r\n"


# The catalogue -----------------------------------------------------------------------------------------------------


async def test_a_code_tells_its_meaning_and_the_rule_in_force(service: Service) -> None:
    code = await service.get("/v1/codes/openmarket/3041")
    assert (code["reason"], code["level"], code["confidence"]) == ("deactivated", "number", "verified")
    assert code["meaning"]
    assert code["source"]
    assert code["rule"]["state"] == "deactivated"
    assert code["rule"]["lookup"] is True
    assert (await service.get("/v1/codes/openmarket/341"))["rule"]["alone_lapse"] == "1d"


async def test_a_code_is_found_without_its_leading_zeros_where_the_space_is_numeric(service: Service) -> None:
    assert (await service.get("/v1/codes/openmarket/000560"))["code"] == "560"


@pytest.mark.parametrize("path", ["/v1/codes/openmarket/none", "/v1/codes/nobody/1", "/v1/codes?space=nobody"])
async def test_what_no_table_holds_is_404(service: Service, path: str) -> None:
    answer = await service.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_the_catalogue_is_told_whole_or_by_space_as_the_view_holds_it(service: Service) -> None:
    every = (await service.get("/v1/codes"))["items"]
    columns = ("space", "code", "meaning", "level", "permanence", "reason", "confidence", "source")
    view = await service.sql(f"SELECT {', '.join(columns)} FROM published.codes")  # noqa: S608
    assert {tuple(code[name] for name in columns) for code in every} == set(view)
    twilio = (await service.get("/v1/codes", space="twilio"))["items"]
    assert twilio == [code for code in every if code["space"] == "twilio"]


async def test_every_code_can_be_asked_for_by_its_own_name(service: Service) -> None:
    for code in (await service.get("/v1/codes"))["items"]:
        meaning = service.app.state.meaning.catalogue.find(code["space"], code["code"])
        assert meaning.code == code["code"]


async def test_an_override_shows_in_the_rule(start: Start, tmp_path: Any) -> None:
    (tmp_path / "policy.toml").write_text('[rules.suspended]\nlapse = "7d"\n')
    async with start(policy_file=tmp_path / "policy.toml") as service:
        (code,) = [c for c in (await service.get("/v1/codes"))["items"] if c["reason"] == "suspended"][:1]
        assert code["rule"]["lapse"] == "7d"


# For people --------------------------------------------------------------------------------------------------------


async def test_what_providers_said_is_told_newest_first_and_by_pages(service: Service) -> None:
    await service.sql("""INSERT INTO lookup_answers (number, asked_at, provider, outcome, detail, price, config)
        SELECT who, timestamptz '2026-11-01' + make_interval(hours => n), 'telnyx', 'ok', 'answer ' || n, 0, ''
        FROM generate_series(1, 5) n, unnest(ARRAY['+14155550001', '+14155550002']) who""")
    seen, query = [], {"number": "+14155550001", "limit": 2}
    while True:
        page = await service.get("/v1/lookups", **query)
        seen.append([one["detail"] for one in page["items"]])
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert seen == [["answer 5", "answer 4"], ["answer 3", "answer 2"], ["answer 1"]]


async def test_alarms_that_stand_come_first(service: Service) -> None:
    for code in ("A1", "A2", "A2"):
        await post(
            service, receipt(status="undeliverable", code=code, message_id=f"m-{code}-{len(code)}-{id(object())}")
        )
    await service.sql("UPDATE alarms SET cleared_at = now() WHERE key LIKE '%A2' RETURNING 1")
    first, second = (await service.get("/v1/alarms"))["items"]
    assert (first["kind"], first["key"], first["cleared"]) == ("unknown_code", "native/openmarket/A1", None)
    assert second["key"] == "native/openmarket/A2"
    assert second["cleared"].endswith("Z")
    assert [alarm["key"] for alarm in (await service.get("/v1/alarms", cleared="false"))["items"]] == [first["key"]]


async def test_of_alarms_that_stand_the_one_that_was_last_raised_comes_first(service: Service) -> None:
    for place, code in enumerate(("A1", "A2", "A3", "A1")):
        await post(service, receipt(1, status="undeliverable", code=code, message_id=f"m{place}"))
    keys = [alarm["key"][-2:] for alarm in (await service.get("/v1/alarms"))["items"]]
    assert keys == ["A1", "A3", "A2"]


async def test_an_alarm_counts_up_while_it_stands_and_begins_anew_when_it_comes_back(service: Service) -> None:
    async def raised(*ids: str) -> Any:
        await post(service, *(receipt(1, status="undeliverable", code="A1", message_id=id_) for id_ in ids))
        (alarm,) = (await service.get("/v1/alarms"))["items"]
        return alarm

    first, again = await raised("m1"), await raised("m2", "m3")
    assert (first["count"], again["count"]) == (1, 3)
    assert first["since"] == first["last_at"] == again["since"] < again["last_at"]
    await service.sql("UPDATE alarms SET cleared_at = now() RETURNING 1")
    anew = await raised("m4", "m5")
    assert (anew["count"], anew["cleared"]) == (2, None)
    assert anew["since"] == anew["last_at"] > again["last_at"]


async def test_of_what_could_not_be_read_each_time_counts_that_it_came_also_those_of_one_moment(
    service: Service,
) -> None:
    posts = (service.client.post("/v1/receipts/native", content=b"{]") for _ in range(8))
    assert {answer.headers["sendable-unread"] for answer in await asyncio.gather(*posts)} == {"1"}
    await service.client.post("/v1/receipts/native", content=b"{]")
    (item,) = (await service.get("/v1/unread"))["items"]
    assert item["times"] == 9


async def test_what_could_not_be_read_is_listed_and_given_back_byte_for_byte(service: Service) -> None:
    bodies = [b"\xff\x00 nonsense", b"{]", b"[1]"]
    for body in bodies:
        answer = await service.client.post(
            "/v1/receipts/native", content=body, headers={"x-own": "mark", "x-token": "s"}
        )
        assert answer.headers["sendable-unread"] == "1"
    await service.client.post("/v1/receipts/native", content=bodies[0], headers={"x-own": "mark"})
    items = await whole(service, "/v1/unread", limit=2)
    assert [item["id"] for item in items] == sorted((item["id"] for item in items), reverse=True)
    assert {(item["gateway"], item["account"], item["method"]) for item in items} == {("native", None, "POST")}
    assert [item["times"] for item in items][-1] == 2
    kept = [await service.get(f"/v1/unread/{item['id']}") for item in items]
    assert [b64decode(one["body"]) for one in reversed(kept)][:2] == bodies[:2]
    assert all(one["size"] == len(b64decode(one["body"])) and one["headers"]["x-own"] == "mark" for one in kept)
    assert all("x-token" not in one["headers"] for one in kept)
    assert (await service.client.get("/v1/unread/999999")).status_code == 404


# Who may read ------------------------------------------------------------------------------------------------------

READS = [
    f"/v1/numbers/{WHO}", f"/v1/numbers/{WHO}/history", "/v1/receipts", SPRING, "/v1/codes", "/v1/codes/openmarket/560",
    "/v1/changes", "/v1/alarms",
]  # fmt: skip


async def test_with_auth_on_every_read_asks_for_a_key_of_its_scope(start: Start) -> None:
    first = "a-first-key-of-at-least-24-characters"
    async with start(auth="on", first_key=first) as service:
        for path in [*READS, "/v1/unread", "/v1/unread/1"]:
            refused = await service.client.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
        refused = await service.client.post("/v1/numbers/status", json={"numbers": []})
        assert refused.status_code == 401
