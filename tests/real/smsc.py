"""A small message centre (SMPP 3.4) on loopback: it takes every message, and reports of each what its words ask for.

A message whose words are `UNDELIV 3041` gets a receipt with `stat:UNDELIV err:3041`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple

BIND_RECEIVER, BIND_TRANSMITTER, SUBMIT_SM, DELIVER_SM, UNBIND, BIND_TRANSCEIVER, ENQUIRE_LINK = 1, 2, 4, 5, 6, 9, 0x15
RESPONSE = 0x8000_0000
BINDS = {BIND_RECEIVER, BIND_TRANSMITTER, BIND_TRANSCEIVER}
IS_A_RECEIPT = 0x04
HEADER = struct.Struct(">IIII")


class Message(NamedTuple):
    """What was submitted, and the id that it was given."""

    id: str
    sender: str
    number: str
    words: str


@dataclass
class Centre:
    port: int = 0
    taken: list[Message] = field(default_factory=list)
    _links: set[asyncio.StreamWriter] = field(default_factory=set)
    _ids: count[int] = field(default_factory=lambda: count(7_700_112_001))
    _sequence: count[int] = field(default_factory=lambda: count(1))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length, command, _, sequence = HEADER.unpack(await reader.readexactly(HEADER.size))
                body = await reader.readexactly(length - HEADER.size)
                await self._answer(writer, command, sequence, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._links.discard(writer)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, command: int, sequence: int, body: bytes) -> None:
        if command in BINDS:
            if command != BIND_TRANSMITTER:
                self._links.add(writer)
            await _send(writer, command | RESPONSE, sequence, b"centre\0")
        elif command == SUBMIT_SM:
            message = self._take(body)
            await _send(writer, command | RESPONSE, sequence, message.id.encode() + b"\0")
            await self._report(message)
        elif not command & RESPONSE:
            await _send(writer, command | RESPONSE, sequence, b"")

    def _take(self, body: bytes) -> Message:
        _, rest = _text(body)
        sender, rest = _text(rest[2:])
        number, rest = _text(rest[2:])
        rest = _text(_text(rest[3:])[1])[1]
        size = rest[4]
        message = Message(str(next(self._ids)), sender, number, rest[5 : 5 + size].decode("latin-1"))
        self.taken.append(message)
        return message

    async def _report(self, message: Message) -> None:
        state, _, code = message.words.partition(" ")
        now = datetime.now(UTC).strftime("%y%m%d%H%M")
        said = (
            f"id:{message.id} sub:001 dlvrd:000 submit date:{now} done date:{now} stat:{state} err:{code or '000'} "
            f"text:{message.words[:20]}"
        ).encode()
        body = b"".join((
            b"\0", b"\1\1", message.number.lstrip("+").encode(), b"\0", b"\0\0", message.sender.encode(), b"\0",
            bytes((IS_A_RECEIPT, 0, 0)), b"\0\0", bytes((0, 0, 0, 0, len(said))), said,
        ))  # fmt: skip
        for link in self._links:
            await _send(link, DELIVER_SM, next(self._sequence), body)


def _text(body: bytes) -> tuple[str, bytes]:
    """A C string, and what follows it."""
    said, _, rest = body.partition(b"\0")
    return said.decode("latin-1"), rest


async def _send(writer: asyncio.StreamWriter, command: int, sequence: int, body: bytes) -> None:
    writer.write(HEADER.pack(HEADER.size + len(body), command, 0, sequence) + body)
    await writer.drain()


@asynccontextmanager
async def centre() -> AsyncIterator[Centre]:
    """A message centre that listens until the block ends."""
    here = Centre()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
