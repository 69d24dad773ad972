"""Connections on which no whole request comes: they end, and those that work do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from app.cli.heads import HEAD_MOST, HeadsInTime

SOON = 1
"""Seconds that the server under test gives a head. Nothing here may take much longer than a few of them."""
WITHIN = 60
BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"


async def _told(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]):
    """The body, once it is there; at `/later`, once all else that has come was looked at."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    for _ in range(100 if scope["path"] == "/later" else 0):
        await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(_told, port=0, http=HeadsInTime, ws="none", lifespan="off", timeout_keep_alive=SOON,
                            log_config=None)  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_a_connection_without_a_whole_head_is_closed(port: int, head: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    assert await asyncio.wait_for(reader.read(), WITHIN) == b""
    writer.close()


async def test_bytes_now_and_then_do_not_keep_it_open(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(WITHIN):
        while not ended.done():
            writer.write(b"G")
            await asyncio.wait([ended], timeout=SOON / 5)
    writer.close()


async def test_a_whole_head_stops_the_clock_for_its_body_and_the_next_request_is_taken(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for body in (b"ab", b"cd"):
        writer.write(BODY)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 2 * SOON)
        writer.write(body)
        answer = await asyncio.wait_for(reader.readuntil(body), WITHIN)
        assert b"200 OK" in answer
    writer.close()


async def test_a_client_that_has_said_all_and_ends_its_side_hears_its_answer_and_then_the_end(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(BODY.replace(b"/", b"/later", 1) + b"ab")
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), WITHIN)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer
    assert answer.endswith(b"ab")
    writer.close()


async def test_a_client_that_ends_its_side_in_the_middle_of_a_body_is_not_waited_for(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(BODY + b"a")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), WITHIN) == b""
    writer.close()


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
OFFERED = b"POST / HTTP/1.1\r\nHost: a\r\n" + OFFER
SIZED = OFFERED + b"Content-Length: 2\r\n\r\n"
CHUNKED = OFFERED + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (SIZED + b"ab", BODY + b"cd"),
        (SIZED, b"a", b"b", BODY + b"cd"),
        (SIZED[:60], SIZED[60:] + b"ab", BODY + b"cd"),
        (CHUNKED + b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n", BODY + b"cd"),
        (SIZED + b"ab" + SIZED + b"cd",),
    ],
    ids=["at once", "body behind its head", "head in two", "chunks", "two offers at once"],
)
async def test_a_request_that_offers_an_upgrade_is_read_whole_and_so_is_the_next_one(port: int, parts: list[bytes]):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        for _ in range(5):  # the server shares this loop: it reads each part by itself
            await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN):
        for body in (b"ab", b"cd"):
            assert b"200 OK" in await reader.readuntil(body)
    writer.close()


async def test_a_connect_is_refused(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b" 400 " in await asyncio.wait_for(reader.read(), WITHIN)
    writer.close()


ASKING = b"GET / HTTP/1.1\r\nHost: a\r\n"
IN_CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET /", b"a"),
        (ASKING + b"x: ", b"a"),
        (ASKING, b"a:\r\n"),
        (IN_CHUNKS + b"1;", b"a"),
        (IN_CHUNKS + b"0\r\n", b"a:\r\n"),
    ],
    ids=["address", "one header", "many headers", "extension of a chunk", "trailers"],
)
async def test_a_head_that_does_not_end_is_refused(port: int, begun: bytes, more: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begun)
    for _ in range(5):
        await asyncio.sleep(0)
    counted = 0 if begun.startswith(IN_CHUNKS) else len(begun)
    writer.write((more * 2 * HEAD_MOST)[: HEAD_MOST + 1 - counted])  # no more: what it left unread would cut its answer
    assert b" 400 " in await asyncio.wait_for(reader.read(), WITHIN)
    writer.close()


async def test_a_long_body_and_many_requests_are_no_head(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    long = b"x" * (8 * HEAD_MOST)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(long) + long)
    async with asyncio.timeout(WITHIN):
        assert b"200 OK" in await reader.readuntil(long)
        for _ in range(40):
            writer.write((BODY + b"ab") * 100)
            for _ in range(100):
                assert b"200 OK" in await reader.readuntil(b"ab")
    writer.close()
