"""Many numbers at once: as one JSON object, or line by line as NDJSON."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.routers import bulk
from app.services.connection import Busy
from tests.conftest import Service
from tests.number_steps import WHO, opt_in, post, receipt, status

# One object --------------------------------------------------------------------------------------------------------


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


async def test_a_part_that_fails_behind_another_one_is_no_error_of_its_own(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second part is read while the first one is waited for: nobody asks for it any more."""

    async def lost(*_asked: Any) -> Any:
        await asyncio.sleep(0)
        raise Busy

    said: list[str] = []
    monkeypatch.setattr(bulk.status, "read_many", lost)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["message"]))
    numbers = [f"+1415{place:07}" for place in range(2_000_000, 2_002_000)]
    answer = await service.client.post("/v1/numbers/status", json={"numbers": numbers})
    assert answer.status_code == 503
    await asyncio.sleep(0)
    gc.collect()
    assert said == []


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
    packed, members = gzip.compress(body), gzip.compress(body[:9_000]) + gzip.compress(body[9_000:])

    async def cut(whole: bytes) -> AsyncIterator[bytes]:
        places = sorted(random.Random(1).sample(range(len(whole)), 50))  # noqa: S311 - any places will do
        for start, end in zip([0, *places], [*places, len(whole)], strict=True):
            yield whole[start:end]

    for told in (
        await ask_lines(service, cut(body)),
        await ask_lines(service, cut(packed), **{"content-encoding": "gzip"}),
        await ask_lines(service, members, **{"content-encoding": "gzip"}),
        await ask_lines(service, cut(members), **{"content-encoding": "gzip"}),
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
    told = await ask_lines(service, gzip.compress(body) + b"+14155550000", **{"content-encoding": "gzip"})
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
