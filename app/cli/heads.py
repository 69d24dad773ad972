"""How long a connection may stay without the whole head of a request. uvicorn closes one that is silent behind an
answer, but waits for ever for a first byte, and for the rest of a head.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HeadsInTime(HttpToolsProtocol):
    """The clock that runs behind an answer runs from the first moment on, and only a whole head stops it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()

    def on_headers_complete(self) -> None:
        super()._unset_keepalive_if_required()
        super().on_headers_complete()

    def _unset_keepalive_if_required(self) -> None:
        """Called for any byte that comes."""
