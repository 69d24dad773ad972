"""Bodies read with a limit that counts while they stream, after decompression."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services.connection import Busy

MIB = 1024 * 1024
RECEIPTS_MOST = 8 * MIB
OTHERS_MOST = MIB
MARK = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8, in front of what some platforms write. FastAPI skips it by itself."""
WITHIN = 30.0
"""Seconds that a body may take: a client that sends a byte now and then must not hold a connection for ever."""
LOOK = 1.0
"""Seconds between two looks at the bodies that are being read."""
COMING_MOST = 256 * MIB
"""Bytes of all bodies that are being read: a thousand connections with 8 MiB each would take all memory there is."""
SMALL = 64 * 1024
"""Bytes up to which a body has room whatever else is being read."""


class SmallBody(KnownQuery):
    """A route whose JSON body FastAPI reads: no larger than OTHERS_MOST, no slower than WITHIN, gzip accepted."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(_Read(request.scope, await _small(request)))

        return bounded if self.body_field else handle


class _Read(Request):
    """A request whose body has been read."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        super().__init__(scope)
        self._body = body


async def _small(request: Request) -> bytes:
    try:
        return await read_body(request, OTHERS_MOST)
    except NotCompressed as error:
        raise Problem(400, f"{error}: send it without, or compress it anew") from error


class NotCompressed(ValueError):
    """The body says that it is compressed, and is not. `raw` holds it as it came."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("the body is not what its Content-Encoding says")
        self.raw = raw


async def read_body(request: Request, most: int) -> bytes:
    """The body, decompressed. Raises Problem 413 beyond `most` bytes, 408 when it takes too long, NotCompressed."""
    try:
        raw = await _reading.within(WITHIN, _stream(request, most))
    except TimeoutError as error:
        raise Problem(408, f"the body did not arrive within {WITHIN:.0f} s") from error
    except ClientDisconnect as error:
        raise Problem(400, "the connection was closed before the body was complete") from error
    encoding = _encoding(request)
    return raw if encoding in _PLAIN else _inflate(raw, encoding, most)


def _encoding(request: Request) -> str:
    """Straight from the scope: asking `headers` for what is not there decodes them all."""
    values = [value for name, value in request.scope["headers"] if name == b"content-encoding"]
    return values[0].decode("latin-1").strip().lower() if values else "identity"


class _Reading:
    """What is being read, by its task, and until when. One look a second at all of it: a timer for each body, of which
    next to none ever goes off, costs 4 µs a receipt.
    """

    def __init__(self) -> None:
        self._until: dict[asyncio.Task[Any], float] = {}
        self._looking: asyncio.AbstractEventLoop | None = None

    async def within(self, seconds: float, reading: Awaitable[bytes]) -> bytes:
        """What was read. Raises TimeoutError."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a request is read by a task
        if self._looking is not loop:
            self._looking = loop
            loop.call_later(LOOK, self._look, loop)
        self._until[task] = loop.time() + seconds
        try:
            return await reading
        except asyncio.CancelledError:
            if task not in self._until and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._until.pop(task, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, until in self._until.items() if until <= now]:
            del self._until[task]
            task.cancel()
        self._looking = loop if self._until else None
        if self._looking:
            loop.call_later(LOOK, self._look, loop)


_reading = _Reading()


class _Room:
    """What large bodies that have not come to their end hold, in bytes."""

    def __init__(self) -> None:
        self.held = 0

    def hold(self, more: int) -> None:
        if self.held + more > COMING_MOST:
            raise Busy
        self.held += more


_room = _Room()


async def _stream(request: Request, most: int) -> bytes:
    """By the messages themselves: Starlette's generator around them costs 5 µs a receipt. Raises Busy for a large body
    where others hold all the room.
    """
    parts, size, held, more = [], 0, 0, True
    try:
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise too_large(most)
            parts.append(part)
            if (more := message.get("more_body", False)) and size > SMALL:
                _room.hold(size - held)
                held = size
    finally:
        _room.held -= held
    return parts[0] if len(parts) == 1 else b"".join(parts)


# What is packed ------------------------------------------------------------------------------------------------------

_PLAIN = frozenset({"identity", "", "utf-8", "utf8"})
"""What packs nothing. A charset is no coding, but some callbacks name it as one (expressjs/body-parser issue 100)."""
_PART_MOST = 64 * 1024
"""Bytes that are decompressed at a time."""
_MEMBERS_MOST = 1_000
"""Gzips one behind the other in a body: 8 MiB have room for 400,000 empty ones, which would take seconds."""
_WBITS = {"gzip": 47, "x-gzip": 47, "deflate": 15}
"""How zlib is asked for a Content-Encoding."""


class _Inflating:
    """What is decompressed part by part. Of gzip several may stand one behind the other (RFC 1952, 2.2); whatever else
    follows on the end is an error. A stream that has ended must not be asked again: it hands back what it was given.
    """

    def __init__(self, encoding: str) -> None:
        self._wbits = _WBITS[encoding]
        self._stream = zlib.decompressobj(self._wbits)
        self._members = 1

    @property
    def ended(self) -> bool:
        return self._stream.eof

    def parts(self, raw: bytes) -> Iterator[bytes]:
        """Of at most _PART_MOST bytes. Raises zlib.error."""
        while raw:
            if self._stream.eof:
                self._next()
            yield self._stream.decompress(raw, _PART_MOST)
            raw = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail

    def _next(self) -> None:
        self._members += 1
        if self._members > _MEMBERS_MOST:
            raise zlib.error("too many members")
        self._stream = zlib.decompressobj(self._wbits)


def _inflate(raw: bytes, encoding: str, most: int) -> bytes:
    if encoding not in _WBITS:
        raise NotCompressed(raw)
    inflating, parts, size = _Inflating(encoding), [], 0
    try:
        for start in range(0, len(raw), _PART_MOST):  # each member copies what is behind it
            for part in inflating.parts(raw[start : start + _PART_MOST]):
                parts.append(part)
                size += len(part)
                if size > most:
                    raise too_large(most)
    except zlib.error as error:
        raise NotCompressed(raw) from error
    if not inflating.ended:
        raise NotCompressed(raw)
    return b"".join(parts)


async def unpacked(request: Request) -> AsyncIterator[bytes]:
    """The body in parts of bounded size, decompressed. Raises TimeoutError when nothing comes, NotCompressed."""
    encoding = _encoding(request)
    if encoding not in _PLAIN and encoding not in _WBITS:
        raise NotCompressed(b"")
    inflating = None if encoding in _PLAIN else _Inflating(encoding)
    stream = aiter(request.stream())
    while True:
        async with asyncio.timeout(WITHIN):
            part = await anext(stream, None)
        if part is None:
            if inflating and not inflating.ended:
                raise NotCompressed(b"")
            return
        try:
            for one in inflating.parts(part) if inflating else (part,):
                yield one
        except zlib.error as error:
            raise NotCompressed(b"") from error


def too_large(most: int) -> Problem:
    return Problem(413, f"the body is larger than {most // MIB} MiB after decompression: send it in smaller parts")
