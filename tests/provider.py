"""A lookup provider on loopback: a real HTTP server that answers as Telnyx does, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import unquote


def telnyx(number: str, carrier: str, *, ported: str = "", on: str = "", line: str = "mobile") -> bytes:
    """An answer as Telnyx gives it for an American number."""
    portability = {"lrn": "", "ported_status": ported, "ported_date": on, "ocn": "6529", "line_type": line,
                   "spid": "6529", "spid_carrier_name": carrier, "spid_carrier_type": "", "altspid": "",
                   "altspid_carrier_name": "", "altspid_carrier_type": "", "city": "", "state": ""}  # fmt: skip
    return json.dumps({"data": {"country_code": "US", "phone_number": number, "record_type": "number_lookup",
                                "fraud": None, "caller_name": None, "carrier": {"name": carrier, "type": line},
                                "portability": portability}}).encode()  # fmt: skip


@dataclass
class Reply:
    """One HTTP answer. `cut`: how many bytes of the body are sent before the connection ends; `after`: what it waits
    for; `drips`: seconds between two of its bytes.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    cut: int | None = None
    after: asyncio.Event | None = None
    drips: float = 0.0


Says = Callable[[str], Reply]


@dataclass
class Provider:
    """`says` answers for a number; `calls` counts by number; `busiest` is how many were under way at once;
    `connections` how many were accepted.
    """

    says: Says
    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    under_way: int = 0
    busiest: int = 0
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, name: str = "telnyx", **more: Any) -> dict[str, Any]:
        """`lookup` of the settings with this provider alone."""
        key = {"telnyx": {"api_key": "KEY-for-tests"}, "plivo": {"auth_id": "id", "auth_token": "token"}}[name]
        return {"providers": [name], name: {"base_url": self.url, "price": "0.01", **key, **more}}


@asynccontextmanager
async def answering(says: Says) -> AsyncIterator[Provider]:
    provider = Provider(says)
    open_: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        open_.add(task)
        provider.connections += 1
        try:
            while await _answer(provider, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            open_.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


async def _answer(provider: Provider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    path = head.split(" ", 2)[1].partition("?")[0]
    length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
    provider.bodies.append(await reader.readexactly(int(length[1]) if length else 0))
    number = unquote(path.rstrip("/").rpartition("/")[2])
    provider.calls[number] += 1
    provider.under_way += 1
    provider.busiest = max(provider.busiest, provider.under_way)
    provider.asked.set()
    try:
        reply = provider.says(number)
        if reply.after:
            await reply.after.wait()
    finally:
        provider.under_way -= 1
    lines = [f"HTTP/1.1 {reply.status} Said", f"content-length: {len(reply.body)}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    for part in [bytes([one]) for one in reply.body] if reply.drips else [reply.body[: reply.cut]]:
        writer.write(part)
        await writer.drain()
        if reply.drips:
            await asyncio.sleep(reply.drips)
    return reply.cut is None


def today() -> str:
    return date.today().isoformat()  # noqa: DTZ011 - a day is told
