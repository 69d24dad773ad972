"""May I text this number now? Asked for one, asked for ten thousand; by HTTP and by the published views."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from app.models.phone import e164
from app.routers import bulk
from tests.conftest import Service, Start

WHO = "+15555551234"
NOW = datetime.now(UTC)


def receipt(number: str = WHO, **said: Any) -> dict[str, Any]:
    return {
        "message_id": f"m-{number}", "number": number, "sender": "12345", "status": "undeliverable", "code": "560",
    } | said  # fmt: skip


async def post(service: Service, *receipts: dict[str, Any]) -> None:
    assert (await service.client.post("/v1/receipts/native", json=[*receipts])).status_code == 200


async def opt_in(
    service: Service, number: str = WHO, sender: str = "12345", name: str = "spring", days: float = 30
) -> None:
    call = {"consented_at": (datetime.now(UTC) - timedelta(days=days)).isoformat(), "source": "web form"}
    put = await service.client.put(f"/v1/senders/{sender}/lists/{name}/subscribers/{number}", json=call)
    assert put.json()["consent"] == "opted_in"


async def status(service: Service, number: str = WHO, **query: str) -> Any:
    answer = await service.client.get(f"/v1/numbers/{number}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


# One number --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "+15555551234",
        "%2B15555551234",
        " 15555551234",
        "%2015555551234",
        "5555551234",
        "(555)%20555-1234",
        "1-555-555-1234",
    ],
)
async def test_a_number_is_read_in_every_form_that_the_contract_names(service: Service, written: str) -> None:
    answer = await service.client.get(f"/v1/numbers/{written}")
    assert (answer.status_code, answer.json()["number"]) == (200, WHO)


@pytest.mark.parametrize("written", ["%2B447491163443", "+447491163443", "%20447491163443", "447491163443"])
async def test_a_foreign_sender_is_one_sender_in_every_form(service: Service, written: str) -> None:
    """`+` in a query is a space, and vendors write the digits alone: a STOP must find the lists all the same."""
    await opt_in(service, sender="+447491163443")
    told = (await service.client.get(f"/v1/numbers/{WHO}?sender={written}")).json()
    assert [one["list"] for one in told["lists"]] == ["spring"]
    assert told["sender"]["sender"] == "+447491163443"


async def test_a_stop_to_a_foreign_sender_without_its_plus_ends_consent(service: Service) -> None:
    await opt_in(service, sender="+447491163443")
    await post(service, receipt(code="603", sender="447491163443"))
    (told,) = (await status(service, sender="+447491163443"))["lists"]
    assert (told["consent"], told["reason"]) == ("opted_out", "opted_out")


async def test_another_countrys_number_is_read_too(service: Service) -> None:
    assert (await status(service, "+442071838750"))["number"] == "+442071838750"


async def test_a_national_number_is_read_with_the_region_of_the_settings(start: Start) -> None:
    async with start(region="GB") as service:
        assert (await status(service, "020 7183 8750"))["number"] == "+442071838750"


@pytest.mark.parametrize("written", ["12", "status", "+1555", "+155555512345678", "abc", "%00", "+1555555123%0A4"])
async def test_what_is_no_possible_number_is_422_and_is_not_repeated(service: Service, written: str) -> None:
    answer = await service.client.get(f"/v1/numbers/{written}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["errors"] == [{"parameter": "number", "detail": problem["detail"]}]
    assert "+15555551234" in problem["detail"]
    assert written not in problem["detail"].replace("+15555551234", "")


async def test_an_unseen_number_may_be_texted(service: Service) -> None:
    assert await status(service) == {
        "number": WHO, "state": "unseen", "sendable": True, "reason": None, "waiting_for": None, "until": None,
        "carrier": None, "sender": None, "lists": [], "evidence": None, "changed_at": None, "last_receipt_at": None,
        "decision": {"sendable": True, "axis": None, "reason": None},
    }  # fmt: skip


async def test_a_state_is_dated_by_its_beginning_whatever_is_said_after_it(service: Service) -> None:
    then = (NOW - timedelta(hours=1)).isoformat()
    await post(service, receipt(message_id="m1", code="3041", occurred_at=then))
    began = await status(service)
    for said in ({"code": "603"}, {"code": None, "status": "sent"}):
        await post(service, receipt(message_id="m2", occurred_at=then, **said))
    told = await status(service)
    assert (told["state"], told["changed_at"]) == ("deactivated", began["changed_at"])
    assert told["last_receipt_at"] > began["last_receipt_at"]
    await opt_in(service, days=0.01)
    again = await status(service)
    assert again["state"] == "active"
    assert again["changed_at"] > began["changed_at"]


async def test_the_whole_answer_of_a_deactivated_number(start: Start) -> None:
    async with start(lookup={}) as service:
        await opt_in(service)
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
        await post(service, receipt(code="3041", carrier="T-Mobile USA, Inc.", mcc="310", mnc="260",
                                    occurred_at=at.isoformat()))  # fmt: skip
        told = await status(service, sender="12345", list="spring")
    when = at.isoformat().replace("+00:00", "Z")
    (only,) = told.pop("lists")
    consented = only.pop("at")
    assert only == {
        "sender": "12345", "list": "spring", "consent": "opted_in", "sendable": False, "reason": "deactivated",
    }  # fmt: skip
    for time in (consented, told.pop("changed_at"), told.pop("last_receipt_at")):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", time)
    assert told == {
        "number": WHO, "state": "deactivated", "sendable": False, "reason": "deactivated", "waiting_for": "lookup",
        "until": None,
        "carrier": {
            "name": "T-Mobile", "name_raw": "T-Mobile USA, Inc.", "mcc": "310", "mnc": "260", "line_type": None,
            "ported": None, "ported_at": None, "source": "native", "as_of": when,
        },
        "sender": {"sender": "12345", "blocked": False, "sendable": False, "reason": "deactivated"},
        "decision": {"sendable": False, "axis": "number", "reason": "deactivated"},
        "evidence": {
            "gateway": "native", "code_space": "openmarket", "code": "3041", "message_id": f"m-{WHO}",
            "occurred_at": when,
        },
    }  # fmt: skip


async def test_times_are_utc_with_z_even_when_the_gateway_wrote_another_zone(service: Service) -> None:
    await post(service, receipt(code="629", carrier="Verizon", occurred_at="2026-03-01T12:00:00+05:30"))
    told = await status(service)
    assert told["evidence"]["occurred_at"] == told["carrier"]["as_of"] == "2026-03-01T06:30:00Z"


async def test_the_decision_answers_exactly_what_was_asked(service: Service) -> None:
    await opt_in(service, name="spring")
    await opt_in(service, name="summer")
    await service.client.delete(f"/v1/senders/12345/lists/summer/subscribers/{WHO}")
    number, sender = await status(service), await status(service, sender="12345")
    spring, summer = [await status(service, sender="12345", list=name) for name in ("spring", "summer")]
    never, other = await status(service, sender="12345", list="autumn"), await status(service, sender="67890")
    decided = [told["decision"]["sendable"] for told in (number, sender, spring, summer, never, other)]
    assert decided == [True, True, True, False, False, True]
    assert summer["decision"] == {"sendable": False, "axis": "consent", "reason": "unsubscribed"}
    assert never["decision"] == {"sendable": False, "axis": "consent", "reason": "no_consent"}
    assert [len(told["lists"]) for told in (number, sender, spring, never, other)] == [2, 2, 1, 0, 0]


async def test_where_every_list_refuses_the_newest_says_why_for_the_sender_and_each_for_itself(
    service: Service,
) -> None:
    """Half a second apart: the times are compared as times, however many digits they are told with."""
    left = {"summer": "2026-04-01T00:00:00Z", "autumn": "2026-04-01T00:00:00.5Z", "winter": "2026-03-31T23:59:59.9Z"}
    for name, at in left.items():
        path = f"/v1/senders/12345/lists/{name}/subscribers/{WHO}"
        await service.client.delete(path, params={"at": at, "reason": f"left_{name}"})
    told = await status(service, sender="12345")
    assert told["sender"]["reason"] == told["decision"]["reason"] == "left_autumn"
    for name in left:
        told = await status(service, sender="12345", list=name)
        assert told["decision"] == {"sendable": False, "axis": "consent", "reason": f"left_{name}"}
        assert told["sender"]["reason"] == "left_autumn"


async def test_a_consent_of_the_very_moment_of_the_deactivation_is_not_newer_than_it_for_any_reader(
    start: Start,
) -> None:
    """The number is back for another list."""
    at = NOW - timedelta(days=3)
    consented = {"consented_at": at.isoformat(), "source": "web form"}
    async with start(lookup={}) as service:
        await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{WHO}", json=consented)
        await post(service, receipt(code="3041", occurred_at=at.isoformat()))
        await opt_in(service, name="summer", days=1)
        told = await status(service)
        assert [(one["list"], one["sendable"], one["reason"]) for one in told["lists"]] == [
            ("spring", False, "deactivated"), ("summer", True, None),
        ]  # fmt: skip
        assert await service.sql("SELECT list FROM published.sendable") == [("summer",)]
        sizes = (await service.client.get("/v1/lists")).json()["items"]
        assert {one["list"]: one["sendable"] for one in sizes} == {"spring": 0, "summer": 1}
        (spring,) = (await service.client.get("/v1/senders/12345/lists/spring/subscribers")).json()["items"]
        assert (spring["sendable"], spring["reason"]) == (False, "deactivated")


async def test_a_block_is_told_with_the_newest_of_what_stands_behind_it(service: Service) -> None:
    """To who asks, and in the view, whatever came first."""
    oldest, newest = ("network_not_covered", NOW - timedelta(days=3)), ("carrier_blocked_subscriber", NOW)
    between = ("network_not_covered", NOW - timedelta(days=2))
    codes = {"network_not_covered": "592", "carrier_blocked_subscriber": "560"}
    for place, (said, stands) in enumerate(((oldest, oldest), (newest, newest), (between, newest))):
        await post(service, receipt(message_id=f"m{place}", code=codes[said[0]], occurred_at=said[1].isoformat()))
        told = await status(service, sender="12345")
        assert (told["sender"]["blocked"], told["sender"]["reason"]) == (True, stands[0])
        view = await service.sql("SELECT reason, at, code_space, code FROM published.sender_blocks")
        assert view == [(*stands, "openmarket", codes[stands[0]])]


async def test_a_carrier_that_no_table_knows_is_called_as_it_was_told(service: Service) -> None:
    await post(service, receipt(carrier="Valley Telephone of Nowhere"))
    carrier = (await status(service))["carrier"]
    assert carrier["name"] == carrier["name_raw"] == "Valley Telephone of Nowhere"


async def test_senders_are_read_in_their_one_form(service: Service) -> None:
    await opt_in(service, sender="ACME")
    assert (await status(service, sender="acme"))["sender"]["sender"] == "acme"
    assert len((await status(service, sender="AcMe"))["lists"]) == 1
    for written in ("+15555550000", "15555550000", "5555550000"):
        assert (await status(service, sender=written))["sender"]["sender"] == "+15555550000"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("list=spring", "sender"), ("sender=", "sender"), ("sender=%00", "sender"), ("sender=12345&list=", "list"),
     ("sender=12345&list=a%00b", "list"), ("sender=" + "x" * 65, "sender")],
)  # fmt: skip
async def test_a_wrong_sender_or_list_is_422_and_names_the_parameter(
    service: Service, query: str, parameter: str
) -> None:
    answer = await service.client.get(f"/v1/numbers/{WHO}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, parameter)


async def test_many_questions_at_once_are_answered_each_with_its_own_number(service: Service) -> None:
    numbers = [f"+1415555{place:04}" for place in range(300)]
    told = await asyncio.gather(*(status(service, number) for number in numbers + numbers))
    assert [one["number"] for one in told] == numbers + numbers


@given(st.text("0123456789", min_size=10, max_size=10))
@settings(max_examples=2_000, deadline=None)
def test_the_short_cut_for_north_american_numbers_says_what_the_library_says(digits: str) -> None:
    parsed = phonenumbers.parse(f"+1{digits}", "US")
    assert phonenumbers.is_possible_number(parsed)
    assert e164(f"+1{digits}") == phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


# Many numbers ------------------------------------------------------------------------------------------------------


async def ask(service: Service, **question: Any) -> Any:
    answer = await service.client.post("/v1/numbers/status", json=question)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_many_are_answered_in_order_with_duplicates_and_the_bad_ones_in_their_place(service: Service) -> None:
    await post(service, receipt(code="629"))
    items = await ask(service, numbers=[WHO, "12", "(415) 555-0001", WHO, None, 14155550002, True])
    assert [item["number"] for item in items] == [WHO, "12", "+14155550001", WHO, None, "+14155550002", True]
    assert [place for place, item in enumerate(items) if "error" in item] == [1, 4, 6]
    assert items[0] == items[3] == await status(service)


async def test_a_question_for_many_takes_a_sender_and_a_list(service: Service) -> None:
    await opt_in(service)
    yes, no = await ask(service, numbers=[WHO, "+14155550001"], sender="12345", list="spring")
    assert yes == await status(service, sender="12345", list="spring")
    assert no["decision"] == {"sendable": False, "axis": "consent", "reason": "no_consent"}


async def test_ten_thousand_numbers_are_ten_queries_and_one_more_number_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read_many = bulk.status.read_many

    async def counted(engine: Any, numbers: Any) -> Any:
        asked.append(len(numbers := [*numbers]))
        return await read_many(engine, numbers)

    monkeypatch.setattr(bulk.status, "read_many", counted)
    numbers = [f"+1415{place:07}" for place in range(2_000_000, 2_010_000)]
    assert [item["number"] for item in await ask(service, numbers=numbers)] == numbers
    assert asked == [1_000] * 10
    refused = await service.client.post("/v1/numbers/status", json={"numbers": [*numbers, WHO]})
    assert refused.status_code == 422
    assert "10000" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status_code", "where"),
    [
        ("nonsense", 400, None),
        ("[]", 422, ""),
        ("{}", 422, "/numbers"),
        ('{"numbers": "+15555551234"}', 422, "/numbers"),
        ('{"numbers": [], "senders": "12345"}', 422, "/senders"),
        ('{"numbers": [], "list": "spring"}', 422, "/sender"),
        ('{"numbers": [], "sender": ""}', 422, "/sender"),
        ('{"numbers": [], "sender": "12345", "list": "\\u0000"}', 422, "/list"),
    ],
)
async def test_a_question_that_is_none_says_what_is_wrong(
    service: Service, body: str, status_code: int, where: str | None
) -> None:
    answer = await service.client.post("/v1/numbers/status", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (status_code, "application/problem+json")
    assert where is None or answer.json()["errors"][0]["pointer"] == where


async def test_no_numbers_are_no_items(service: Service) -> None:
    assert await ask(service, numbers=[]) == []


# Lines -------------------------------------------------------------------------------------------------------------


async def ask_lines(service: Service, body: Any, **headers: str) -> list[Any]:
    sent = {"content-type": "application/x-ndjson"} | headers
    answer = await service.client.post("/v1/numbers/status", content=body, headers=sent)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_line_is_a_string_or_an_object_and_bad_lines_are_answered_in_their_place(service: Service) -> None:
    await opt_in(service)
    lines = [
        json.dumps(WHO),
        json.dumps({"number": "5555551234", "sender": "12345", "list": "spring"}),
        "not json",
        json.dumps({"number": WHO, "list": "spring"}),
        json.dumps({"number": WHO, "sendr": "12345"}),
        json.dumps({"number": "12"}),
        "[]",
        "",
        json.dumps({"number": WHO, "sender": "12345"}),
    ]
    told = await ask_lines(service, "\n".join(lines))
    assert [("error" in one) for one in told] == [False, False, True, True, True, True, True, False]
    assert told[1] == await status(service, sender="12345", list="spring")
    assert told[7] == await status(service, sender="12345")
    assert told[5]["number"] == "12"


async def test_lines_cut_anywhere_and_compressed_read_the_same(service: Service) -> None:
    numbers = [f"+1415{place:07}" for place in range(2_000_000, 2_003_000)]
    body = "".join(f'"{number}"\n' for number in numbers).encode()
    packed = gzip.compress(body)

    async def cut(whole: bytes) -> AsyncIterator[bytes]:
        places = sorted(random.Random(1).sample(range(len(whole)), 50))  # noqa: S311 - any places will do
        for start, end in zip([0, *places], [*places, len(whole)], strict=True):
            yield whole[start:end]

    for told in (
        await ask_lines(service, cut(body)),
        await ask_lines(service, cut(packed), **{"content-encoding": "gzip"}),
    ):
        assert [one["number"] for one in told] == numbers


async def test_an_endless_line_is_one_error_and_nothing_of_it_is_kept(service: Service) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield f'"{WHO}"\n'.encode()
        for _ in range(64):
            yield b"5" * 65_536
        yield f'\n"{WHO}"\n'.encode()

    told = await ask_lines(service, endless())
    assert [one["number"] for one in told] == [WHO, None, WHO]
    assert told[1]["error"] == f"the line is longer than {bulk.LINE_MOST} bytes"


async def test_a_body_that_breaks_off_inside_its_compression_says_so_behind_what_was_read(service: Service) -> None:
    noise = random.Random(2)  # noqa: S311 - only that it packs badly
    body = "".join(f'"+1415{noise.randrange(10**7):07}"\n' for _ in range(20_000)).encode()
    told = await ask_lines(service, gzip.compress(body)[:-100], **{"content-encoding": "gzip"})
    assert "number" in told[0]
    assert "the lines behind this one were not read" in told[-1]["error"]


async def test_each_line_is_answered_before_the_next_one_must_be_sent(service: Service) -> None:
    """A caller that waits for an answer before it asks again never waits for ever."""
    asked, sent = asyncio.Queue[bytes](), asyncio.Queue[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        line = await asked.get()
        return {"type": "http.request", "body": line, "more_body": line != b""}

    path = "/v1/numbers/status"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2), "headers": [(b"content-type", b"application/x-ndjson")],
    }  # fmt: skip
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(service.app(scope, receive, sent.put))
        for place in range(3):
            asked.put_nowait(f'"+1415555000{place}"\n'.encode())
            if place == 0:
                assert (await sent.get())["status"] == 200
            assert json.loads((await sent.get())["body"])["number"] == f"+1415555000{place}"
        asked.put_nowait(b"")


# How it came to be so ----------------------------------------------------------------------------------------------


async def test_the_history_tells_every_change_with_its_cause_newest_first(service: Service) -> None:
    await opt_in(service)
    await post(service, receipt(code="573", occurred_at="2026-11-20T10:00:00Z"))
    answer = await service.client.get(f"/v1/numbers/{WHO}/history")
    items = answer.json()["items"]
    kinds = [item["kind"] for item in items]
    assert sorted(kinds) == ["list.opted_in", "list.opted_out", "number.state", "sender.blocked"]
    assert [item["seq"] for item in items] == sorted((item["seq"] for item in items), reverse=True)
    blocked = items[kinds.index("sender.blocked")]
    committed = blocked.pop("committed_at")
    assert committed.endswith("Z")
    assert blocked == {
        "seq": blocked["seq"], "number": WHO, "sender": "12345", "kind": "sender.blocked", "from": "open",
        "to": "blocked", "reason": "sender_blocked_by_subscriber", "occurred_at": "2026-11-20T10:00:00Z",
        "cause": {
            "kind": "receipt", "gateway": "native", "code_space": "openmarket", "code": "573", "message_id": f"m-{WHO}",
        },
    }  # fmt: skip
    assert items[kinds.index("list.opted_in")]["cause"] == {"kind": "call", "source": "web form"}
    assert answer.json()["next"] is None


async def test_the_history_goes_by_pages(service: Service) -> None:
    for name in ("a", "b", "c", "d"):
        await opt_in(service, name=name)
    whole = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"]
    read, query = [], {"limit": "2"}
    while True:
        page = (await service.client.get(f"/v1/numbers/{WHO}/history", params=query)).json()
        read += page["items"]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert read == whole
    assert len(read) == 5


@pytest.mark.parametrize(
    "path",
    [f"/v1/numbers/{WHO}/history", "/v1/unread", "/v1/receipts", "/v1/senders/12345/lists/spring/subscribers"],
)
@pytest.mark.parametrize("after", ["x", "-1", "%00", "a b", "1.5", "12345678901234567890"])
async def test_a_cursor_that_no_page_gave_is_422(service: Service, path: str, after: str) -> None:
    answer = await service.client.get(f"{path}?after={after}")
    if (path[-11:], after) != ("subscribers", "12345678901234567890"):  # there this is a place like any other
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "after")


# The views ---------------------------------------------------------------------------------------------------------


async def every_state(service: Service) -> list[str]:
    """A number in each state there is, each opted in to two lists of one sender and one of another."""
    codes = {
        "active": "560", "held": "345", "porting": None, "suspended": None, "not_sms_capable": "629", "invalid": None,
        "deactivated": "3041", "reassigned": "3041", "stale": "341",
    }  # fmt: skip
    spaces = await reasons(service)
    numbers = {state: f"+1415555{place:04}" for place, state in enumerate(codes)}
    for state, number in numbers.items():
        await opt_in(service, number)
        await opt_in(service, number, name="summer")
        await opt_in(service, number, sender="67890", name="news")
        space, code = spaces.get(state, ("openmarket", codes[state]))
        await post(service, receipt(number, code=code, code_space=space))
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    await post(service, receipt(numbers["reassigned"], message_id="later", status="delivered", code=None, sent_at=later,
                                occurred_at=later))  # fmt: skip
    await opt_in(service, numbers["held"], name="autumn", days=-0.001)
    await service.client.delete(f"/v1/senders/12345/lists/summer/subscribers/{numbers['active']}")
    lapsed, almost_over = "+14155559999", datetime.now(UTC) - timedelta(days=29, hours=23)
    await opt_in(service, lapsed, days=60)
    space, code = spaces["suspended"]
    await post(service, receipt(lapsed, code=code, code_space=space,
                                occurred_at=almost_over.isoformat()))  # fmt: skip
    return [*numbers.values(), lapsed]


async def reasons(service: Service) -> dict[str, tuple[str, str]]:
    """A code for those states that the OpenMarket space has none for."""
    wanted = {"porting": "porting_in_progress", "suspended": "suspended", "invalid": "invalid_number"}
    found = {}
    for state, reason in wanted.items():
        rows = await service.sql(
            "SELECT space, code FROM published.codes WHERE reason = :reason LIMIT 1", reason=reason
        )
        found[state] = (rows[0][0], rows[0][1])
    return found


async def test_the_views_say_what_http_says_in_every_state(start: Start) -> None:
    async with start(lookup={}) as service:
        numbers = await every_state(service)
        told = {number: await status(service, number) for number in numbers}
        assert {one["state"] for one in told.values()} >= {
            "active", "held", "porting", "suspended", "not_sms_capable", "invalid", "deactivated", "reassigned",
        }  # fmt: skip
        await agree(service, told)
        # The suspension lapses: nothing ran, only time went by.
        await service.sql(
            "WITH moved AS (UPDATE numbers SET until = until - interval '2 days', steps = jsonb_set(steps, '{0,until}',"
            " to_jsonb((steps #>> '{0,until}')::timestamptz - interval '2 days')) WHERE number = '+14155559999'"
            " RETURNING 1) SELECT count(*) FROM moved"
        )
        after = await status(service, "+14155559999", sender="12345", list="spring")
        assert (after["state"], after["decision"]["sendable"], after["until"]) == ("active", True, None)
        assert after["changed_at"] < told["+14155559999"]["until"]
        await agree(service, told | {"+14155559999": await status(service, "+14155559999")})


async def agree(service: Service, told: dict[str, Any]) -> None:
    shown = await service.sql(
        "SELECT number, state, sendable, reason, waiting_for, until, carrier, mcc, mnc, line_type, ported, changed_at"
        " FROM published.number_status"
    )
    for number, state, sendable, reason, waiting_for, until, carrier, mcc, mnc, line_type, ported, changed_at in shown:
        one = told[number]
        assert (state, sendable, reason, waiting_for) == (
            one["state"], one["sendable"], one["reason"], one["waiting_for"],
        )  # fmt: skip
        assert [until, changed_at] == [time(one["until"]), time(one["changed_at"])]
        network = one["carrier"] or {}
        assert (carrier, mcc, mnc, line_type, ported) == tuple(
            network.get(name) for name in ("name", "mcc", "mnc", "line_type", "ported")
        )
    assert {row[0] for row in shown} == set(told)
    lists = [(number, one) for number, answer in told.items() for one in answer["lists"]]
    may = {(number, one["sender"], one["list"]) for number, one in lists if one["sendable"]}
    assert may == set(await service.sql("SELECT number, sender, list FROM published.sendable"))
    out = {
        (number, one["sender"], one["list"], time(one["at"])) for number, one in lists if one["consent"] == "opted_out"
    }
    assert out == set(await service.sql("SELECT number, sender, list, at FROM published.opt_outs"))
    for sender in ("12345", "67890"):
        asked = {number: await status(service, number, sender=sender) for number in told}
        blocks = {number for number, one in asked.items() if one["sender"]["blocked"]}
        view = await service.sql("SELECT number FROM published.sender_blocks WHERE sender = :sender", sender=sender)
        assert blocks == {number for (number,) in view}


def time(text_: str | None) -> datetime | None:
    return None if text_ is None else datetime.fromisoformat(text_)


@pytest.mark.skipif("SENDABLE_TEST_DATABASE_URL" in os.environ, reason="another server asks the reader for a password")
async def test_the_reader_reads_the_views_and_nothing_else(service: Service, database_url: str) -> None:
    await post(service, receipt())
    tables = await service.sql(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'S')"
    )
    views = await service.sql("SELECT 'published.' || viewname FROM pg_views WHERE schemaname = 'published'")
    assert {name.partition(".")[2] for (name,) in views} == {
        "number_status", "sendable", "sender_blocks", "opt_outs", "changes", "codes",
    }  # fmt: skip
    reader = create_async_engine(make_url(database_url).set(username="sendable_reader"), isolation_level="AUTOCOMMIT")
    async with reader.connect() as db:
        for (view,) in views:
            await db.execute(text(f"SELECT * FROM {view}"))  # noqa: S608 - named by PostgreSQL
        for statement in [f"TABLE {table}" for (table,) in tables] + [
            "CREATE TABLE public.mine (a int)", "DELETE FROM published.codes", "SELECT * FROM pg_authid",
        ]:  # fmt: skip
            with pytest.raises(ProgrammingError, match="permission denied"):
                await db.execute(text(statement))
    await reader.dispose()
