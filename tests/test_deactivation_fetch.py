"""Deactivation files as they are fetched: a real HTTP server on loopback keeps them, well or badly."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from app.config import Settings, SettingsError
from app.main import create_app
from app.services.deactivations import fetching, transport
from app.services.deactivations.fetching import Elsewhere, Fetched, Fetcher
from app.services.deactivations.transport import Transport
from app.wiring import guard_of, subscriptions_of
from tests import keeper
from tests.conftest import Service, Start
from tests.keeper import Files, keeping
from tests.loopback import Reply, Request
from tests.running import sendable

FULL = Path("/dev/full")
WHO, OTHER, THIRD = "+15555551234", "+15555550142", "+15555550199"
KEYS = {
    "twilio": {"account_sid": "AC1", "auth_token": "token"},
    "vonage": {"api_key": "key", "api_secret": "secret"},
    "telesign": {"customer_id": "id", "api_key": "key"},
    "infobip": {"api_key": "k"},
}
SAYS: dict[str, Callable[[Files], Callable[[Request], Reply]]] = {
    "twilio": keeper.twilio, "vonage": keeper.vonage, "telesign": keeper.telesign, "infobip": keeper.infobip,
}  # fmt: skip
TODAY = date(2026, 11, 21)


@asynccontextmanager
async def fetcher(service: Service, url: str, feed: str = "twilio", *, sure: bool = False,
                  **more: Any) -> AsyncIterator[Fetcher]:  # fmt: skip
    settings = Settings(feeds={feed: {"base_url": url, "days": 3} | KEYS[feed] | more})
    pooled = Transport(wait=wait_none())
    state = service.app.state
    yield Fetcher(
        state.engine, state.meaning, subscriptions_of(settings), guard_of(settings), pooled, sure=sure
    )  # fmt: skip
    await pooled.close()


def told(found: list[Fetched]) -> list[tuple[str, int | None]]:
    return [(str(one.day), one.outcome.records if one.outcome else None) for one in found]


async def alarms(service: Service) -> list[tuple[str, str]]:
    items = (await service.client.get("/v1/alarms")).json()["items"]
    return [(one["kind"], one["key"]) for one in items if one["cleared"] is None]


async def opt_in(service: Service, who: str) -> None:
    body = {"consented_at": "2026-01-02T03:04:05Z", "source": "form"}
    assert (await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{who}", json=body)).is_success


@pytest.mark.parametrize("feed", SAYS)
async def test_missed_days_are_caught_up_in_order_and_none_is_taken_in_twice(service: Service, feed: str) -> None:
    files = {"2026-11-18": f"{WHO}\n", "2026-11-19": f"{OTHER}\n"}
    async with keeping(SAYS[feed](files)) as kept, fetcher(service, kept.url, feed) as fetch:
        await opt_in(service, WHO)
        assert told(await fetch.fetch(TODAY)) == [("2026-11-18", 1), ("2026-11-19", 1)]
        states = "SELECT number, state, reason FROM numbers ORDER BY number"
        assert await service.sql(states) == [(OTHER, "deactivated", "deactivated"), (WHO, "deactivated", "deactivated")]
        assert await service.sql("SELECT consent FROM subscriptions") == [("opted_out",)]
        files["2026-11-20"] = f"{THIRD}\n"
        assert told(await fetch.fetch(TODAY)) == [("2026-11-20", 1)]
        assert told(await fetch.fetch(TODAY)) == []
        assert await alarms(service) == []
        shown = (await service.client.get(f"/v1/numbers/{WHO}")).json()["carrier"] or {}
        assert shown.get("name") == {"telesign": "AT&T", "infobip": "AT&T"}.get(feed)


async def test_after_a_long_time_away_all_that_is_kept_is_caught_up(service: Service) -> None:
    files = {"2026-08-01": f"{WHO}\n"}
    async with keeping(keeper.twilio(files)) as kept, fetcher(service, kept.url) as fetch:
        assert told(await fetch.fetch(date(2026, 8, 2))) == [("2026-08-01", 1)]
        files |= {"2026-08-05": f"{OTHER}\n", "2026-11-20": f"{THIRD}\n"}
        assert told(await fetch.fetch(TODAY)) == [("2026-08-05", 1), ("2026-11-20", 1)]


async def test_the_credentials_go_to_the_feed_and_not_where_it_leads(service: Service) -> None:
    async with keeping(keeper.twilio({"2026-11-20": f"{WHO}\n"})) as kept, fetcher(service, kept.url) as fetch:
        await fetch.fetch(TODAY)
        assert [
            ("authorization" in request.headers) for request in kept.asked if request.path.startswith("/file/")
        ] == [False]


async def test_a_download_that_breaks_off_is_begun_anew_and_nothing_is_taken_in_by_halves(service: Service) -> None:
    whole, times = keeper.twilio({"2026-11-20": "".join(f"+1555556{n:04}\n" for n in range(900))}), [0]

    def says(request: Request) -> Reply:
        reply = whole(request)
        if request.path.startswith("/file/"):
            times[0] += 1
            if times[0] < 3:
                return Reply(reply.body, 200, reply.headers, cut=400) if times[0] == 1 else Reply(b"", 503)
        return reply

    async with keeping(says) as kept, fetcher(service, kept.url) as fetch:
        assert told(await fetch.fetch(TODAY)) == [("2026-11-20", 900)]
        assert times == [3]


@pytest.mark.skipif(not FULL.exists(), reason="Linux alone has a device that is always full")
@pytest.mark.parametrize("room", ["none left", "no folder"])
async def test_where_there_is_no_room_for_a_file_it_is_told_and_the_others_are_fetched(
    service: Service, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    real, files = tempfile.TemporaryFile, {"2026-11-20": "".join(f"+1555556{n:04}\n" for n in range(900))}
    turns = iter([room])

    def first_without(**named: Any) -> Any:
        if next(turns, None) is None:
            return real(**named)
        if room == "no folder":
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")
        return Full(FULL.open("r+b", buffering=0))

    monkeypatch.setattr(fetching.tempfile, "TemporaryFile", first_without)
    async with keeping(keeper.twilio(files)) as one, keeping(keeper.telesign({"2026-11-20": f"{OTHER}\n"})) as two:
        async with fetcher(service, one.url, days=1) as fetch, fetcher(service, two.url, "telesign") as other:
            both = (*fetch.subscriptions, *other.subscriptions)
            [lost, taken] = await replace(fetch, subscriptions=both).fetch(TODAY)
            assert lost.error
            assert "TMPDIR" in lost.error
            assert told([taken]) == [("2026-11-20", 1)]
            assert await alarms(service) == [("feed_failed", "twilio")]
            assert told(await fetch.fetch(TODAY)) == [("2026-11-20", 900)]


async def test_a_fault_of_ours_that_one_file_meets_keeps_no_other_waiting(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fetching.take_in

    async def fails(*given: Any) -> Any:
        if given[2].day == date(2026, 11, 19):
            raise RuntimeError(WHO)
        return await real(*given)

    monkeypatch.setattr(fetching, "take_in", fails)
    said = {"2026-11-19": f"{WHO}\n", "2026-11-20": f"{THIRD}\n"}
    async with keeping(keeper.twilio(said)) as one, keeping(keeper.telesign({"2026-11-20": f"{OTHER}\n"})) as two:
        async with fetcher(service, one.url, days=2) as fetch, fetcher(service, two.url, "telesign") as other:
            both = (*fetch.subscriptions, *other.subscriptions)
            [faulty, *taken] = await replace(fetch, subscriptions=both).fetch(TODAY)
            assert (faulty.feed, faulty.day, faulty.error) == ("twilio", date(2026, 11, 19), fetching.FAULT)
            assert told(taken) == [("2026-11-20", 1), ("2026-11-20", 1)]
            assert await alarms(service) == [("feed_failed", "twilio")]
            monkeypatch.undo()
            assert told(await fetch.fetch(TODAY)) == [("2026-11-19", 1)]
            assert await alarms(service) == []


class Full(io.BufferedRandom):
    """A file on a full disk: where one is makes no difference to a device."""

    def tell(self) -> int:
        return 0

    def seek(self, *_: int) -> int:
        return 0

    def truncate(self, *_: int | None) -> int:
        return 0

    def write(self, *data: Any) -> int:
        return self.raw.write(*data) or 0


@pytest.mark.parametrize("broken", ["the list", "the file"])
async def test_an_answer_that_is_not_compressed_as_it_says_is_an_alarm_of_that_feed_alone(
    service: Service, broken: str
) -> None:
    good = keeper.twilio({"2026-11-20": f"{WHO}\n"})

    def says(request: Request) -> Reply:
        reply = good(request)
        if request.path.startswith("/file/") != (broken == "the file"):
            return reply
        return replace(reply, headers=reply.headers | {"content-encoding": "gzip"}, body=reply.body or b"no gzip")

    async with keeping(says) as one, keeping(keeper.telesign({"2026-11-20": f"{OTHER}\n"})) as two:
        async with fetcher(service, one.url, days=1) as fetch, fetcher(service, two.url, "telesign") as other:
            both = (*fetch.subscriptions, *other.subscriptions)
            [lost, taken] = await replace(fetch, subscriptions=both).fetch(TODAY)
    assert lost.error == ("the file broke off" if broken == "the file" else "the answer broke off")
    assert told([taken]) == [("2026-11-20", 1)]


@pytest.mark.parametrize("place", ["/file/", ""], ids=["its file", "every answer"])
async def test_a_host_that_drips_keeps_no_other_feed_waiting(
    service: Service, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Each byte comes in time, and the whole would take hours."""
    good = keeper.twilio({"2026-11-20": f"{WHO}\n" * 1000})

    def drips(request: Request) -> Reply:
        reply = good(request)
        return replace(reply, body=reply.body.ljust(200_000), drips=0.1) if place in request.path else reply

    monkeypatch.setattr(transport, "FILE_WITHIN", 1.0)
    monkeypatch.setattr(transport, "ANSWER_WITHIN", 1.0)
    async with keeping(drips) as slow, keeping(keeper.telesign({"2026-11-20": f"{OTHER}\n"})) as well:
        async with fetcher(service, slow.url, days=1) as fetch, fetcher(service, well.url, "telesign") as other:
            both = (*fetch.subscriptions, *other.subscriptions)
            [dripped, taken] = await replace(fetch, subscriptions=both).fetch(TODAY)
    assert (dripped.feed, dripped.error, dripped.outcome) == ("twilio", "it took longer than 1 s", None)
    assert told([taken]) == [("2026-11-20", 1)]
    assert await alarms(service) == [("feed_failed", "twilio")]


