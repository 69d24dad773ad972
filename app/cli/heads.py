"""How long a connection may stay without the whole head of a request. uvicorn closes one that is silent behind an
answer, but waits for ever for a first byte, and for the rest of a head.

And what becomes of an offer to upgrade, as Java's own client makes one with each first request to an `http://` address
(`Upgrade: h2c`): uvicorn's parser takes what follows for another protocol, and the body is lost (uvicorn issue 2722).

And how long a head may be: its parser takes any, and keeps 30 bytes for each that comes. A hundred and fifty megabytes
of small headers were 4.7 GB here, of one long header 77 s during which nobody else was answered.
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MOST = 64 * 1024
"""Bytes without a whole head, or a byte of a body, among them: as much as uvicorn's other parser takes."""


class HeadsInTime(HttpToolsProtocol):
    """The clock that runs behind an answer runs from the first moment on, and only a whole head stops it. A request
    that offers an upgrade is read as if it did not, which a server may do with any offer (RFC 9110, 7.8).
    """

    _for_nothing = 0
    """Bytes that came since the last whole head or part of a body: of a head, a chunk's extension, trailers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open for its answer: a client that has sent all may close its side and listen.
        uvicorn closes it at once, and what was committed is sent again. Where the answer has begun already, or the
        body will never be whole, we close it too.
        """
        waits = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_started
        if waits:
            self.cycle.keep_alive = False
        return waits

    def on_headers_complete(self) -> None:
        self._for_nothing = 0
        super()._unset_keepalive_if_required()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._for_nothing = 0
        super().on_body(body)

    def _unset_keepalive_if_required(self) -> None:
        """Nothing: uvicorn calls it for any byte that comes, and only a whole head is to stop the clock."""

    def data_received(self, data: bytes) -> None:
        self._for_nothing += len(data)
        self._read(data)
        if self._for_nothing > HEAD_MOST and not self.transport.is_closing():
            self._refuse()

    def _read(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = self._without_offer(data[offer.args[0] :])
            except httptools.HttpParserError:
                data = self._refuse()
            else:
                return

    def _should_upgrade(self) -> bool:
        """Always: uvicorn then neither begins nor ends the request that stopped the parser; the next parser does."""
        return True

    def _without_offer(self, rest: bytes) -> bytes:
        """What a new parser is to read: the same head without its offer, and what came behind it."""
        if self.parser.get_method() == b"CONNECT":
            return self._refuse()
        version = self.parser.get_http_version().encode()
        head = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)
        fields = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"".join((head, *fields, b"\r\n", rest))

    def _refuse(self) -> bytes:
        """Nothing more is read."""
        self.logger.warning("Invalid HTTP request received.")
        self.send_400_response("Invalid HTTP request received.")
        return b""
