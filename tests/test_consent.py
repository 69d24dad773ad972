"""Consent by call: what the person wants, dated, remembered, and never brought back by anything but the person."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import Service, Start
from tests.locks import waiting

WHO = "+15555551234"


def ago(**span: int) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


async def opt_in(service: Service, list_: str = "spring", sender: str = "12345", at: str | None = None) -> Any:
    call = {"consented_at": at or ago(days=1), "source": "web form", "evidence": "form 7f3a"}
    return await service.client.put(f"/v1/senders/{sender}/lists/{list_}/subscribers/{WHO}", json=call)


async def opt_out(service: Service, list_: str = "spring", sender: str = "12345", **query: str) -> Any:
    return await service.client.delete(f"/v1/senders/{sender}/lists/{list_}/subscribers/{WHO}", params=query)


async def receipt(service: Service, code: str | None, status: str = "undeliverable", **said: Any) -> None:
    body = {"message_id": f"m{datetime.now(UTC).timestamp()}", "number": WHO, "sender": "12345", "status": status}
    answer = await service.client.post("/v1/receipts/native", json=body | {"code": code} | said)
    assert answer.status_code == 200


async def lists(service: Service) -> dict[tuple[str, str], str]:
    told = (await service.client.get(f"/v1/numbers/{WHO}")).json()
    return {(one["sender"], one["list"]): one["consent"] for one in told["lists"]}


async def test_an_opt_in_makes_a_number_active_and_the_list_sendable(service: Service) -> None:
    answer = await opt_in(service, at="2026-11-01T10:00:00Z")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["number"], body["sender"], body["list"], body["consent"]) == (WHO, "12345", "spring", "opted_in")
    assert (datetime.fromisoformat(body["at"]), body["was_blocked"]) == (datetime(2026, 11, 1, 10, tzinfo=UTC), False)
    told = (await service.client.get(f"/v1/numbers/{WHO}", params={"sender": "12345", "list": "spring"})).json()
    assert (told["state"], told["decision"]) == ("active", {"sendable": True, "axis": None, "reason": None})
    assert await service.sql("SELECT number, sender, list FROM published.sendable") == [(WHO, "12345", "spring")]


@pytest.mark.parametrize(("scope", "left"), [
    ("list", {("12345", "fall"), ("67890", "news")}), ("sender", {("67890", "news")}), ("all", set()),
])  # fmt: skip
async def test_an_opt_out_reaches_as_far_as_its_scope(service: Service, scope: str, left: set[tuple[str, str]]) -> None:
    for sender, list_ in (("12345", "spring"), ("12345", "fall"), ("67890", "news")):
        await opt_in(service, list_, sender)
    assert (await opt_out(service, scope=scope)).json()["reason"] == "unsubscribed"
    assert {key for key, consent in (await lists(service)).items() if consent == "opted_in"} == left


@pytest.mark.parametrize("reason", ["STOP", "by phone", "user-request", "auf Wunsch, mündlich"])
async def test_an_opt_out_has_the_reason_that_it_is_given_in_whatever_words(service: Service, reason: str) -> None:
    """A person's STOP that is refused for how somebody writes its reason would be lost."""
    await opt_in(service)
    answer = await opt_out(service, reason=reason)
    assert (answer.status_code, answer.json()["consent"], answer.json()["reason"]) == (200, "opted_out", reason)
    told = (await service.client.get(f"/v1/numbers/{WHO}", params={"sender": "12345", "list": "spring"})).json()
    assert told["decision"] == {"sendable": False, "axis": "consent", "reason": reason}
    report = (await service.client.get("/v1/reports/opt-outs", params={"sender": "12345"})).json()
    assert [one["reason"] for one in report["reasons"]] == [reason]


@pytest.mark.parametrize(("reason", "detail"), [
    (" ", "must not be blank, nor hold NUL characters"), ("x" * 65, "String should have at most 64 characters"),
])  # fmt: skip
async def test_an_opt_out_is_told_what_is_no_reason(service: Service, reason: str, detail: str) -> None:
    answer = await opt_out(service, reason=reason)
    assert (answer.status_code, answer.json()["errors"]) == (422, [{"parameter": "reason", "detail": detail}])


