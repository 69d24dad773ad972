"""The one place that speaks HTTP to lookup providers. Nothing here logs: an address may hold a phone number."""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property
from typing import Any

import httpx

from app.models.lookup import Call, HttpAnswer

LARGEST = 1 << 20
"""Bytes of an answer that are read: a batch of a hundred has some 150,000."""
CONNECT_WITHIN = 3.0
NOTHING = HttpAnswer(200, {}, b"")
logging.getLogger("httpx").setLevel(logging.WARNING)  # it writes every address


class Unreached(Exception):
    """No answer at all. `sent`: the request may have arrived, and may be billed."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Transport:
    """Pooled connections to all providers. Follows no redirects: they would carry our key elsewhere."""

    def __init__(self, client: httpx.AsyncClient | None = None) -> None:
        self._given = client

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made when it is first needed: its TLS alone takes 30 ms to set up."""
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=100, keepalive_expiry=30)
        return self._given or httpx.AsyncClient(follow_redirects=False, trust_env=False, limits=limits)

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
        more: dict[str, Any] = {"json": call.json} if call.json is not None else {"content": call.content}
        if call.params:
            more["params"] = [*call.params]
        timeout = httpx.Timeout(within, connect=CONNECT_WITHIN)
        request = self._client.build_request(call.method, call.url, headers=dict(call.headers), timeout=timeout, **more)
        answer = await self._client.send(request, auth=call.basic, stream=True)
        try:
            body, cut = await _body(answer)
        finally:
            await answer.aclose()
        return HttpAnswer(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, body, cut)

    async def close(self) -> None:
        if "_client" in self.__dict__:
            await self._client.aclose()


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