@pytest.mark.parametrize("reply", [Reply(b"", 401), Reply(b"<html>", 200), Reply(b"", 500)])
async def test_a_feed_that_does_not_answer_as_it_should_is_an_alarm_until_it_does(
    service: Service, reply: Reply
) -> None:
    broken = True
    good = keeper.telesign({"2026-11-20": f"{WHO}\n"})
    async with keeping(lambda request: reply if broken else good(request)) as kept:
        async with fetcher(service, kept.url, "telesign") as fetch:
            [one] = await fetch.fetch(TODAY)
            assert one.error
            assert await alarms(service) == [("feed_failed", "telesign")]
            broken = False
            assert told(await fetch.fetch(TODAY)) == [("2026-11-20", 1)]
            assert await alarms(service) == []


async def test_a_link_that_is_good_no_more_is_no_wrong_key(service: Service) -> None:
    """Twilio's are for two minutes, and a download that breaks off is begun anew for longer."""
    good = keeper.twilio({"2026-11-20": f"{WHO}\n"})

    def says(request: Request) -> Reply:
        return Reply(b"<Error/>", 403) if request.path.startswith("/file/") else good(request)

    async with keeping(says) as kept, fetcher(service, kept.url) as fetch:
        [one] = await fetch.fetch(TODAY)
        assert one.error == "HTTP 403: the link to the file is good no more, another one is asked for at the next look"


