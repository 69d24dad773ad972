"""The feed: every change once, in the order of commits, as pages and as a stream that wakes by itself."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.services import feed, keys
from app.services.connection import Busy, connect
from tests.conftest import Service, Start
from tests.running import CALM

CAUSE = {"kind": "receipt", "gateway": "native", "code_space": "openmarket", "code": "560"}


def receipt(place: int, **said: Any) -> dict[str, Any]:
    return {
        "message_id": f"m{place}", "number": f"+1415555{place:04}", "sender": "12345", "status": "undeliverable",
        "code": "560",
    } | said  # fmt: skip


async def post(service: Service, *places: int, **said: Any) -> None:
    answer = await service.client.post("/v1/receipts/native", json=[receipt(place, **said) for place in places])
    assert answer.status_code == 200


async def page(service: Service, **query: Any) -> Any:
    answer = await service.client.get("/v1/changes", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


# Pages -------------------------------------------------------------------------------------------------------------


async def test_a_change_says_what_became_of_what_and_why(service: Service) -> None:
    await post(service, 1, occurred_at="2026-11-20T10:00:00+02:00")
    items = (await page(service))["items"]
    assert [item["kind"] for item in items] == ["number.state", "sender.blocked"]
    blocked = items[1]
    committed = datetime.fromisoformat(blocked.pop("committed_at"))
    assert abs(committed - datetime.now(UTC)) < timedelta(minutes=1)
    assert blocked == {
        "seq": blocked["seq"], "number": "+14155550001", "sender": "12345", "kind": "sender.blocked", "from": "open",
        "to": "blocked", "reason": "carrier_blocked_subscriber", "cause": CAUSE | {"message_id": "m1"},
        "occurred_at": "2026-11-20T08:00:00Z",
    }  # fmt: skip
    assert not {"sender", "list"} & items[0].keys()


async def test_whoever_goes_on_from_next_sees_every_change_exactly_once(service: Service) -> None:
    await post(service, *range(10))
    whole = (await page(service))["items"]
    seen, after = [], 0
    while (got := await page(service, after=after, limit=3))["items"]:
        seen += got["items"]
        after = got["next"]
    assert seen == whole
    assert [item["seq"] for item in seen] == sorted({item["seq"] for item in seen})


async def test_a_long_page_is_read_and_written_in_parts_and_others_are_answered_between_two(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post(service, *range(5))
    await service.sql("SELECT setval(pg_get_serial_sequence('changes', 'seq'), 1000)")  # as others that rolled back
    await post(service, *range(5, 10))
    whole = await page(service)
    shape, had = feed.shape, []
    monkeypatch.setattr(feed, "PART", 3)
    monkeypatch.setattr(feed, "shape", lambda row: (had.append(row), shape(row))[1])
    long = asyncio.create_task(page(service, limit=10_000))
    while not had:
        await asyncio.sleep(0)
    assert (await service.client.get("/livez")).status_code == 200
    assert len(had) < len(whole["items"])
    assert await long == whole
    for limit in (1, 3, 6, 7):
        items = whole["items"][:limit]
        assert await page(service, limit=limit) == {"items": items, "next": items[-1]["seq"]}


async def test_an_empty_page_gives_the_same_cursor_back(service: Service) -> None:
    assert await page(service, after=17) == {"items": [], "next": 17}
    await post(service, 1)
    last = (await page(service))["next"]
    assert await page(service, after=last) == {"items": [], "next": last}


async def test_after_a_restore_the_operators_page_keeps_readers_from_missing_what_comes(service: Service) -> None:
    (again,) = re.findall(r'"(SELECT setval.*)"', (Path(__file__).parents[1] / "docs" / "operating.md").read_text())
    await post(service, *range(5))
    last = (await page(service))["next"]
    await service.sql("DELETE FROM changes WHERE seq > 4")  # as last night's backup leaves it
    await service.sql("SELECT setval('changes_seq_seq', 4)")
    await service.sql(again)
    await post(service, 7)
    assert [item["number"] for item in (await page(service, after=last))["items"]] == ["+14155550007"] * 2


async def test_the_view_tells_the_same_as_the_feed(service: Service) -> None:
    await post(service, 1, 2)
    rows = await service.sql(
        'SELECT seq, number, sender, kind, "from", "to", reason, cause FROM published.changes ORDER BY seq'
    )
    items = (await page(service))["items"]
    assert [(*row[:7], json.loads(row[7])) for row in rows] == [
        (i["seq"], i["number"], i.get("sender"), i["kind"], i["from"], i["to"], i["reason"], i["cause"]) for i in items
    ]


async def test_a_reader_by_cursor_loses_nothing_while_many_write(start: Start) -> None:
    """Two services on one database, forty writers, one reader that never waits: no change is passed over."""
    async with start(policy_file=CALM) as one, start(policy_file=CALM) as other:
        writing = asyncio.gather(
            *(post(service, *range(100 * turn, 100 * turn + 40)) for turn in range(20) for service in (one, other))
        )
        seen: list[int] = []
        while not writing.done():
            seen += [item["seq"] for item in (await page(one, after=seen[-1] if seen else 0, limit=100))["items"]]
        await writing
        while items := (await page(one, after=seen[-1]))["items"]:
            seen += [item["seq"] for item in items]
        assert [(seq,) for seq in seen] == await one.sql("SELECT seq FROM changes ORDER BY seq")
        assert len(seen) == 20 * 40 * 2  # the same receipts came to both: each acted once, as two changes


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=10001", f"after={2**63}"])
async def test_a_wrong_cursor_or_limit_is_422(service: Service, query: str) -> None:
    answer = await service.client.get(f"/v1/changes?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


# Streams -----------------------------------------------------------------------------------------------------------


class Events:
    """An open stream: its events as they come, its comments left out."""

    def __init__(self, sent: asyncio.Queue[dict[str, Any]]) -> None:
        self._sent = sent
        self._text = ""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False

    async def begun(self) -> Events:
        message = await self._sent.get()
        self.status = message["status"]
        self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        return self

    async def next(self) -> str | None:
        """The next block: an event, or a comment; None at the end."""
        async with asyncio.timeout(30):
            while "\n\n" not in self._text:
                message = await self._sent.get()
                self._text += message.get("body", b"").decode()
                if not message.get("more_body"):
                    self.ended = True
                    return None
        block, _, self._text = self._text.partition("\n\n")
        return block

    async def change(self) -> tuple[int, Any]:
        while (block := await self.next()) is not None:
            if not block.startswith(":"):
                id_, data = block.split("\n")
                return int(id_.removeprefix("id: ")), json.loads(data.removeprefix("data: "))
        raise EOFError


@asynccontextmanager
async def stream(service: Service, query: str = "", **headers: str) -> AsyncIterator[Events]:
    """The transport of httpx hands out a body only when it is whole; a stream never is."""
    gone, sent = asyncio.Event(), asyncio.Queue[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    given = {"accept": "text/event-stream"} | headers
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/v1/changes", "raw_path": b"/v1/changes", "query_string": query.encode(), "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    task = asyncio.create_task(service.app(scope, receive, sent.put))
    try:
        yield await Events(sent).begun()
    finally:
        gone.set()
        async with asyncio.timeout(30):
            await task


async def test_a_stream_tells_what_was_and_then_what_comes(service: Service) -> None:
    await post(service, 1)
    async with stream(service) as events:
        assert (events.status, events.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        past = [await events.change() for _ in range(2)]
        await post(service, 2)
        come = [await events.change() for _ in range(2)]
    assert [change for _, change in past + come] == (await page(service))["items"]
    assert [id_ for id_, _ in past + come] == [change["seq"] for _, change in past + come]


async def test_notify_wakes_a_stream_long_before_its_own_look(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 3_600.0)
    async with stream(service) as events:
        assert (await events.next() or "").startswith(":")
        await post(service, 1)
        assert (await events.change())[1]["number"] == "+14155550001"


async def test_a_stream_that_is_far_behind_catches_up_without_waiting(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 3_600.0)
    monkeypatch.setattr(feed, "AT_ONCE", 5)
    await post(service, *range(20))
    whole = [change["seq"] for change in (await page(service))["items"]]
    async with stream(service) as events:
        assert [(await events.change())[0] for _ in whole] == whole


async def test_a_stream_resumes_behind_the_last_event_it_was_given(service: Service) -> None:
    await post(service, 1, 2)
    first, second, *_ = (await page(service))["items"]
    async with stream(service, f"after={second['seq']}", last_event_id=str(first["seq"])) as events:
        assert (await events.change())[0] == second["seq"]
    async with stream(service, f"after={first['seq']}") as events:
        assert (await events.change())[0] == second["seq"]


@pytest.mark.parametrize("last", ["x", "-1", "", str(2**63), "9" * 5_000, "\u0661"], ids=range(6))
async def test_a_last_event_id_that_is_none_is_422(service: Service, last: str) -> None:
    headers = {"accept": "text/event-stream", "last-event-id": last.encode()}
    answer = await service.client.get("/v1/changes", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "Last-Event-ID")


async def test_a_quiet_stream_shows_that_it_lives(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.05)
    async with stream(service) as events:
        assert [await events.next() for _ in range(3)] == [": still here"] * 3


UNHEARD = """
INSERT INTO changes (number, kind, cause, occurred_at, committed_at)
VALUES ('+14155550009', 'number.state', '{}', now(), now()) RETURNING seq
"""


async def followed(pages: AsyncIterator[feed.Page]) -> str:
    """The number of the first change that comes."""
    async with asyncio.timeout(30):
        while not (changes := (await anext(pages)).changes):
            pass
    return str(changes[0].number)


async def test_a_lost_notify_costs_a_heartbeat_at_most(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.05)
    deaf = feed.Feed("", service.app.state.reads)  # it is not run, so nothing ever wakes its streams
    pages = deaf.follow(0)
    assert list((await anext(pages)).changes) == []
    await service.sql(UNHEARD)
    assert await followed(pages) == "+14155550009"


async def test_a_look_that_failed_is_not_taken_for_the_next_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.05)
    deaf = feed.Feed("", service.app.state.reads)
    pages = deaf.follow(0)
    assert list((await anext(pages)).changes) == []
    await service.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert list((await anext(pages)).changes) == []
    await service.sql(UNHEARD)
    assert await followed(pages) == "+14155550009"


async def test_streams_at_the_same_place_share_their_queries(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = feed.page

    async def counted(engine: Any, after: int, limit: int) -> Any:
        asked.append(after)
        return await read(engine, after, limit)

    monkeypatch.setattr(feed, "page", counted)
    async with stream(service) as a, stream(service) as b, stream(service) as c:
        await asyncio.gather(*(events.next() for events in (a, b, c)))
        asked.clear()
        await post(service, 1)
        got = [[(await events.change())[0] for _ in range(2)] for events in (a, b, c)]
    assert got[0] == got[1] == got[2]
    assert asked.count(0) < 3  # at most one for each time they were woken: by the connection, and by the change


async def test_streams_at_the_same_place_share_what_is_written(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, had = feed.shape, []
    monkeypatch.setattr(feed, "shape", lambda row: (had.append(row), shape(row))[1])
    async with stream(service) as a, stream(service) as b, stream(service) as c:
        await asyncio.gather(*(events.next() for events in (a, b, c)))
        await post(service, 1)
        got = [[await events.change() for _ in range(2)] for events in (a, b, c)]
    assert got[0] == got[1] == got[2]
    assert len(had) < 6


async def test_streams_at_other_places_look_one_after_the_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred that had all of the feed to catch up with kept everybody waiting for half a minute."""
    read, looking = feed.page, Counter[str]()

    async def counted(engine: Any, after: int, limit: int) -> Any:
        looking["now"] += 1
        looking["most"] = max(looking["most"], looking["now"])
        try:
            return await read(engine, after, limit)
        finally:
            looking["now"] -= 1

    await post(service, *range(10))
    whole = [change["seq"] for change in (await page(service))["items"]]
    monkeypatch.setattr(feed, "page", counted)
    monkeypatch.setattr(feed, "AT_ONCE", 3)
    async with AsyncExitStack() as open_:
        opening = (open_.enter_async_context(stream(service, f"after={seq}")) for seq in whole[:8])
        streams = await asyncio.gather(*opening)
        told = [[(await events.change())[0] for _ in whole[place + 1 :]] for place, events in enumerate(streams)]
    assert told == [whole[place + 1 :] for place in range(8)]
    assert looking["most"] == 1


