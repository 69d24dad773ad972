"""Deactivation files as they are taken in: what follows for numbers, lists, views and the feed."""

from __future__ import annotations

import asyncio
import gzip
import io
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from app.feeds import FEEDS
from app.models.feed import Layout
from app.services.deactivations import files, importing
from app.services.deactivations.events import when
from app.services.deactivations.importing import Guard, Order, UnderWay, take_in
from tests.conftest import Service, Start
from tests.provider import Reply, answering, telnyx

WHO, OTHER, STRANGER = "+15555551234", "+15555550142", "+15555550199"
DAY = "2026-11-20"
LONG_AGO = "2026-01-02T03:04:05Z"


async def opt_in(service: Service, who: str = WHO, at: str = LONG_AGO, name: str = "spring",
                 sender: str = "12345") -> Any:  # fmt: skip
    return await service.client.put(
        f"/v1/senders/{sender}/lists/{name}/subscribers/{who}", json={"consented_at": at, "source": "form"}
    )


async def post(service: Service, body: str | bytes, feed: str = "twilio", **asked: Any) -> Any:
    answer = await service.client.post(f"/v1/deactivations/{feed}", content=body, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def status(service: Service, who: str = WHO, **asked: str) -> Any:
    """What HTTP says of a number; the views must say the same."""
    told = (await service.client.get(f"/v1/numbers/{who}", params=asked)).json()
    view = await service.sql(
        "SELECT state, sendable, reason, waiting_for FROM published.number_status WHERE number = :who", who=who
    )
    shown = (told["state"], told["sendable"], told["reason"], told["waiting_for"])
    assert view == [shown] or (not view and told["state"] == "unseen")
    lists = {(one["sender"], one["list"]) for one in told["lists"] if one["sendable"]}
    assert lists == {*await service.sql("SELECT sender, list FROM published.sendable WHERE number = :who", who=who)}
    return told


async def changes(service: Service) -> list[tuple[str, ...]]:
    items = (await service.client.get("/v1/changes", params={"limit": 1000})).json()["items"]
    return [(c["number"], c["kind"], c["from"], c["to"], c["cause"]["kind"]) for c in items]


def zipped(**members: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return raw.getvalue()


# Without a lookup provider the file decides --------------------------------------------------------------------------


async def test_a_number_in_a_file_is_unsendable_at_once_and_loses_the_consent_of_every_sender(service: Service) -> None:
    await opt_in(service)
    await opt_in(service, sender="67890", name="autumn")
    told = await post(service, "15555551234\n", date=DAY)
    assert (told["records"], told["held"], told["opted_out"], told["remembered"]) == (1, 1, 2, 0)
    shown = await status(service)
    assert (shown["state"], shown["sendable"], shown["reason"]) == ("deactivated", False, "deactivated")
    assert [(one["consent"], one["reason"]) for one in shown["lists"]] == [("opted_out", "deactivated")] * 2
    assert (shown["evidence"]["code_space"], shown["evidence"]["code"]) == ("deactivation_feed", "DEACT")
    history = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"]
    causes = [one["cause"] for one in history if one["reason"] == "deactivated"]
    assert len(causes) == 3
    assert all((c["kind"], c["source"], c["evidence"]) == ("file", "twilio", f"file of {DAY}") for c in causes)
    assert await service.sql("SELECT sum(total)::int FROM hourly_counts WHERE outcome = 'list.opted_out'") == [(2,)]


async def test_an_opt_in_that_is_newer_than_the_file_survives_it(service: Service) -> None:
    await opt_in(service, at="2026-11-21T10:00:00Z")
    await post(service, "15555551234\n", date=DAY)
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["sendable"]) == ("active", True)


async def test_an_opt_in_of_the_files_own_day_is_kept_and_not_sent_to(service: Service) -> None:
    await opt_in(service, at=f"{DAY}T10:00:00Z")
    await post(service, "15555551234\n", date=DAY)
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["consent"], shown["lists"][0]["sendable"]) == (
        "deactivated", "opted_in", False,
    )  # fmt: skip


