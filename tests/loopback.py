"""A real HTTP server on loopback, which misbehaves as it is told."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """`connection`: which of the server's connections it came by, counted from 1."""

    connection: int
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def user(self) -> str:
        """Whom its Basic credentials name."""
        kind, _, code = self.headers.get("authorization", "").partition(" ")
        return base64.b64decode(code).decode().partition(":")[0] if kind == "Basic" else ""


@dataclass
class Reply:
    """One HTTP answer. `cut`: how many bytes of the body are sent before the connection ends; `after`: what must happen
    before it; `drips`: seconds between two of its bytes.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    cut: int | None = None
    after: asyncio.Event | None = None
    drips: float = 0.0


Answers = Callable[[Request], Awaitable[Reply]]


@asynccontextmanager
async def listening(answers: Answers) -> AsyncIterator[str]:
    """Its URL. Connections stay open until the block ends, or until a reply that is cut."""
    open_: set[asyncio.Task[Any]] = set()
    places = count(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        open_.add(task)
        place = next(places)
        try:
            while await _sent(await answers(await _read(reader, place)), writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            open_.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, connection: int) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    split = urlsplit(first.split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    query = {name: values[0] for name, values in parse_qs(split.query).items()}
    return Request(connection, split.path, query, headers, body)


async def _sent(reply: Reply, writer: asyncio.StreamWriter) -> bool:
    lines = [f"HTTP/1.1 {reply.status} Said", f"content-length: {len(reply.body)}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    for part in [bytes([one]) for one in reply.body] if reply.drips else [reply.body[: reply.cut]]:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(reply.drips)
    return reply.cut is None