@pytest.mark.parametrize("feed", ["twilio", "vonage", "telesign", "infobip"])
async def test_a_feed_that_has_nothing_of_any_day_is_an_alarm_until_it_has(service: Service, feed: str) -> None:
    """As behind a wrong address; of yesterday alone it may just not be ready."""
    lost, files = True, dict[str, str]()
    good = SAYS[feed](files)
    async with keeping(lambda request: Reply(b"<html>", 404) if lost else good(request)) as kept:
        async with fetcher(service, kept.url, feed, days=1) as fetch:
            assert await fetch.fetch(TODAY) == []
        async with fetcher(service, kept.url, feed) as fetch:
            [one] = await fetch.fetch(TODAY)
            assert "base_url" in str(one.error)
            assert await alarms(service) == [("feed_failed", feed)]
            lost = False
            files["2026-11-19"] = f"{WHO}\n"
            assert told(await fetch.fetch(TODAY)) == [("2026-11-19", 1)]
            assert await alarms(service) == []
        lost = True
        async with fetcher(service, kept.url, feed, days=1) as fetch:
            assert [one.error for one in await fetch.fetch(TODAY + timedelta(days=2))] == [one.error]


@pytest.mark.parametrize("feed", ["telesign", "infobip"])
async def test_a_feed_that_lists_no_file_of_any_day_is_an_alarm_until_it_does(service: Service, feed: str) -> None:
    files = {"2026-10-01": f"{OTHER}\n"}
    async with keeping(SAYS[feed](files)) as kept, fetcher(service, kept.url, feed) as fetch:
        [one] = await fetch.fetch(TODAY)
        assert (one.key, "nothing" in str(one.error)) == (None, True)
        assert await alarms(service) == [("feed_failed", feed)]
        files["2026-11-19"] = f"{WHO}\n"
        assert told(await fetch.fetch(TODAY)) == [("2026-11-19", 1)]
        assert await alarms(service) == []


