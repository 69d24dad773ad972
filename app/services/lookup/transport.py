"""The one place that speaks HTTP to lookup providers. Nothing here logs: an address may hold a phone number."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from app.models.http import Call, HttpAnswer

LARGEST = 4 << 20
"""Bytes of an answer that are read: a batch of a thousand has some 1,500,000."""
CONNECT_WITHIN = 3.0
POOLS = 16
"""A pool looks at each of its connections for each request: 64 in one cost 9.6 ms of our time a call, in sixteen 2."""
NOTHING = HttpAnswer(200, {}, b"")
HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "connection": "keep-alive", "user-agent": "sendable"}


class Unreached(Exception):
    """No answer at all. `sent`: the request may have arrived, and may be billed."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@dataclass(slots=True)
class _Pool:
    """Connections, and how many calls are under way on them."""

    http: httpx.AsyncHTTPTransport
    calls: int = 0


class Transport:
    """Pooled connections to all providers. httpx without its client: of what that adds we want nothing (redirects, that
    would carry our key elsewhere; cookies; a log line with the number in it), and it took 300 to 370 of 920 us a call.
    """

    def __init__(self) -> None:
        self._open: list[_Pool] = []

    @cached_property
    def _pools(self) -> Sequence[_Pool]:
        """Made when first needed, one TLS context for all: that alone takes 30 ms to set up."""
        tls = httpx.create_ssl_context(trust_env=False)
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30)
        self._open = [_Pool(httpx.AsyncHTTPTransport(trust_env=False, limits=limits, verify=tls)) for _ in range(POOLS)]
        return self._open

    async def send(self, call: Call, within: float) -> HttpAnswer:
        """The answer, whatever its status; cut where its body ended early. Raises Unreached."""
        if call.url.startswith("demo:"):
            return NOTHING
        try:
            async with asyncio.timeout(within):
                return await self._send(call, within)
        except TimeoutError as error:
            raise Unreached("no answer in time", sent=True) from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreached("no connection", sent=False) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreached("the connection broke", sent=True) from error

    async def _send(self, call: Call, within: float) -> HttpAnswer:
        pool = min(self._pools, key=lambda one: one.calls)  # the first idle one: its connections are open already
        pool.calls += 1
        try:
            answer = await pool.http.handle_async_request(_request(call, within))
            try:
                body, cut = await _body(answer)
            finally:
                await answer.aclose()
        finally:
            pool.calls -= 1
        return HttpAnswer(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, body, cut)

    async def close(self) -> None:
        for pool in self._open:
            await pool.http.aclose()


def _request(call: Call, within: float) -> httpx.Request:
    more: dict[str, Any] = {"json": call.json} if call.json is not None else {"content": call.content}
    if call.params:
        more["params"] = [*call.params]
    headers = HEADERS | {name.lower(): value for name, value in call.headers.items()}
    if call.basic:
        headers["authorization"] = "Basic " + b64encode(":".join(call.basic).encode()).decode()
    timeout = httpx.Timeout(within, connect=CONNECT_WITHIN)
    return httpx.Request(call.method, call.url, headers=headers, extensions={"timeout": timeout.as_dict()}, **more)


async def _body(answer: httpx.Response) -> tuple[bytes, bool]:
    parts, size = [], 0
    try:
        async for part in answer.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                return b"".join(parts)[:LARGEST], True
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.DecodingError):
        return b"".join(parts), True
    return b"".join(parts), False