async def test_a_file_of_yesterday_that_comes_after_a_newer_one_changes_nothing_for_readers(service: Service) -> None:
    await opt_in(service)
    await post(service, "15555551234\n", date=DAY)
    before = await status(service)
    await post(service, "15555551234\n", date="2026-11-10")
    after = await status(service)
    assert before == after


def test_a_day_ends_later_for_sending_than_for_consent_and_nothing_lies_ahead() -> None:
    arrived = datetime(2026, 11, 21, 9, tzinfo=UTC)
    start = datetime(2026, 11, 20, tzinfo=UTC)
    end = start + timedelta(days=1) - timedelta(microseconds=1)
    assert when(start.date(), "DEACT", arrived) == (end, start)
    assert when(arrived.date(), "DEACT", arrived) == (arrived, start + timedelta(days=1))
    assert when(start.date(), "SUSPEND", arrived) == (start, start)
    assert when(None, "DEACT", arrived) == (arrived, arrived)
    assert when(arrived + timedelta(days=3), "DEACT", arrived) == (arrived, arrived)
    assert when(start + timedelta(hours=5), "DEACT", arrived) == (start + timedelta(hours=5),) * 2


# Numbers that we do not hold -----------------------------------------------------------------------------------------


async def test_a_number_that_nobody_holds_is_remembered_and_a_later_opt_in_must_be_newer(service: Service) -> None:
    told = await post(service, "15555551234\n15555550142\n", date=DAY)
    assert (told["held"], told["remembered"], told["changes"]) == (0, 2, 0)
    shown = await status(service)
    assert (shown["state"], shown["sendable"], shown["evidence"]["code"]) == ("deactivated", False, "DEACT")
    refused = await opt_in(service)
    assert (refused.status_code, (await status(service))["state"]) == (409, "deactivated")
    assert (await status(service))["lists"][0]["reason"] == "deactivated"
    assert (await opt_in(service, OTHER, at="2026-11-21T10:00:00Z")).status_code == 200
    shown = await status(service, OTHER)
    assert (shown["state"], shown["lists"][0]["sendable"]) == ("active", True)


async def test_the_feed_tells_of_a_remembered_number_when_somebody_first_speaks_of_it(service: Service) -> None:
    await post(service, "15555551234\n", date=DAY)
    assert await changes(service) == []
    await opt_in(service, at="2026-11-21T10:00:00Z")
    assert await changes(service) == [
        (WHO, "number.state", "unseen", "deactivated", "file"), (WHO, "number.state", "deactivated", "active", "call"),
        (WHO, "list.opted_in", None, "opted_in", "call"),
    ]  # fmt: skip


async def test_a_receipt_for_a_remembered_number_finds_what_the_file_said(service: Service) -> None:
    await post(service, "15555551234\n", date=DAY)
    body = {"message_id": "m1", "number": WHO, "sender": "12345", "status": "delivered"}
    assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200
    assert (await status(service))["state"] == "reassigned"


async def test_of_two_files_about_a_remembered_number_the_newer_one_counts_in_either_order(service: Service) -> None:
    for number, days in ((WHO, ("2026-11-10", DAY)), (OTHER, (DAY, "2026-11-10"))):
        for day in days:
            await post(service, f"{number}\n", date=day)
    dates = {(await status(service, who))["evidence"]["occurred_at"][:10] for who in (WHO, OTHER)}
    assert dates == {DAY}
    assert (await opt_in(service, WHO, at="2026-11-15T10:00:00Z")).status_code == 409


async def test_an_opt_in_that_is_written_while_a_file_is_taken_in_is_not_missed(service: Service) -> None:
    """Whichever of the two comes first, the other one sees it: the number's own row is where they meet."""
    who = [f"+1555556{place:04}" for place in range(200)]
    body = "".join(f"{number}\n" for number in who)
    _, *answers = await asyncio.gather(post(service, body, date=DAY, yes=True), *(opt_in(service, one) for one in who))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert await service.sql("SELECT consent, count(*)::int FROM subscriptions GROUP BY 1") == [("opted_out", 200)]
    assert await service.sql("SELECT count(*)::int FROM published.sendable") == [(0,)]


