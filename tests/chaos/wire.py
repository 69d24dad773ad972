"""A wire between a service and PostgreSQL that can hang, break, or carry nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

_NONSENSE = b"D\x00\x00\x00\x06\x00\x00"
"""A row without columns: who waits for another one hears an InternalClientError of asyncpg."""


class Wire:
    """Forwards TCP connections to a Unix socket, unless told otherwise."""

    def __init__(self, socket: Path) -> None:
        self.port = 0
        self._socket = socket
        self._flows = asyncio.Event()
        self._flows.set()
        self._open = True
        self._carried: set[asyncio.Task[None] | None] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Connections stay, and new ones are taken; nothing goes through. At the end what was held back goes on."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Every connection breaks, and each new one at once."""
        self._open = False
        self.drop()
        try:
            yield
        finally:
            self._open = True

    def drop(self) -> None:
        """Break every connection there is."""
        for end in [*self._ends]:
            end.transport.abort()

    def talk_nonsense(self) -> None:
        """Tell every client something that it has not asked for."""
        for client in self._clients:
            client.write(_NONSENSE)

    async def end(self) -> None:
        self._flows.set()
        self.drop()
        if carried := [task for task in self._carried if task]:
            await asyncio.wait(carried)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._carried.add(asyncio.current_task())
        try:
            await self._carry(reader, writer)
        finally:
            self._carried.discard(asyncio.current_task())

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_unix_connection(str(self._socket))
        except OSError:  # there is no server just now
            writer.transport.abort()
            return
        self._clients.add(writer)
        self._ends |= {writer, forth}
        await asyncio.gather(self._pump(reader, forth), self._pump(back, writer))
        self._clients.discard(writer)
        self._ends -= {writer, forth}
        for one in (writer, forth):
            with suppress(OSError):
                await one.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, to its end; the end too is held back while nothing flows."""
        with suppress(OSError):
            while said := await reader.read(65_536):
                await self._flows.wait()
                writer.write(said)
                await writer.drain()
        await self._flows.wait()
        writer.transport.abort()


@asynccontextmanager
async def wire(socket: Path) -> AsyncIterator[Wire]:
    one = Wire(socket)
    server = await asyncio.start_server(one.carry, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await one.end()
        await server.wait_closed()
