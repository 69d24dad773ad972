"""What a gateway's proof or handshake needs from outside: a certificate, a confirmation. The gateway says where.

Nothing here decides whom to ask: the pure part does, and gives an address only where it knows the host.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import httpx

from app.services.connection import Busy

KEPT = 32
"""Certificates: a vendor has a few, one for each region, and changes them once a year."""
LARGEST = 65_536
"""Bytes of a certificate that are kept."""
WITHIN = 5.0
"""Seconds that an errand may take."""
AT_ONCE = 2
"""How many are asked for at the same time: who is not proven yet must not make us knock on a vendor's door."""
WAITING_MOST = 64
"""Certificates that may be asked for or waited for; beyond it callers are told to come back."""


class Errands:
    """GETs, without redirects and without a proxy's say. Raises Busy where nobody answers: the gateway comes again."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._certificates: OrderedDict[str, bytes] = OrderedDict()
        self._asking: dict[str, asyncio.Task[bytes]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def certificate(self, url: str) -> bytes:
        """Fetched once, whoever asks meanwhile, then kept; empty where there is none at this address."""
        if url in self._certificates:
            self._certificates.move_to_end(url)
            return self._certificates[url]
        if url not in self._asking:
            if len(self._asking) >= WAITING_MOST:
                raise Busy("too many certificates are being asked for")
            self._asking[url] = asyncio.create_task(self._fetch(url))
        return await asyncio.shield(self._asking[url])

    async def _fetch(self, url: str) -> bytes:
        try:
            async with self._turn:
                answer = await self._get(url)
        finally:
            del self._asking[url]
        if not answer.is_success:
            return b""
        self._certificates[url] = answer.content[:LARGEST]
        if len(self._certificates) > KEPT:
            self._certificates.popitem(last=False)
        return self._certificates[url]

    async def confirm(self, url: str) -> None:
        async with self._turn:
            answer = await self._get(url)
        if not answer.is_success:
            raise Busy("the handshake was not taken")

    async def _get(self, url: str) -> httpx.Response:
        if self._client is None:  # made when first needed: its TLS context alone takes 30 ms
            self._client = httpx.AsyncClient(transport=self._transport, follow_redirects=False, trust_env=False)
        try:
            async with asyncio.timeout(WITHIN):
                answer = await self._client.get(url)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Busy("no answer to an errand") from error
        if answer.is_server_error:
            raise Busy("no answer to an errand")
        return answer

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()