# Kinds ---------------------------------------------------------------------------------------------------------------


async def test_a_suspension_keeps_consent_lapses_after_thirty_days_and_ends_by_a_resume(service: Service) -> None:
    today = datetime.now(UTC).date()
    await opt_in(service)
    await opt_in(service, OTHER)
    lines = f"number,type,date\n{WHO},SUSPEND,{today}\n{OTHER},SUSPEND,{today - timedelta(days=31)}\n"
    await post(service, lines, "records")
    shown = await status(service)
    assert (shown["state"], shown["until"][:10]) == ("suspended", str(today + timedelta(days=30)))
    assert shown["lists"][0]["consent"] == "opted_in"
    assert (await status(service, OTHER))["state"] == "active"
    await post(service, f"number,type,date\n{WHO},RESUME,{today}\n", "records")
    assert (await status(service))["lists"][0]["sendable"] is True


async def test_a_deactivation_during_a_suspension_ends_consent(service: Service) -> None:
    await opt_in(service)
    await post(service, f"number,type,date\n{WHO},SUSPEND,2026-11-18\n{WHO},DEACT,2026-11-19\n", "records")
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["consent"]) == ("deactivated", "opted_out")


async def test_a_transfer_ends_consent_and_its_new_number_is_a_hint_and_no_opt_in(service: Service) -> None:
    await opt_in(service)
    await post(service, f"number,type,date,new number\n{WHO},TRANSFER,2026-11-19,{STRANGER}\n", "records", date=DAY)
    shown = await status(service)
    assert (shown["state"], shown["reason"], shown["lists"][0]["consent"]) == (
        "deactivated", "number_changed", "opted_out",
    )  # fmt: skip
    assert (await status(service, STRANGER))["state"] == "unseen"
    told = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"][0]
    assert told["cause"]["evidence"] == f"file of {DAY}; now {STRANGER}"


async def test_a_number_that_is_active_again_after_a_deactivation_is_a_strangers(service: Service) -> None:
    await opt_in(service)
    await post(service, f"number,type,date\n{WHO},ACTIVATION,2026-11-19T08:00:00Z\n", "records")
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["consent"]) == ("reassigned", "opted_out")
    assert (await opt_in(service, at="2026-11-20T08:00:00Z")).status_code == 200
    assert (await status(service))["lists"][0]["sendable"] is True


async def test_a_port_keeps_consent_and_brings_the_carrier_or_waits_for_a_lookup(service: Service) -> None:
    await opt_in(service)
    await opt_in(service, OTHER)
    lines = f"number,type,date,new carrier\n{WHO},PORT,2026-11-19,T-Mobile USA\n{OTHER},PORT,2026-11-19,\n"
    await post(service, lines, "records")
    shown = await status(service)
    assert (shown["state"], shown["carrier"]["name"], shown["carrier"]["ported"]) == ("active", "T-Mobile", True)
    assert shown["lists"][0]["sendable"] is True
    shown = await status(service, OTHER)
    assert (shown["state"], shown["waiting_for"]) == ("held", "no_lookup_provider")
    assert shown["lists"][0]["consent"] == "opted_in"


@pytest.mark.parametrize("kind", ["SUSPEND", "RESUME", "ACTIVATION", "PORT", "DEACT", "TRANSFER"])
async def test_whoever_a_file_speaks_of_is_not_unseen(service: Service, kind: str) -> None:
    today = datetime.now(UTC).date()
    await post(service, f"number,type,date\n{WHO},{kind},{today}\n", "records")
    expected = {"SUSPEND": "suspended", "RESUME": "active", "ACTIVATION": "reassigned", "PORT": "held"}
    assert (await status(service))["state"] == expected.get(kind, "deactivated")