async def test_a_file_that_was_cut_where_it_is_kept_is_fetched_again(service: Service) -> None:
    whole = gzip.compress(f"{WHO}\n{OTHER}\n".encode())
    kept_there = whole[:-6]

    def says(request: Request) -> Reply:
        if request.path.startswith("/file/"):
            return Reply(kept_there)
        return keeper.twilio({"2026-11-20": ""})(request)

    async with keeping(says) as kept, fetcher(service, kept.url) as fetch:
        for _ in range(2):
            [one] = await fetch.fetch(TODAY)
            assert one.outcome is not None
            assert (one.outcome.cut, "fetched again" in str(one.error)) == (True, True)
            assert await alarms(service) == [("feed_failed", "twilio")]
        kept_there = whole
        assert told(await fetch.fetch(TODAY)) == [("2026-11-20", 2)]
        assert (await fetch.fetch(TODAY), await alarms(service)) == ([], [])


@pytest.mark.parametrize(("lines", "wrong", "says"), [
    (900, 150, "150 of 1,050 lines cannot be read (line 901: "), (900, 9, None), (15_000, 120, None),
])  # fmt: skip
async def test_a_file_that_is_read_in_part_alone_is_an_alarm_until_the_next_look(
    service: Service, lines: int, wrong: int, says: str | None
) -> None:
    """As where one of several tables in a zip writes its days in another way."""
    text = "".join(f"+1555{n:07}\n" for n in range(5_550_000, 5_550_000 + lines)) + "no number\n" * wrong
    async with keeping(keeper.vonage({"2026-11-20": text})) as kept, fetcher(service, kept.url, "vonage") as fetch:
        [one] = await fetch.fetch(TODAY)
        assert (told([one]), (one.error or "")[: len(says or "")]) == ([("2026-11-20", lines)], says or "")
        assert await alarms(service) == ([("feed_failed", "vonage")] if says else [])
        assert (await fetch.fetch(TODAY), await alarms(service)) == ([], [])


async def test_one_feed_in_trouble_does_not_keep_the_others_from_theirs(service: Service) -> None:
    async with keeping(lambda _: Reply(b"", 401)) as bad, keeping(keeper.vonage({"2026-11-20": f"{WHO}\n"})) as good:
        async with fetcher(service, bad.url) as first, fetcher(service, good.url, "vonage") as second:
            both = Fetcher(first.engine, first.meaning, [*first.subscriptions, *second.subscriptions], first.guard,
                           first.transport)  # fmt: skip
            found = await both.fetch(TODAY)
            assert {(one.feed, one.error is None) for one in found} == {("twilio", False), ("vonage", True)}


