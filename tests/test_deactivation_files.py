"""Deactivation files as they are taken in: whole, cut, twice, tried first, or refused in words."""

from __future__ import annotations

import asyncio
import gzip
import io
import zipfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest
from asyncpg import InterfaceError, PostgresError
from sqlalchemy import text

from app.feeds import FEEDS
from app.models.feed import Layout
from app.services.connection import POOL_SIZE, Connection, driver_of
from app.services.deactivations import files, importing
from app.services.deactivations.importing import Guard, Order, UnderWay, take_in
from tests.conftest import Service, Start
from tests.deactivation_steps import DAY, OTHER, STRANGER, WHO, changes, opt_in, post, status
from tests.locks import waiting


def zipped(**members: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in members.items():
            archive.writestr(name, lines)
    return raw.getvalue()


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


async def test_a_file_that_was_left_half_done_for_weeks_goes_on_and_another_that_was_is_forgotten(
    service: Service,
) -> None:
    for who in (WHO, OTHER):
        await opt_in(service, who)
    await post(service, f"{OTHER}\n")
    await post(service, f"{WHO}\n")
    await service.sql(
        """UPDATE feed_files SET finished_at = NULL, acted = 0, changes = 0,
               started_at = started_at - interval '20 days'"""
    )
    told = await post(service, f"{WHO}\n")
    assert (told["records"], told["already"]) == (1, False)
    left = await service.sql("SELECT finished_at IS NULL, started_at < now() - interval '19 days' FROM feed_files")
    assert left == [(False, True)]


async def another_file_comes(service: Service) -> None:
    await post(service, f"{WHO}\n")


async def it_is_only_tried(service: Service) -> None:
    await post(service, f"{STRANGER}\n", date=DAY, dry_run="true")


async def it_takes_too_many(service: Service) -> None:
    for who in NOT_REACHED:
        await opt_in(service, who)
    answer = await service.client.post("/v1/deactivations/twilio", content=HALF_DONE, params={"date": DAY})
    assert answer.status_code == 409


NOT_REACHED = [WHO, OTHER, "+15555550177"]
HALF_DONE = "".join(f"{number}\n" for number in (STRANGER, *NOT_REACHED))


@pytest.mark.parametrize("happens", [another_file_comes, it_is_only_tried, it_takes_too_many])
async def test_what_a_file_said_before_it_was_left_half_done_is_not_forgotten(
    service: Service, happens: Callable[[Service], Awaitable[None]]
) -> None:
    body = HALF_DONE if happens is it_takes_too_many else f"{STRANGER}\n"
    await post(service, body, date=DAY)
    await service.sql("DELETE FROM numbers WHERE number = ANY(:ones)", ones=NOT_REACHED)
    await service.sql(
        "UPDATE feed_files SET finished_at = NULL, acted = 0, started_at = started_at - interval '20 days'"
    )
    await happens(service)
    await opt_in(service, STRANGER)
    assert (await status(service, STRANGER))["state"] == "deactivated"
    again = await post(service, body, date=DAY, yes="true")
    assert (again["already"], again["records"]) == (False, len(body.split()))


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


async def test_of_many_files_at_once_two_are_taken_in_and_nobody_else_waits_for_them(
    service: Service, database_url: str
) -> None:
    """Each has a connection to its end, and needs another: of as many as there are connections none ever got one."""
    holder = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with holder.transaction():
        await holder.execute("LOCK TABLE numbers IN SHARE MODE")
        coming = [asyncio.create_task(post(service, f"1555555{1000 + place}\n")) for place in range(2 * POOL_SIZE)]
        while await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
            assert not any(file.done() for file in coming)
            await asyncio.sleep(0.01)
        for path in ("/readyz", "/v1/numbers/+15555551000", "/v1/alarms"):
            assert (await service.client.get(path)).status_code == 200
    await holder.close()
    assert [one["remembered"] for one in await asyncio.gather(*coming)] == [1] * len(coming)


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


async def test_after_a_crash_in_the_middle_of_acting_every_line_is_acted_on_wherever_it_lies_then(
    service: Service,
) -> None:
    await opt_in(service)
    body = f"{WHO}\n{OTHER}\n"
    first = await post(service, body, date=DAY)
    await service.sql("DELETE FROM numbers WHERE number = :other", other=OTHER)
    await service.sql("UPDATE feed_files SET finished_at = NULL, acted = :done", done=files.BLOCKS)
    told = await post(service, body, date=DAY)
    assert (told["held"], told["changes"], told["already"]) == (1, first["changes"], False)
    assert (await status(service, OTHER))["state"] == "deactivated"


@pytest.mark.parametrize("ending", [files.finish, files.forget])
async def test_a_file_that_another_process_ends_as_it_is_found_is_not_gone_on_with(
    service: Service, monkeypatch: pytest.MonkeyPatch, ending: Callable[..., Awaitable[None]]
) -> None:
    body = f"{STRANGER}\n"
    take_alone = files.take_alone

    async def too_late(db: Connection, file: int) -> bool:
        await (ending(db, file, None) if ending is files.finish else ending(db, file))
        return await take_alone(db, file)

    with monkeypatch.context() as patched:
        patched.setattr(files, "take_alone", too_late)
        answer = await service.client.post("/v1/deactivations/twilio", content=body, params={"date": DAY})
    assert answer.status_code == 409
    assert "this very file" in answer.json()["detail"]
    again = await post(service, body, date=DAY)
    assert again["already"] is (ending is files.finish)


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


async def broken_off(service: Service, body: str, before: str) -> None:
    """A file whose connections are cut when its lines before this one have acted, each by itself."""
    async with service.app.state.engine.connect() as other:
        await other.execute(text("SELECT FROM numbers WHERE number = :number FOR UPDATE"), {"number": before})
        posting = asyncio.create_task(post(service, body, yes=True))
        await waiting(service, 1, posting)
        await service.sql(CUT)
        with pytest.raises(InterfaceError):
            await posting


async def test_what_acted_before_a_file_broke_off_in_the_middle_of_a_part_is_counted_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ACTED_AT_ONCE", 1)
    for who in NOT_REACHED:
        await opt_in(service, who)
    body = "".join(f"{who}\n" for who in NOT_REACHED)
    await broken_off(service, body, max(NOT_REACHED))
    told = await post(service, body, yes=True)
    assert (told["records"], told["held"], told["opted_out"]) == (3, 3, 3)


async def test_who_comes_back_while_a_file_is_half_done_stays_though_it_is_tried_before_it_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ACTED_AT_ONCE", 1)
    first, last = sorted((WHO, OTHER))
    for who in (first, last):
        await opt_in(service, who)
    body = f"{first}\n{last}\n"
    await broken_off(service, body, last)
    await opt_in(service, first, datetime.now(UTC).isoformat())
    await post(service, body, dry_run=True)
    await post(service, body)
    assert [(await status(service, who))["state"] for who in (first, last)] == ["active", "deactivated"]


@pytest.mark.parametrize(("ending", "ended"), [(files.finish, [None]), (files.forget, [])])
async def test_a_file_ends_with_its_lines_or_not_at_all(
    service: Service, ending: Callable[..., Awaitable[None]], ended: list[None]
) -> None:
    body, engine = f"{WHO}\n", service.app.state.engine
    async with importing._own_connection(engine) as db:
        given = importing._given(Order(FEEDS["twilio"], io.BytesIO(body.encode())))
        begun = await files.begin(db, given, datetime.now(UTC))
        await files.prepare(db, begun)
    async with engine.connect() as reader, engine.connect() as pooled:
        await reader.execute(text(f"SELECT FROM {files.lines_of(begun.id)}"))
        ends = asyncio.create_task(ending(await driver_of(pooled), begun.id, *ended))
        await waiting(service, 1, ends)
        await service.sql(CUT)
        with pytest.raises((PostgresError, InterfaceError)):
            await ends
        await pooled.invalidate()
    assert await service.sql("SELECT finished_at FROM feed_files") == [(None,)]
    assert (await post(service, body))["already"] is False
    assert await service.sql("SELECT relname FROM pg_class WHERE relname LIKE 'feed_lines%'") == []


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


MIXED = [(WHO, "DEACT"), (WHO, "SUSPEND"), (OTHER, "DEACT"), (OTHER, "DEACT"), (STRANGER, "RESUME"),
         ("+15555550143", "TRANSFER"), ("+15555550144", "DEACT")]  # fmt: skip


@pytest.mark.parametrize("known_before", ["", "2026-11-20", "2026-11-22"], ids=["nobody", "of before", "of later"])
async def test_a_dry_run_tells_the_figures_of_the_run(service: Service, known_before: str) -> None:
    """Of several records for one number, of kinds that are not only noted, of numbers that a file has told before."""
    await opt_in(service)
    if known_before:
        await post(service, "number,type\n+15555550144,DEACT\n", feed="records", date=known_before)
    lines = "".join(f"{number},{kind}\n" for number, kind in MIXED)
    asked = {"feed": "records", "date": "2026-11-21", "yes": True}
    tried, done = [await post(service, f"number,type\n{lines}", **asked, dry_run=dry) for dry in (True, False)]
    assert (done["held"], done["remembered"]) == (3, 2 if known_before == "2026-11-22" else 3)
    for figure in ("records", "broken", "held", "remembered", "lists"):
        assert tried[figure] == done[figure]


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


async def test_numbers_that_are_active_again_for_somebody_else_are_taken_from_a_list_too(service: Service) -> None:
    people = [f"+1555556{place:04}" for place in range(40)]
    for one in people:
        await opt_in(service, one)
    body = "number,type\n" + "".join(f"{one},ACTIVATION\n" for one in people[:3])
    taken = [{"sender": "12345", "list": "spring", "subscribers": 40, "affected": 3}]
    assert (await post(service, body, "records", dry_run=True))["lists"] == taken
    answer = await service.client.post("/v1/deactivations/records", content=body)
    assert (answer.status_code, answer.json().get("lists")) == (409, taken)
    assert (await status(service, people[0]))["state"] == "active"


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