# With a lookup provider ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("carrier", "state", "consent"), [
    ("T-Mobile USA, Inc.", "active", "opted_in"), ("AT&T Mobility", "deactivated", "opted_in"),
])  # fmt: skip
async def test_with_a_provider_numbers_stop_at_once_and_the_lookup_decides_on_consent(
    start: Start, carrier: str, state: str, consent: str
) -> None:
    """A carrier's file says that the number has left it: found on another one it was a port, on the same it waits."""
    go = asyncio.Event()
    ported = {"ported": "Y", "on": DAY} if state == "active" else {}
    async with (
        answering(lambda number: Reply(telnyx(number, carrier, **ported), after=go)) as provider,
        start(lookup=provider.settings()) as service,
    ):
        await opt_in(service)
        told = await post(service, "5555551234\n", "carrier", name="att-deacts_20261120.csv")
        assert (told["day"], told["opted_out"]) == (DAY, 0)
        shown = await status(service)
        assert (shown["state"], shown["waiting_for"], shown["carrier"]["name"]) == ("deactivated", "lookup", "AT&T")
        assert shown["lists"][0]["consent"] == "opted_in"
        go.set()
        async with asyncio.timeout(30):
            while await service.sql(
                "SELECT 1 FROM lookups WHERE due_at <= clock_timestamp() OR lease_until IS NOT NULL"
            ):
                await asyncio.sleep(0.02)
        shown = await status(service)
        assert (shown["state"], shown["lists"][0]["consent"]) == (state, consent)


async def test_over_the_budget_a_files_numbers_wait_unsendable_and_opted_in_until_there_is_one(start: Start) -> None:
    people = [f"+1555555{place:04}" for place in range(5)]
    async with answering(lambda number: Reply(telnyx(number, "Verizon New England", line="landline"))) as provider:
        async with start(lookup=provider.settings() | {"budget_per_day": "0.025"}) as service:
            for one in people:
                await opt_in(service, one)
            await post(service, "\n".join(people), date=DAY, yes=True)
            await asked(service, "SELECT 1 FROM lookups WHERE waiting_for IS DISTINCT FROM 'budget'")
            shown = [await status(service, one) for one in people]
            assert provider.calls.total() == 2
            assert sorted((one["state"], str(one["waiting_for"]), one["lists"][0]["consent"]) for one in shown) == [
                ("deactivated", "None", "opted_out"), ("deactivated", "None", "opted_out"),
                *[("deactivated", "budget", "opted_in")] * 3,
            ]  # fmt: skip
            assert await service.sql("SELECT 1 FROM published.sendable") == []
        async with start(lookup=provider.settings() | {"budget_per_day": "1"}) as service:
            await asked(service, "SELECT 1 FROM lookups")
            assert {(await status(service, one))["lists"][0]["consent"] for one in people} == {"opted_out"}


async def asked(service: Service, waiting: str) -> None:
    async with asyncio.timeout(30):
        while await service.sql(waiting):
            await asyncio.sleep(0.02)


async def test_nobody_pays_for_lookups_of_numbers_that_nobody_holds(start: Start) -> None:
    async with answering(lambda number: Reply(telnyx(number, "AT&T"))) as provider:
        async with start(lookup=provider.settings()) as service:
            await post(service, "5555551234\n", date=DAY)
            assert (await status(service))["waiting_for"] is None
            assert await service.sql("SELECT count(*)::int FROM lookups") == [(0,)]


# Files ---------------------------------------------------------------------------------------------------------------

PACKED = {
    "twilio": b"15555551234\n",
    "vonage": zipped(list="15555551234\n"),
    "vibes": gzip.compress(b"MDN\tCarrier Code\n5555551234\t77\n"),
    "govdelivery": b"15555551234",
    "aws": b"phone number,carrier\n+15555551234,AT&T\n",
    "infobip": orjson.dumps({"results": [{"destination": "15555551234", "type": "DEACTIVATION"}]}),
    "telesign": zipped(list="15555551234\n"),
    "records": b"15555551234,DEACT,2026-11-20\n",
    "generic": b"a,b\nx,15555551234\n",
    "carrier": zipped(list="5555551234\n"),
}