async def test_a_file_that_takes_too_much_waits_for_a_person_with_an_alarm(service: Service) -> None:
    for place in range(9):
        await opt_in(service, f"+1555556{place:04}")
    body = "".join(f"+1555556{place:04}\n" for place in range(9))
    async with keeping(keeper.twilio({"2026-11-20": body})) as kept:
        async with fetcher(service, kept.url) as fetch:
            [one] = await fetch.fetch(TODAY)
            assert "9 of the 9 subscribers" in str(one.error)
            assert await alarms(service) == [("feed_guard", "twilio")]
            assert await service.sql("SELECT count(*)::int FROM published.sendable") == [(9,)]
        async with fetcher(service, kept.url, sure=True) as fetch:
            assert told(await fetch.fetch(TODAY)) == [("2026-11-20", 9)]
            assert await alarms(service) == []


async def test_a_day_that_waits_for_a_person_is_not_left_behind_by_those_after_it(service: Service) -> None:
    for place in range(9):
        await opt_in(service, f"+1555556{place:04}")
    body = "".join(f"+1555556{place:04}\n" for place in range(9))
    files = {"2026-11-01": f"{WHO}\n", "2026-11-02": body, "2026-11-20": f"{THIRD}\n"}
    async with keeping(keeper.twilio(files)) as kept:
        async with fetcher(service, kept.url) as fetch:
            assert told(await fetch.fetch(date(2026, 11, 3))) == [("2026-11-01", 1), ("2026-11-02", None)]
            assert told(await fetch.fetch(TODAY)) == [("2026-11-02", None), ("2026-11-20", 1)]
            assert told(await fetch.fetch(TODAY)) == [("2026-11-02", None)]
            assert await alarms(service) == [("feed_guard", "twilio")]
        async with fetcher(service, kept.url, sure=True) as fetch:
            assert told(await fetch.fetch(TODAY)) == [("2026-11-02", 9)]
            assert await alarms(service) == []


async def test_a_file_that_waits_for_a_person_is_not_left_behind_by_another_of_its_day(service: Service) -> None:
    for place in range(9):
        await opt_in(service, f"+1555556{place:04}")
    body = "".join(f"+1555556{place:04}\n" for place in range(9))
    carriers = {"att": {"2026-11-02": f"{WHO}\n", "2026-11-20": f"{OTHER}\n"}, "verizon": {"2026-11-02": body}}
    async with keeping(keeper.telesign(**carriers)) as kept:
        async with fetcher(service, kept.url, "telesign") as fetch:
            assert told(await fetch.fetch(date(2026, 11, 3))) == [("2026-11-02", 1), ("2026-11-02", None)]
            assert told(await fetch.fetch(TODAY)) == [("2026-11-02", None), ("2026-11-20", 1)]
            assert await alarms(service) == [("feed_guard", "telesign")]
        async with fetcher(service, kept.url, "telesign", sure=True) as fetch:
            assert told(await fetch.fetch(TODAY)) == [("2026-11-02", 9)]
            assert await alarms(service) == []


async def test_reports_of_a_day_with_nothing_in_them_are_fetched_once_each(service: Service) -> None:
    reports = [{"reportId": name, "networkName": name, "dateFrom": "2026-11-20"} for name in ("att", "verizon")]

    def says(request: Request) -> Reply:
        listed = request.path.endswith("/network-reports") and request.query["dateFrom"] == "2026-11-20"
        return Reply(json.dumps({"results": reports if listed else []}).encode())

    async with keeping(says) as kept, fetcher(service, kept.url, "infobip") as fetch:
        assert told(await fetch.fetch(TODAY)) == [("2026-11-20", 0), ("2026-11-20", 0)]
        assert told(await fetch.fetch(TODAY)) == []