async def test_a_stream_that_does_not_get_its_turn_is_told_to_come_back_and_one_that_is_open_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "TURN_WITHIN", 0.05)
    monkeypatch.setattr(feed, "HEARTBEAT", 0.05)
    async with stream(service) as events:
        await events.next()
        async with service.app.state.feed._turn:
            answer = await service.client.get("/v1/changes", headers={"accept": "text/event-stream"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            await post(service, 1)
            assert [await events.next() for _ in range(3)] == [": still here"] * 3
        assert (await events.change())[1]["number"] == "+14155550001"


async def test_a_stream_outlives_the_connection_that_listens(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 3_600.0)
    monkeypatch.setattr(feed, "RECONNECT", 0.0)
    async with stream(service) as events:
        await events.next()
        async with asyncio.timeout(30):
            while not await service.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
            ):
                pass  # it does not listen yet
        await post(service, 1)
        assert (await events.change())[1]["number"] == "+14155550001"


async def test_a_stream_ends_with_its_key(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.05)
    monkeypatch.setattr(keys, "KNOWN_FOR", 0.0)
    async with start(auth="on") as service:
        key, token = await keys.create(service.app.state.engine, "shop", ["numbers:read"])
        async with stream(service, authorization=f"Bearer {token}") as events:
            assert [await events.next() for _ in range(3)] == [": still here"] * 3
            await keys.revoke(service.app.state.engine, key.id)
            for _ in range(100):
                if await events.next() is None:
                    break
            assert events.ended


async def test_stop_ends_every_stream(service: Service) -> None:
    async with stream(service) as one, stream(service) as other:
        await asyncio.gather(one.next(), other.next())
        service.app.state.feed.stop()
        assert [await one.next(), await other.next()] == [None, None]
        assert one.ended
        assert other.ended


async def test_a_look_that_fails_after_its_stream_has_gone_is_nobodys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    began, goes_on, said = asyncio.Event(), asyncio.Event(), list[str]()

    async def lost(*_asked: Any) -> Any:
        began.set()
        await goes_on.wait()
        raise Busy

    monkeypatch.setattr(feed, "page", lost)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["message"]))
    deaf = feed.Feed("", connect("postgresql+asyncpg://"))
    looking = asyncio.create_task(anext(deaf.follow(0)))
    await began.wait()
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking
    del looking  # its traceback holds the look
    goes_on.set()
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert said == []