@pytest.mark.parametrize("feed", FEEDS)
async def test_every_feed_is_taken_in_as_it_is_packed(service: Service, feed: str) -> None:
    asked = {"columns": "number=b"} if feed == "generic" else {}
    await opt_in(service)
    told = await post(service, PACKED[feed], feed, date=DAY, **asked)
    assert (told["feed"], told["day"], told["records"], told["held"], told["broken"]) == (feed, DAY, 1, 1, 0)
    assert (await status(service))["state"] == "deactivated"


async def test_a_broken_line_is_told_with_its_number_and_skipped(service: Service) -> None:
    told = await post(service, "15555551234\nrubbish\n\n12\n15555550142\n", date=DAY)
    assert (told["records"], told["broken"]) == (2, 2)
    assert [one["line"] for one in told["errors"]] == [2, 4]
    assert (await status(service, OTHER))["state"] == "deactivated"


async def test_the_same_file_again_changes_nothing(service: Service) -> None:
    await opt_in(service)
    first = await post(service, "15555551234\n15555550142\n", date=DAY)
    before, feed = await service.sql("SELECT * FROM numbers ORDER BY number"), await changes(service)
    for asked in ({"date": DAY}, {}):
        again = await post(service, "15555551234\n15555550142\n", **asked)
        assert (again["already"], again["records"]) == (True, first["records"])
    assert await service.sql("SELECT * FROM numbers ORDER BY number") == before
    assert await changes(service) == feed


async def test_a_file_without_a_day_counts_from_its_arrival_and_is_known_again(service: Service) -> None:
    await opt_in(service, at=datetime.now(UTC).isoformat())
    assert (await post(service, "15555551234\n"))["opted_out"] == 1
    assert (await opt_in(service, at=datetime.now(UTC).isoformat())).status_code == 200
    assert (await post(service, "15555551234\n"))["already"] is True
    assert (await status(service))["state"] == "active"


async def test_a_file_that_was_cut_is_used_as_far_as_it_goes_and_the_whole_one_adds_the_rest(service: Service) -> None:
    numbers = [f"+1415555{place:04}" for place in range(3_000)]
    whole = gzip.compress("".join(f"{number}\n" for number in numbers).encode(), 0)
    told = await post(service, whole[:20_000], date=DAY)
    assert told["cut"]
    assert 0 < told["remembered"] < 3_000
    more = await post(service, whole, date=DAY)
    assert (more["cut"], more["remembered"]) == (False, 3_000 - told["remembered"])


@pytest.mark.parametrize("body", ["<html><body>Not found</body></html>", b"PK\x03\x04 but no zip"])
async def test_what_is_no_file_of_the_feed_is_refused_in_words(service: Service, body: str | bytes) -> None:
    answer = await service.client.post("/v1/deactivations/twilio", content=body)
    assert answer.status_code == 422
    assert "get the file again" in answer.text or "nothing was done" in answer.text
    assert await service.sql("SELECT count(*)::int FROM feed_files WHERE finished_at IS NOT NULL") == [(0,)]


NO_LINE = {
    "a word for a table": ("vibes", gzip.compress(b"null")),
    "a word that is no name of a column": ("vibes", b"null\n\n"),
    "an error in JSON": ("aws", b'{"error": "not found"}'),
    "a page of one line": ("vonage", b"<html>Access denied</html>"),
    "a word for a list": ("twilio", b"null"),
    "words for a list": ("govdelivery", b"Not available yet\n"),
    "a word where the call tells the place": ("generic", b"null"),
    "nothing in JSON": ("infobip", b"null"),
    "a word for records": ("records", b"null"),
    "a gzip that is cut in its first bytes": ("vibes", gzip.compress(b"MDN\tCarrier Code\n5555551234\t77\n")[:12]),
    "a gzip of which a byte was changed": ("twilio", gzip.compress(b"15555551234\n", 0).replace(b"51234", b"51235")),
    "a zip of nothing": ("carrier", zipped()),
    "a zip of folders": ("carrier", zipped(**{"att/": "", "__MACOSX/x": "x"})),
}