async def test_only_a_newer_opt_in_brings_consent_back(service: Service) -> None:
    await opt_in(service, at=ago(days=3))
    await opt_out(service, at=ago(days=2), reason="stop_keyword")
    refused = await opt_in(service, at=ago(days=2, seconds=1))
    assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
    assert refused.json()["reason"] == "stop_keyword"
    assert (await lists(service))["12345", "spring"] == "opted_out"
    assert (await opt_in(service, at=ago(days=1))).status_code == 200


@pytest.mark.parametrize("how", ["call", "receipt"])
async def test_an_opt_out_is_remembered_where_no_list_exists_yet(service: Service, how: str) -> None:
    if how == "call":
        await opt_out(service, "other", scope="sender")
    else:
        await receipt(service, "603")
    late = await opt_in(service, "imported", at=ago(days=30))
    assert (late.status_code, late.json()["consent"]) == (409, "opted_out")
    assert (await lists(service))["12345", "imported"] == "opted_out"


async def test_a_list_that_a_remembered_opt_out_keeps_shut_is_told_with_that_opt_out(service: Service) -> None:
    await receipt(service, "603", occurred_at=(left := ago(days=1)))
    assert (await opt_in(service, "imported", at=ago(days=30))).status_code == 409
    told = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"][0]
    assert (told["kind"], told["list"], told["reason"]) == ("list.opted_out", "imported", "opted_out")
    assert (told["cause"]["kind"], told["cause"]["code"]) == ("receipt", "603")
    assert datetime.fromisoformat(told["occurred_at"]) == datetime.fromisoformat(left)
    assert await service.sql("SELECT list, code, at FROM published.opt_outs") == [
        ("imported", "603", datetime.fromisoformat(left))
    ]


async def test_a_newer_opt_in_lifts_the_senders_block_and_says_so_and_the_next_receipt_blocks_again(
    service: Service,
) -> None:
    await opt_in(service, at=ago(days=2))
    await receipt(service, "573", occurred_at=ago(days=1))
    back = (await opt_in(service, at=ago(hours=1))).json()
    assert (back["consent"], back["was_blocked"]) == ("opted_in", True)
    assert await service.sql("SELECT count(*) FROM published.sendable") == [(1,)]
    await receipt(service, "573")
    assert await service.sql("SELECT sender, reason FROM published.sender_blocks") == [
        ("12345", "sender_blocked_by_subscriber")
    ]
    assert (await lists(service))["12345", "spring"] == "opted_out"


async def test_a_deactivated_number_comes_back_for_the_list_of_the_new_opt_in_alone(service: Service) -> None:
    await opt_in(service, "spring", at=ago(days=9))
    await opt_in(service, "fall", at=ago(days=9))
    await receipt(service, "3041", occurred_at=ago(days=2))
    assert set((await lists(service)).values()) == {"opted_out"}
    await opt_in(service, "spring", at=ago(days=1))
    told = (await service.client.get(f"/v1/numbers/{WHO}")).json()
    assert told["state"] == "active"
    assert {one["list"]: one["sendable"] for one in told["lists"]} == {"spring": True, "fall": False}
    assert await service.sql("SELECT list FROM published.sendable") == [("spring",)]


async def test_while_a_lookup_is_awaited_the_other_lists_stay_unsendable(start: Start) -> None:
    """Their consent stands, but it is older than the deactivation that no port has disproved."""
    async with start(lookup={}) as service:
        await opt_in(service, "spring", at=ago(days=9))
        await opt_in(service, "fall", at=ago(days=9))
        await receipt(service, "3041", occurred_at=ago(days=2))
        await opt_in(service, "spring", at=ago(days=1))
        assert set((await lists(service)).values()) == {"opted_in"}
        told = (await service.client.get(f"/v1/numbers/{WHO}")).json()
        assert {one["list"]: one["sendable"] for one in told["lists"]} == {"spring": True, "fall": False}
        assert await service.sql("SELECT list FROM published.sendable") == [("spring",)]


