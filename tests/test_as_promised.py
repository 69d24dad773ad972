"""What callers do that no page tells of: odd names, times and headers. Each gets a clear answer, and harms nobody."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from tests.conftest import Service, Start

NUMBER = "+15555551234"
LIST = "/v1/senders/12345/lists/spring/subscribers"
MINUTE = datetime(2026, 11, 2, 18, 42, tzinfo=UTC)
AGREED = {"consented_at": "2026-11-01T00:00:00Z", "source": "web"}
AS_JSON = {"content-type": "application/json"}
BEFORE_ALL_TIME = ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z")
"""The first is in the year 0 by UTC; of the second PostgreSQL's driver makes minus infinity."""


def told(response: httpx.Response) -> str:
    """The words of a problem: what is wrong, and where."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    return " ".join([problem["detail"], *(str(error) for error in problem.get("errors", ()))])


# Times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", BEFORE_ALL_TIME)
async def test_consent_before_all_time_is_refused_by_every_call(service: Service, at: str) -> None:
    client = service.client
    put = await client.put(f"{LIST}/{NUMBER}", json=AGREED | {"consented_at": at})
    delete = await client.delete(f"{LIST}/{NUMBER}", params={"at": at})
    for response in (put, delete):
        assert response.status_code == 422
        assert "lies before 1900" in told(response)
    assert (await client.get(f"/v1/numbers/{NUMBER}")).json()["state"] == "unseen"


async def test_one_line_before_all_time_does_not_spoil_a_file(service: Service) -> None:
    heading, bad = "number,consented_at,source", f"+15555550001,{BEFORE_ALL_TIME[0]},web"
    rows = [heading, bad, f"{NUMBER},2026-11-01T00:00:00Z,web"]
    said = (await service.client.post(LIST, content="\n".join(rows), headers={"content-type": "text/csv"})).json()
    assert (said["opted_in"], said["wrong"]) == (1, 1)
    assert "lies before 1900" in said["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("stat", "code", "reason"), [("UNDELIV", "3041", "deactivated"), ("REJECTD", "603", "opted_out")]
)
async def test_what_fails_in_the_minute_of_an_opt_in_stops_sending_though_its_second_is_not_told(
    start: Start, stat: str, code: str, reason: str
) -> None:
    agreed = (MINUTE + timedelta(seconds=20)).isoformat()
    text = f"id:7 submit date:{MINUTE:%y%m%d%H%M} done date:{MINUTE:%y%m%d%H%M} stat:{stat} err:{code} text:Welcome"
    receipt = {"source_addr": NUMBER, "destination_addr": "12345", "esm_class": 4, "short_message": text}
    async with start(gateways={"smpp": {"timezone": "UTC", "code_space": "openmarket"}}) as service:
        await service.client.put(f"{LIST}/{NUMBER}", json=AGREED | {"consented_at": agreed})
        await service.client.post("/v1/receipts/smpp", json=receipt)
        said = (await service.client.get(f"/v1/numbers/{NUMBER}", params={"sender": "12345"})).json()
        assert (said["sender"]["sendable"], said["sender"]["reason"]) == (False, reason)
        assert await service.sql("SELECT * FROM published.sendable") == []


@pytest.mark.parametrize("at", BEFORE_ALL_TIME)
async def test_one_message_before_all_time_does_not_spoil_its_batch(service: Service, at: str) -> None:
    message = {"gateway": "openmarket", "message_id": "1", "number": NUMBER, "sender": "12345", "sent_at": at}
    good = message | {"message_id": "2", "sent_at": "2026-11-01T00:00:00Z"}
    response = await service.client.post("/v1/messages", json=[message, good])
    assert response.status_code == 200
    assert response.json()["registered"] == 1
    assert response.json()["errors"][0]["pointer"] == "/0"


@pytest.mark.parametrize("before", [*BEFORE_ALL_TIME, "9999-12-31T23:59:59-14:00", "1", "2026-11-01T00:00:00"])
async def test_lookups_before_no_time_are_a_problem(service: Service, before: str) -> None:
    response = await service.client.get("/v1/lookups", params={"number": NUMBER, "before": before})
    assert response.status_code == 422
    assert "before" in told(response)


async def test_a_plus_that_stands_bare_in_a_query_is_part_of_the_time(service: Service) -> None:
    deleted = await service.client.delete(f"{LIST}/{NUMBER}?at=2026-11-01T02:00:00+02:00")
    assert deleted.json()["at"] == "2026-11-01T00:00:00Z"
    report = await service.client.get("/v1/reports/opt-outs?from=2026-11-01T02:00:00.5+02:00&to=2026-11-02T00:00:00Z")
    assert report.json()["from"] == "2026-11-01T00:00:00.500000Z"
    looked_up = await service.client.get(f"/v1/lookups?number={NUMBER}&before=2026-11-01T02:00:00+02:00")
    assert looked_up.status_code == 200


async def test_times_are_answered_in_utc_whatever_the_zone_they_were_given_in(service: Service) -> None:
    call = AGREED | {"consented_at": "2026-11-01T01:00:00+02:00"}
    put = await service.client.put(f"{LIST}/{NUMBER}", json=call)
    delete = await service.client.delete(f"{LIST}/{NUMBER}", params={"at": "2026-11-02T01:00:00+02:00"})
    assert [answer.json()["at"] for answer in (put, delete)] == ["2026-10-31T23:00:00Z", "2026-11-01T23:00:00Z"]
    refused = await service.client.put(f"{LIST}/{NUMBER}", json=call)
    assert refused.json()["at"] == "2026-11-01T23:00:00Z"


async def test_a_refused_opt_in_names_its_time_as_every_answer_does(service: Service) -> None:
    await service.client.delete(f"{LIST}/{NUMBER}", params={"at": "2026-11-02T00:00:00Z"})
    refused = await service.client.put(f"{LIST}/{NUMBER}", json=AGREED)
    assert (refused.status_code, refused.json()["at"]) == (409, "2026-11-02T00:00:00Z")


async def test_the_evidence_of_a_file_names_its_time_as_every_answer_does(service: Service) -> None:
    await service.client.post("/v1/deactivations/carrier?date=2026-11-20", content=NUMBER)
    evidence = (await service.client.get(f"/v1/numbers/{NUMBER}")).json()["evidence"]
    assert evidence["code_space"] == "deactivation_feed"
    assert evidence["occurred_at"].endswith("Z")


# Names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/senders/%ff/lists/spring", "/v1/senders/12345/lists/%e9t%e9"])
async def test_a_name_that_is_not_utf_8_is_not_taken_for_another(service: Service, path: str) -> None:
    response = await service.client.put(f"{path}/subscribers/{NUMBER}", json=AGREED)
    assert response.status_code == 422
    assert "not UTF-8" in told(response)


# Bodies ------------------------------------------------------------------------------------------------------------

BROKEN = {
    "cut": b'{"consented_at":',
    "not UTF-8": b'{"consented_at": "2026-11-01T00:00:00Z", "source": "\xff"}',
    "too deep": b"[" * 100_000,
    "a number of 10,000 digits": b'{"source": ' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_json_is_called_so_by_every_call(service: Service, body: bytes) -> None:
    for method, path in (("PUT", f"{LIST}/{NUMBER}"), ("POST", "/v1/held/release"), ("POST", "/v1/unread/drop")):
        response = await service.client.request(method, path, content=body, headers=AS_JSON)
        assert response.status_code == 400
        assert told(response).startswith("the body is not JSON")


async def test_json_that_is_not_called_so_is_told_how_to_be(service: Service) -> None:
    response = await service.client.put(f"{LIST}/{NUMBER}", content=json.dumps(AGREED))
    assert response.status_code == 422
    assert "Content-Type: application/json" in told(response)


async def test_a_place_in_a_body_is_a_pointer_and_the_whole_body_the_empty_one(service: Service) -> None:
    async def pointers(method: str, path: str, body: Any) -> list[str]:
        response = await service.client.request(method, path, json=body)
        assert response.status_code == 422
        assert "Value error" not in told(response)
        return [error["pointer"] for error in response.json()["errors"]]

    assert await pointers("PUT", f"{LIST}/{NUMBER}", []) == [""]
    assert await pointers("PUT", f"{LIST}/{NUMBER}", AGREED | {"source": " "}) == ["/source"]
    assert await pointers("POST", "/v1/held/release", {"number": "x"}) == ["/number"]


async def test_a_slash_too_many_is_no_address_and_leads_nowhere(service: Service) -> None:
    """A redirection names our own scheme and host, which are not those that a caller behind a proxy knows."""
    response = await service.client.get("/v1/held/")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert "location" not in response.headers


async def test_an_empty_import_is_called_empty(service: Service) -> None:
    assert "the body is empty" in told(await service.client.post(LIST, content=b""))


async def test_an_entry_too_deep_to_be_written_again_is_a_bad_one_and_the_answer_whole(service: Service) -> None:
    deep = "[" * 600 + "]" * 600
    response = await service.client.post("/v1/numbers/status", content=f'{{"numbers": [{deep}, "{NUMBER}"]}}')
    bad, good = response.json()["items"]
    assert (bad["number"], good["number"]) == (None, NUMBER)
    assert "not a phone number" in bad["error"]
    lines = f'{deep}\n{{"number": {deep}}}\n{{"number": {deep}, "sender": ""}}\n"{NUMBER}"\n'
    response = await service.client.post(
        "/v1/numbers/status", content=lines, headers={"content-type": "application/x-ndjson"}
    )
    assert [json.loads(line)["number"] for line in response.text.splitlines()] == [None, None, None, NUMBER]


# Media types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["application/x-ndjson", "Application/X-NDJSON; charset=utf-8", "application/ndjson"])
async def test_lines_are_known_by_any_of_their_names(service: Service, named: str) -> None:
    asked = await service.client.post("/v1/numbers/status", content=f'"{NUMBER}"\n', headers={"content-type": named})
    assert asked.json()["number"] == NUMBER
    listed = await service.client.get(LIST, headers={"accept": named})
    assert listed.headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("TEXT/CSV;header=present", "text/csv"),
        ("application/json;q=0.1, text/csv", "text/csv"),
        ("text/csv;q=0.5,application/x-ndjson ; q=0.9", "application/x-ndjson"),
        ("text/csv, application/json", "text/csv"),
        ("text/csv;q=0, */*", "application/json"),
        ("text/csvx", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
        ("", "application/json"),
    ],
)
async def test_a_list_comes_as_the_caller_likes_it_best(service: Service, accept: str, kind: str) -> None:
    response = await service.client.get(LIST, headers={"accept": accept})
    assert response.headers["content-type"].partition(";")[0] == kind


# Methods and paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_probe_may_ask_for_the_head_alone(service: Service, path: str) -> None:
    assert (await service.client.head(path)).status_code == 200


async def test_a_gateway_that_asks_whether_we_are_there_leaves_nothing_behind(start: Start) -> None:
    async with start(gateways={"kannel": {"accounts": {"eu": {}}}}) as service:
        call = {"id": "1", "st": "2", "to": NUMBER, "from": "12345"}
        assert (await service.client.head("/v1/receipts/kannel", params=call)).status_code == 200
        assert (await service.client.head("/v1/receipts/kannel/eu")).status_code == 200
        assert (await service.client.head("/v1/receipts/nobody")).status_code == 404
        assert (await service.client.get("/v1/unread")).json()["items"] == []
        assert (await service.client.get("/v1/receipts")).json()["items"] == []


async def test_a_slash_at_the_end_of_a_gateways_address_loses_no_receipt(start: Start) -> None:
    async with start(gateways={"native": {"accounts": {"eu": {}}}}) as service:
        for place, path in enumerate(("/v1/receipts/native/", "/v1/receipts/native/eu/")):
            receipt = {"message_id": str(place), "number": NUMBER, "sender": "12345", "status": "delivered"}
            assert (await service.client.post(path, json=receipt)).status_code == 200
        kept = (await service.client.get("/v1/receipts")).json()["items"]
        assert [(one["message_id"], one["account"]) for one in kept] == [("1", "eu"), ("0", None)]


async def test_a_path_that_is_none_says_where_those_are_that_there_are(service: Service) -> None:
    assert "/docs" in told(await service.client.get("/v1/number"))


# Alarms ------------------------------------------------------------------------------------------------------------


async def test_an_alarm_is_a_line_of_log_when_it_is_raised_and_not_at_every_count(service: Service) -> None:
    receipt = {"message_id": "1", "number": NUMBER, "sender": "12345", "status": "undeliverable"}
    receipt |= {"code": "5555551234567"}
    with capture_logs() as lines:
        for message_id in ("1", "2"):
            await service.client.post("/v1/receipts/native", json=receipt | {"message_id": message_id})
        await service.sql("UPDATE alarms SET cleared_at = now()")
        await service.client.post("/v1/receipts/native", json=receipt | {"message_id": "3"})
    said = [line for line in lines if line["event"] == "alarm"]
    assert [(line["log_level"], line["kind"], line["key"]) for line in said] == [
        ("warning", "unknown_code", "native/openmarket/***")
    ] * 2


# What is kept ------------------------------------------------------------------------------------------------------


async def test_of_endless_headers_no_more_is_kept_than_a_server_would_take(service: Service) -> None:
    many = {f"x-{number}": "a" * 1_000 for number in range(2_000)}
    await service.client.post("/v1/receipts/native", content=b"nonsense", headers={"x-first": "here"} | many)
    ((size, first),) = await service.sql("SELECT length(headers::text), headers ->> 'x-first' FROM unread")
    assert size < 128 * 1024
    assert first == "here"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/receipts?after=x", "send the `next` of the page before"),
        (f"{LIST}?after=xyz", "send the `next` of the page before"),
        ("/v1/changes?after=-1", "send the `next` of the page before"),
        ("/v1/receipts?message_id=", "must not be empty, nor hold NUL"),
        ("/v1/held?code=%00", "nor hold NUL"),
    ],
)
async def test_a_query_that_is_wrong_is_told_in_words_and_not_by_a_pattern(
    service: Service, path: str, says: str
) -> None:
    response = await service.client.get(path)
    assert response.status_code == 422
    assert says in told(response)
