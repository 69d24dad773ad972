"""The one place that speaks HTTP to deactivation feeds: answers in memory, files to the disk, both tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, BinaryIO, TypeVar

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from tenacity.wait import wait_base

from app.feeds import refused
from app.models.http import Call, HttpAnswer

LARGEST = 8 << 20
"""Bytes of an answer that is kept in memory: a list of files, a page of records, an error."""
TRIES = 4
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
ANSWER_WITHIN, FILE_WITHIN = 300.0, 3_600.0
"""Seconds for an answer, and for a file, all tries told: a host that drips must not keep the others waiting."""
WAIT = wait_random_exponential(multiplier=1, max=30)
TOO_MANY, BROKEN = 429, 500
logging.getLogger("httpx").setLevel(logging.WARNING)  # it writes every address, and one may be a key


T = TypeVar("T")


class Unreached(Exception):
    """No answer, or one that asks us to come back."""


class Transport:
    """Follows no redirects by itself: they would carry our key elsewhere."""

    def __init__(self, wait: wait_base = WAIT) -> None:
        self._wait = wait
        self._client = httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=TIMEOUT)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, call: Call) -> HttpAnswer:
        """The answer, whatever its status says of the feed. Raises Unreached."""
        return await _within(ANSWER_WITHIN, self._ask(call))

    async def _ask(self, call: Call) -> HttpAnswer:
        async for attempt in self._tries():
            with attempt:
                answer = await self._send(call)
                try:
                    return await _whole(answer)
                finally:
                    await answer.aclose()
        raise AssertionError("tenacity ends by a return or raises")

    async def save(self, call: Call, file: BinaryIO) -> None:
        """The body at the end of the file; begun anew there when it breaks off. Raises Unreached, and what `refused`
        raises for an answer that is no file.
        """
        await _within(FILE_WITHIN, self._save(call, file))

    async def _save(self, call: Call, file: BinaryIO) -> None:
        start = file.tell()
        async for attempt in self._tries():
            with attempt:
                file.seek(start)
                file.truncate()
                answer = await self._send(call)
                try:
                    if answer.status_code != httpx.codes.OK:
                        refused(await _whole(answer), keyed="authorization" in answer.request.headers)
                    async for part in answer.aiter_bytes():
                        file.write(part)
                except httpx.RequestError as error:
                    raise Unreached("the file broke off") from error
                finally:
                    await answer.aclose()

    def _tries(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(Unreached), stop=stop_after_attempt(TRIES), wait=self._wait, reraise=True
        )

    async def _send(self, call: Call) -> httpx.Response:
        more: dict[str, Any] = {"params": [*call.params]} if call.params else {}
        try:
            request = self._client.build_request(call.method, call.url, headers=dict(call.headers), **more)
            answer = await self._client.send(request, auth=call.basic, stream=True)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise Unreached(f"no answer ({type(error).__name__})") from error
        if answer.status_code == TOO_MANY or answer.status_code >= BROKEN:
            await answer.aclose()
            raise Unreached(f"HTTP {answer.status_code}")
        return answer


async def _within(seconds: float, doing: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await doing
    except TimeoutError as error:
        raise Unreached(f"it took longer than {seconds:.0f} s") from error


async def _whole(answer: httpx.Response) -> HttpAnswer:
    parts, size = [], 0
    try:
        async for part in answer.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                break
    except httpx.RequestError as error:
        raise Unreached("the answer broke off") from error
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return HttpAnswer(answer.status_code, headers, b"".join(parts), cut=size > LARGEST)