@pytest.mark.parametrize(("feed", "body"), NO_LINE.values(), ids=NO_LINE)
async def test_a_file_in_which_no_line_can_be_read_is_refused_and_told_how_to_be_mended(
    service: Service, feed: str, body: bytes
) -> None:
    asked = {"columns": "number=1"} if feed == "generic" else {}
    for more in ({"dry_run": True}, {}):
        answer = await service.client.post(f"/v1/deactivations/{feed}", content=body, params=asked | more)
        assert answer.status_code == 422, answer.text
        detail = answer.json()["detail"]
        assert ("name the feed that wrote the file" in detail) or ("get the file again" in detail)
    assert await service.sql("SELECT count(*)::int FROM feed_files") == [(0,)]


QUIET = {
    "vibes": gzip.compress(b"MDN\tCarrier Code\n"),
    "aws": b"Destination Phone Number\n",
    "govdelivery": b"phone_number\n",
    "generic": b"handy\n",
    "infobip": b'{"results": [], "paging": {"page": 0, "totalPages": 0}}',
    "twilio": b"MDN",
}


@pytest.mark.parametrize("feed", QUIET)
async def test_a_heading_of_known_names_and_nothing_more_is_a_quiet_day(service: Service, feed: str) -> None:
    asked = {"columns": "number=Handy"} if feed == "generic" else {}
    told = await post(service, QUIET[feed], feed, **asked)
    assert (told["records"], told["broken"], told["already"]) == (0, 0, False)


async def test_a_file_that_is_being_taken_in_is_not_begun_a_second_time(service: Service) -> None:
    engine, meaning = service.app.state.engine, service.app.state.meaning
    file = io.BytesIO(b"15555551234\n")
    given = importing._given(Order(FEEDS["twilio"], file))
    async with importing._own_connection(engine) as db:
        begun = await files.begin(db, given, datetime.now(UTC))
        assert await files.take_alone(db, begun.id)
        answer = await service.client.post("/v1/deactivations/twilio", content=b"15555551234\n")
        assert answer.status_code == 409
        with pytest.raises(UnderWay):
            await take_in(engine, meaning, Order(FEEDS["twilio"], file), Guard())
        await files.give_back(db, begun.id)
    assert (await post(service, "15555551234\n"))["remembered"] == 1


async def test_lines_that_a_crash_of_the_server_took_are_read_again(service: Service) -> None:
    engine = service.app.state.engine
    raw = b"15555551234\n15555550142\n"
    async with importing._own_connection(engine) as db:
        begun = await files.begin(db, importing._given(Order(FEEDS["twilio"], io.BytesIO(raw))), datetime.now(UTC))
        begun = await files.prepare(db, begun)
        await files.stage(db, begun, [(1, WHO, "DEACT", None, None, None, None, None)], [(9, "rubbish")], 1)
        await db.execute(f"TRUNCATE {files.lines_of(begun.id)}")
    told = await post(service, raw)
    assert (told["records"], told["broken"], told["remembered"]) == (2, 0, 2)


# Trying, and asking --------------------------------------------------------------------------------------------------


async def test_a_dry_run_tells_what_it_would_do_and_does_nothing(service: Service) -> None:
    await opt_in(service)
    before = await service.sql("SELECT * FROM numbers"), await changes(service)
    told = await post(service, "15555551234\n15555550142\nx\n", date=DAY, dry_run=True)
    assert (told["dry_run"], told["held"], told["remembered"], told["broken"]) == (True, 1, 1, 1)
    assert told["lists"] == [{"sender": "12345", "list": "spring", "subscribers": 1, "affected": 1}]
    assert (await service.sql("SELECT * FROM numbers"), await changes(service)) == before
    assert await service.sql("SELECT count(*)::int FROM feed_files") == [(0,)]
    assert (await post(service, "15555551234\n15555550142\nx\n", date=DAY))["already"] is False


async def test_a_file_that_takes_too_much_of_a_list_is_not_done_before_somebody_says_yes(service: Service) -> None:
    people = [f"+1555556{place:04}" for place in range(40)]
    for one in people:
        await opt_in(service, one)
    body = "".join(f"{one}\n" for one in people[:3])
    answer = await service.client.post("/v1/deactivations/twilio", content=body, params={"date": DAY})
    assert answer.status_code == 409
    problem = answer.json()
    assert "3 of the 40 subscribers" in problem["detail"]
    assert "yes=true" in problem["detail"]
    assert problem["lists"] == [{"sender": "12345", "list": "spring", "subscribers": 40, "affected": 3}]
    assert (await status(service, people[0]))["state"] == "active"
    told = await post(service, body, date=DAY, yes=True)
    assert told["opted_out"] == 3