async def test_consent_never_comes_back_by_a_delivery(service: Service) -> None:
    await opt_in(service, at=ago(days=9))
    await receipt(service, "560", occurred_at=ago(days=2))
    await receipt(service, None, "delivered", sent_at=ago(hours=2))
    told = (await service.client.get(f"/v1/numbers/{WHO}", params={"sender": "12345"})).json()
    assert (told["sender"]["blocked"], told["lists"][0]["consent"]) == (False, "opted_out")


async def test_senders_are_compared_without_case_and_numbers_in_any_form(service: Service) -> None:
    call = {"consented_at": ago(days=1), "source": "web form"}
    await service.client.put("/v1/senders/AcmeCo/lists/a%20list%2Fb/subscribers/%2B1%20(555)%20555-1234", json=call)
    for path, sender in ((WHO, "acmeco"), ("15555551234", "ACMECO"), ("%20 15555551234".replace(" ", ""), "AcmeCo")):
        told = (await service.client.get(f"/v1/numbers/{path}", params={"sender": sender, "list": "a list/b"})).json()
        assert (told["number"], told["decision"]["sendable"]) == (WHO, True)


@pytest.mark.parametrize(("call", "where"), [
    ({"consented_at": "2099-01-01T00:00:00Z", "source": "x"}, "5 minutes ahead"),
    ({"consented_at": "2026-11-01T00:00:00", "source": "x"}, "/consented_at"),
    ({"consented_at": "2026-11-01T00:00:00Z"}, "/source"),
    ({"consented_at": "2026-11-01T00:00:00Z", "source": " "}, "/source"),
    ({"consented_at": "2026-11-01T00:00:00Z", "source": "a\0b"}, "/source"),
])  # fmt: skip
async def test_a_call_that_cannot_be_taken_says_what_is_wrong(
    service: Service, call: dict[str, str], where: str
) -> None:
    answer = await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{WHO}", json=call)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert where in answer.text
    assert await service.sql("SELECT count(*) FROM subscriptions") == [(0,)]


async def test_five_minutes_of_a_clock_that_runs_ahead_are_borne_and_no_more(service: Service) -> None:
    path = f"/v1/senders/12345/lists/spring/subscribers/{WHO}"
    for ahead, status in ((4, 200), (6, 422)):
        at = (datetime.now(UTC) + timedelta(minutes=ahead)).isoformat()
        put = await service.client.put(path, json={"consented_at": at, "source": "web form"})
        out = await service.client.delete(path, params={"at": at})
        assert (put.status_code, out.status_code) == (status, status)


@pytest.mark.parametrize("scope", ["list", "sender", "all"])
async def test_an_opt_out_without_a_time_ends_an_opt_in_whose_clock_ran_ahead(service: Service, scope: str) -> None:
    agreed = datetime.now(UTC) + timedelta(minutes=4)
    await opt_in(service, at=agreed.isoformat())
    told = (await opt_out(service, scope=scope)).json()
    assert (told["consent"], datetime.fromisoformat(told["at"])) == ("opted_out", agreed)
    assert await lists(service) == {("12345", "spring"): "opted_out"}
    again = await opt_in(service, at=(agreed + timedelta(seconds=1)).isoformat())
    assert again.json()["consent"] == "opted_in"


@pytest.mark.parametrize("scope", ["list", "all"])
async def test_an_opt_out_without_a_time_ends_an_opt_in_that_was_written_while_it_waited(
    service: Service, scope: str
) -> None:
    """It must not answer that the person is opted in."""
    await opt_in(service)
    newer = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()
    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers FOR UPDATE"))
        calls = []
        for call in (opt_in(service, at=newer), opt_out(service, scope=scope)):
            calls.append(asyncio.create_task(call))
            await waiting(service, len(calls), *calls)
    assert [(await call).json()["consent"] for call in calls] == ["opted_in", "opted_out"]
    assert await lists(service) == {("12345", "spring"): "opted_out"}


@pytest.mark.parametrize("path", ["/v1/senders/12345/lists/spring/subscribers/12",
                                  "/v1/senders/%00/lists/spring/subscribers/+15555551234",
                                  "/v1/senders/12345/lists/%00/subscribers/+15555551234"])  # fmt: skip
async def test_an_impossible_number_sender_or_list_is_422(service: Service, path: str) -> None:
    answer = await service.client.delete(path)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
