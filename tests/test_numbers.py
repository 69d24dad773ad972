"""May I text this number now, and how did it come to be so? Asked for one number, by HTTP."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.models.phone import e164
from tests.conftest import Service, Start
from tests.number_steps import WHO, opt_in, post, receipt, status

NOW = datetime.now(UTC)

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


@pytest.mark.parametrize(("written", "told"), [
    ("2026-11-01T10:00:00.120000Z", "2026-11-01T10:00:00.120000Z"), ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00Z"),
])  # fmt: skip
async def test_a_time_is_written_in_one_way_by_every_call(service: Service, written: str, told: str) -> None:
    path = "/v1/senders/12345/lists/spring/subscribers"
    given = await service.client.put(f"{path}/{WHO}", json={"consented_at": written, "source": "web form"})
    listed = (await service.client.get(path)).json()["items"][0]
    one = (await status(service, sender="12345"))["lists"][0]
    assert (given.json()["at"], listed["at"], one["at"]) == (told, told, told)


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


async def test_a_carrier_of_another_country_is_called_as_it_was_told_by_whomever(service: Service) -> None:
    told, sent = "+79161234567", "+79161234568"
    await post(service, receipt(told, carrier="MTS"))
    entry = {"gateway": "native", "message_id": "m1", "number": sent, "sender": "12345", "carrier": "MTS"}
    await service.client.post("/v1/messages", json=[entry | {"sent_at": NOW.isoformat()}])
    for number in (told, sent):
        carrier = (await status(service, number))["carrier"]
        assert (carrier["name"], carrier["name_raw"]) == ("MTS", "MTS")


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


# How it came to be so ----------------------------------------------------------------------------------------------


async def test_the_history_tells_every_change_with_its_cause_newest_first(service: Service) -> None:
    at = (NOW.replace(microsecond=0) - timedelta(days=3)).isoformat()
    await opt_in(service)
    await post(service, receipt(code="573", occurred_at=at))
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
        "to": "blocked", "reason": "sender_blocked_by_subscriber", "occurred_at": at.replace("+00:00", "Z"),
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
    if (path[-11:], after) == ("subscribers", "12345678901234567890"):  # there this is a place like any other
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "after")
