"""The change feed: pages by cursor, and streams that wake when something was committed.

One connection a process listens for NOTIFY. Streams that wait for the same place share one query.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Change
from app.services.connection import Busy, Connection, Rows, connect, driver_of, heard, is_lost
from app.services.logs import error_fields
from app.services.store import CHANNEL

log = structlog.get_logger(__name__)

HEARTBEAT = 15.0
"""Seconds after which a quiet stream looks for itself and shows that it lives: what a lost NOTIFY costs at most."""
RECONNECT = 1.0
"""Seconds before a database that was lost is listened to again."""
PROBE = 60.0
"""Seconds after which the listening connection is tried: a half-dead one says nothing by itself."""
AT_ONCE = 500
"""Changes that a stream sends at once."""
TURN_WITHIN = 5.0
"""Seconds that a stream waits for its turn to look. A new one is then told to come back; others are told later."""
PART = 1_000
"""Changes of a page that are read at once, and written at once: others are answered between two. Where many asked for
pages of ten thousand, everybody waited for seconds, `/livez` too.
"""

_PAGE = text("""
SELECT seq, number, sender, list, kind, before, after, reason, cause, occurred_at, committed_at
FROM changes WHERE seq > :after ORDER BY seq LIMIT :limit
""")


async def page(engine: AsyncEngine, after: int, limit: int) -> Rows:
    """The changes behind a cursor in the order of their commits: none will ever come before one that was read."""
    rows: list[Row[Any]] = []
    async with engine.connect() as db:
        while len(rows) < limit:
            part = (await db.execute(_PAGE, {"after": after, "limit": min(limit - len(rows), PART)})).all()
            rows += part
            if len(part) < PART:
                break
            after = part[-1].seq
    return rows


def shape(row: Row[Any]) -> dict[str, Any]:
    """A change as readers get it. `cause` stays the JSON that the database holds."""
    return {"seq": row.seq, **told(row, row.cause), "committed_at": row.committed_at}


def told(change: Change | Row[Any], cause: str) -> dict[str, Any]:
    """The same without its place in the feed, which it has once it is committed."""
    about = {"number": change.number}
    if change.sender is not None:
        about["sender"] = change.sender
    if change.list is not None:
        about["list"] = change.list
    return about | {
        "kind": change.kind, "from": change.before, "to": change.after, "reason": change.reason,
        "cause": orjson.Fragment(cause), "occurred_at": change.occurred_at,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """What streams at one place share: changes, and their events, written once for all of them."""

    changes: Rows
    events: bytes


_QUIET = Page((), b": still here\n\n")


class Feed:
    """Wakes the streams of this process. `reads`: the engine that pages are read with."""

    def __init__(self, url: str, reads: AsyncEngine) -> None:
        self._url = url
        self._reads = reads
        self._woken = asyncio.Event()
        self._pages: dict[int, asyncio.Task[Page]] = {}
        self._turn = asyncio.Lock()
        self._stopped = False

    async def run(self) -> None:
        """Listen until cancelled. A server that is away is waited for; what it told meanwhile is looked up."""
        engine = connect(self._url, pool=1)
        try:
            while True:
                with suppress(TimeoutError):
                    await self._listen_once(engine)
                self.wake()
                await asyncio.sleep(RECONNECT)
        finally:
            self.stop()
            await engine.dispose()

    async def _listen_once(self, engine: AsyncEngine) -> None:
        try:
            async with self._listening(engine) as lost:
                self.wake()
                await lost.wait()
        except Exception as error:  # noqa: BLE001 - whatever it was, listening is tried again
            log.warning("feed does not hear the database and tries again", **error_fields(error))

    @asynccontextmanager
    async def _listening(self, engine: AsyncEngine) -> AsyncIterator[asyncio.Event]:
        """A connection that wakes the streams. The event is set when it has gone, or does not answer any more."""
        lost = asyncio.Event()
        async with engine.connect() as db:
            raw = await driver_of(db)
            raw.add_termination_listener(lambda _: lost.set())
            await raw.add_listener(CHANNEL, lambda *_: self.wake())
            probing = asyncio.create_task(_probe(raw, lost))
            try:
                yield lost
            finally:
                probing.cancel()
                await db.invalidate()

    def wake(self) -> None:
        """Let every stream look. Reads that began before this moment are not shared with those who look after it."""
        self._pages = {}
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()

    def stop(self) -> None:
        """End every stream: the service shuts down."""
        self._stopped = True
        self.wake()

    async def follow(self, after: int) -> AsyncIterator[Page]:
        """Changes behind a cursor as they are committed. An empty page says: nothing new, still here.

        Raises Busy, or what the database says to the first look; later either is waited for.
        """
        first = True
        while not self._stopped:
            woken = self._woken
            try:
                came = await self._read(after)
            except Exception as error:
                if first or not (isinstance(error, Busy) or is_lost(error)):
                    raise
                came = _QUIET
            if came.changes:
                after = came.changes[-1].seq
            if came.changes or first:
                yield came
            first = False
            if len(came.changes) < AT_ONCE and not await _within(woken, HEARTBEAT):
                yield _QUIET

    async def _read(self, after: int) -> Page:
        """Shared while it runs, and then forgotten: who looks later must see what came meanwhile, or another error."""
        pages = self._pages
        task = pages.get(after)
        if task is None:
            task = pages[after] = asyncio.create_task(self._look(after))
            task.add_done_callback(lambda _: pages.pop(after))
            task.add_done_callback(heard)
        return await asyncio.shield(task)

    async def _look(self, after: int) -> Page:
        """One after the other, and others are answered between two: a hundred streams that had all of the feed to catch
        up with kept everybody waiting for half a minute.
        """
        try:
            async with asyncio.timeout(TURN_WITHIN):
                await self._turn.acquire()
        except TimeoutError:
            raise Busy from None
        try:
            changes = await page(self._reads, after, AT_ONCE)
            return Page(changes, b"".join(map(_event, changes))) if changes else _QUIET
        finally:
            self._turn.release()


def _event(change: Row[Any]) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (change.seq, orjson.dumps(shape(change), option=orjson.OPT_UTC_Z))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _probe(raw: Connection, lost: asyncio.Event) -> None:
    """Ask the listening connection now and then whether it lives."""
    while not lost.is_set():
        await asyncio.sleep(PROBE)
        try:
            await raw.execute("SELECT 1", timeout=PROBE)
        except Exception:  # noqa: BLE001 - any failure means the same
            lost.set()