@pytest.mark.parametrize(("feeds", "code"), [
    ({"guard": 0.5}, 200), ({"guard_at_least": 4}, 200), ({"guard": 0.02, "guard_at_least": 1}, 409), ({}, 409),
])  # fmt: skip
async def test_how_much_is_too_much_is_a_setting(start: Start, feeds: dict[str, Any], code: int) -> None:
    async with start(feeds=feeds) as service:
        for place in range(40):
            await opt_in(service, f"+1555556{place:04}")
        body = "".join(f"+1555556{place:04}\n" for place in range(3))
        assert (await service.client.post("/v1/deactivations/twilio", content=body)).status_code == code


async def test_those_who_are_gone_already_do_not_count_again(service: Service) -> None:
    people = [f"+1555556{place:04}" for place in range(40)]
    for one in people:
        await opt_in(service, one)
    body = "".join(f"{one}\n" for one in people[:10])
    await post(service, body, date="2026-11-19", yes=True)
    told = await post(service, body + "15555550142\n", date=DAY)
    assert told["lists"] == []


# The edge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("feed", "asked", "code"), [
    ("nobody", {}, 404), ("generic", {}, 422), ("generic", {"columns": "colour=red"}, 422),
    ("twilio", {"date": "soon"}, 422), ("generic", {"columns": "number=Nowhere"}, 422),
])  # fmt: skip
async def test_a_wrong_question_is_told_how_to_be_mended(service: Service, feed: str, asked: Any, code: int) -> None:
    answer = await service.client.post(f"/v1/deactivations/{feed}", content=b"a,b\n1,2\n", params=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (code, "application/problem+json")


async def test_an_empty_body_is_a_mistake_and_no_empty_day(service: Service) -> None:
    answer = await service.client.post("/v1/deactivations/twilio")
    assert (answer.status_code, "send the file itself" in answer.text) == (422, True)


async def test_it_takes_a_key_with_its_own_scope(start: Start) -> None:
    async with start(auth="on", first_key="k" * 30) as service:
        answer = await service.client.post("/v1/deactivations/twilio", content=b"15555551234\n")
        assert answer.status_code == 401
        key = {"authorization": f"Bearer {'k' * 30}"}
        answer = await service.client.post("/v1/deactivations/twilio", content=b"15555551234\n", headers=key)
        assert answer.status_code == 200


async def test_a_file_of_many_parts_keeps_the_order_of_its_lines_and_counts_them_all(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "STAGED_AT_ONCE", 7)
    monkeypatch.setattr(importing, "ACTED_AT_ONCE", 3)
    monkeypatch.setattr(files, "BLOCKS", 1)
    people = [f"+1555556{place:04}" for place in range(30)]
    for one in people:
        await opt_in(service, one)
    strangers = [f"+1415555{place:04}" for place in range(500)]
    lines = [*people, "rubbish", *strangers]
    told = await post(service, "\n".join(lines), date=DAY, yes=True)
    assert (told["records"], told["held"], told["remembered"], told["opted_out"]) == (530, 30, 500, 30)
    assert told["errors"] == [{"line": 31, "error": "not a possible phone number"}]
    assert await service.sql("SELECT count(*)::int FROM published.sendable") == [(0,)]
    tables = await service.sql("SELECT relname FROM pg_class WHERE relname LIKE 'feed_lines%'")
    assert tables == []


def test_a_layout_is_part_of_what_a_file_is() -> None:
    raw = io.BytesIO(b"15555551234,15555550142\n")
    one, other = (
        importing._given(Order(FEEDS["generic"], raw, layout=Layout({"number": place}))) for place in ("1", "2")
    )
    assert one.digest != other.digest