async def test_one_process_at_a_time_fetches(service: Service) -> None:
    go, asked = asyncio.Event(), asyncio.Event()
    files = {"2026-11-20": f"{WHO}\n"}

    class Slow(Transport):
        async def ask(self, call: Any) -> Any:
            asked.set()
            await go.wait()
            return await super().ask(call)

    async with keeping(keeper.twilio(files)) as kept, fetcher(service, kept.url) as fetch:
        slow = Slow(wait=wait_none())
        first = asyncio.create_task(
            Fetcher(fetch.engine, fetch.meaning, fetch.subscriptions, fetch.guard, slow).fetch(TODAY)
        )
        await asked.wait()
        with pytest.raises(Elsewhere):
            await fetch.fetch(TODAY)
        go.set()
        assert told(await first) == [("2026-11-20", 1)]
        await slow.close()


async def test_the_service_fetches_by_itself_when_it_is_configured(start: Start) -> None:
    yesterday = str(datetime.now(UTC).date() - timedelta(days=1))
    async with keeping(keeper.twilio({yesterday: f"{WHO}\n"})) as kept:
        async with start(feeds={"twilio": {"base_url": kept.url, "days": 1, **KEYS["twilio"]}}) as service:
            async with asyncio.timeout(30):
                while not await service.sql("SELECT 1 FROM feed_files WHERE finished_at IS NOT NULL"):
                    await asyncio.sleep(0.02)
            assert (await service.client.get(f"/v1/numbers/{WHO}")).json()["state"] == "deactivated"


async def test_the_service_looks_every_hour_and_outlives_whatever_goes_wrong(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "EVERY", 0.01)
    twice = asyncio.Event()

    class Broken(Transport):
        times = 0

        async def ask(self, call: Any) -> Any:  # noqa: ARG002 - as it is called
            self.times += 1
            if self.times > 1:
                twice.set()
            raise RuntimeError

    async with keeping(keeper.twilio({})) as kept, fetcher(service, kept.url) as fetch:
        broken = Broken()
        running = asyncio.create_task(
            Fetcher(fetch.engine, fetch.meaning, fetch.subscriptions, fetch.guard, broken).run()
        )
        async with asyncio.timeout(30):
            await twice.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await broken.close()


async def test_the_command_fetches_a_file_of_yesterday_once(
    service: Service, database_url: str, tmp_path: Path
) -> None:
    yesterday = str(datetime.now(UTC).date() - timedelta(days=1))
    async with keeping(keeper.twilio({yesterday: f"{WHO}\n"})) as kept:
        config = tmp_path / "sendable.toml"
        config.write_text(
            f'[feeds.twilio]\naccount_sid = "AC1"\nauth_token = "token"\ndays = 1\nbase_url = "{kept.url}"\n'
        )
        said = await sendable("fetch", "deactivations", "--json", database_url=database_url, config=str(config))
        assert (said.code, f'"{yesterday}"' in said.out) == (0, True), said.err
        again = await sendable("fetch", "deactivations", "--json", database_url=database_url, config=str(config))
        assert (again.code, again.out) == (0, "[]\n")
    assert await service.sql("SELECT state FROM numbers") == [("deactivated",)]


WRONG = {
    "nobody": ({"nobody": {}}, "`feeds.nobody` is no feed that Sendable can fetch; there are infobip, telesign,"),
    "no table": ({"twilio": 7}, "`feeds.twilio` must be a table"),
    "no key": ({"twilio": {"account_sid": "AC1"}}, "`feeds.twilio.auth_token` is missing"),
    "no setting": ({"twilio": KEYS["twilio"] | {"colour": "red"}}, "`feeds.twilio.colour` is no setting"),
    "no address": ({"twilio": KEYS["twilio"] | {"base_url": "h"}}, "`feeds.twilio.base_url` must be an absolute URL"),
    "a key that no header carries": ({"infobip": {"api_key": "…"}}, "`feeds.infobip.api_key` cannot stand in"),
    "days": ({"twilio": KEYS["twilio"] | {"days": 999}}, "`feeds.twilio.days` must be a whole number from 1 to 365"),
}


@pytest.mark.parametrize(("feeds", "line"), WRONG.values(), ids=WRONG)
def test_wrong_settings_stop_the_start(feeds: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as stopped:
        create_app(Settings(feeds=feeds))
    assert str(stopped.value).startswith(line)
