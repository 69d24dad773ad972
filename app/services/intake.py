"""Takes receipts in: while one group commits, the next one gathers. No timer, nothing to tune.

A receipt that was answered is committed, with everything that follows from it. Nothing else is ever in flight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID

import structlog
from asyncpg import PostgresError
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.receipt import Receipt
from app.services import metrics, store
from app.services.arrival import arrival
from app.services.connection import Busy, Connection, is_lost, transaction
from app.services.keep import keep
from app.services.logs import error_fields
from app.services.meaning import Meaning
from app.services.store import Kept

log = structlog.get_logger(__name__)

WAITING_MOST = 20_000
"""Receipts that may wait for their commit; beyond it callers are told to come back."""
GROUP_MOST = 2_000
"""Receipts in one transaction; a larger callback is committed in parts, and answered after the last. Each part goes
behind what others have brought meanwhile: a hundred thousand receipts of one kept all others out for 8 s.
"""
COMMIT_WITHIN = 10.0
"""Seconds after which a database that does not answer counts as away. Gateways give up after 15."""


class Batch(Struct, frozen=True):
    """What one callback brought: its receipts, and what of it could not be read. `nonce` recognises a copy of it;
    `rest` is what of a large one is still to wait in the queue.
    """

    receipts: Sequence[Receipt]
    unread: Sequence[Kept]
    arrived: datetime
    done: asyncio.Future[None]
    nonce: UUID | None = None
    rest: Batch | None = None

    def __len__(self) -> int:
        return len(self.receipts) + len(self.unread)


class Intake:
    """The group committer: one transaction at a time, as many callers in it as were waiting."""

    def __init__(self, engine: AsyncEngine, meaning: Meaning) -> None:
        self._engine = engine
        self._meaning = meaning
        self._waiting: deque[Batch] = deque()
        self._committed: deque[Batch] = deque()
        self._depth = 0
        self._behind = 0  # of those that wait the ones that are not in the queue yet
        self._some = asyncio.Event()
        self._stopping = False

    @property
    def depth(self) -> int:
        """Receipts that wait for their commit."""
        return self._depth

    def has_room(self, size: int) -> bool:
        """Whether a callback of so many receipts is let in. What of large ones is not in the queue yet takes room only
        from others as large.
        """
        before = self._depth - self._behind if size <= GROUP_MOST else self._depth
        return not before or before + size <= WAITING_MOST

    async def put(self, receipts: Sequence[Receipt], unread: Sequence[Kept] = (), nonce: UUID | None = None) -> None:
        """Return when all of it is committed. Raises Busy when it is not, or not wholly, kept.

        A callback that takes several transactions leaves no nonce: were only one of them committed, its repetition
        would pass for a copy.
        """
        size = len(receipts) + len(unread)
        if self._stopping or not self.has_room(size):
            raise Busy
        now = datetime.now(UTC)
        if size <= GROUP_MOST:
            first = Batch(receipts, unread, now, asyncio.get_running_loop().create_future(), nonce)
        else:
            first = _in_parts(receipts, unread, now)
        self._waiting.append(first)
        self._depth += size
        self._behind += size - len(first)
        self._some.set()
        await (first.done if first.rest is None else asyncio.gather(*(part.done for part in _parts(first))))

    async def run(self) -> None:
        """Commit until `stop`; everything that was waiting then is still committed, and answered."""
        while not (self._stopping and not self._waiting):
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                group = self._gather()
                try:
                    await self._settle(group)
                except Exception as error:  # noqa: BLE001 - a fault of ours, and the next group has none
                    log.error("group not settled", size=len(group), **error_fields(error))  # noqa: TRY400
                    _fail(group, Busy())
        if self._committed:
            await asyncio.wait([self._committed[-1].done])

    def stop(self) -> None:
        self._stopping = True
        self._some.set()

    def _gather(self) -> list[Batch]:
        group: list[Batch] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0]) <= GROUP_MOST):
            batch = self._waiting.popleft()
            group.append(batch)
            size += len(batch)
            if batch.rest is not None:
                self._waiting.append(batch.rest)
                self._behind -= len(batch.rest)
        self._depth -= size
        return group

    async def _settle(self, group: list[Batch]) -> None:
        """Commit a group and have its callers woken. If its *data* is refused, each is tried alone, so that one bad
        receipt cannot fail its neighbours; if the database is away, all are told to come back, without trying each.
        """
        started = perf_counter()
        try:
            async with asyncio.timeout(COMMIT_WITHIN):
                await take(self._engine, group, self._meaning)
        except asyncio.CancelledError:
            _fail(group, Busy())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the callers must hear of it
            await self._refused(group, error)
        else:
            metrics.committed(sum(map(len, group)), perf_counter() - started)
            self._answer(group)

    async def _refused(self, group: list[Batch], error: Exception) -> None:
        lost = is_lost(error)
        log.warning("group not committed", lost=lost, size=len(group), **error_fields(error))
        if isinstance(error, TimeoutError):  # who waited for this group has no time left to wait for another
            group += [part for batch in self._waiting for part in _parts(batch)]
            self._waiting.clear()
            self._depth = self._behind = 0
        if lost or len(group) == 1 or not isinstance(error, PostgresError):
            _fail(group, Busy())
            return
        for batch in group:
            await self._settle([batch])

    def _answer(self, group: list[Batch]) -> None:
        """Wake the callers one by one, and look at the database between two of them. Woken all together they keep it
        waiting with the next group for as long as their answers and next requests take: a seventh of all time under
        load.
        """
        if not self._committed:
            asyncio.get_running_loop().call_soon(self._wake)
        self._committed.extend(group)

    def _wake(self) -> None:
        batch = self._committed.popleft()
        if not batch.done.done():
            batch.done.set_result(None)
        if self._committed:
            asyncio.get_running_loop().call_soon(self._wake)


def _in_parts(receipts: Sequence[Receipt], unread: Sequence[Kept], now: datetime) -> Batch:
    """The first part of a large callback, with all others behind it."""
    loop, size, first = asyncio.get_running_loop(), GROUP_MOST // 2, None
    for start in reversed(range(0, max(len(receipts), len(unread)), size)):
        part = slice(start, start + size)
        first = Batch(receipts[part], unread[part], now, loop.create_future(), rest=first)
    assert first is not None  # noqa: S101 - it is larger than nothing
    return first


def _parts(first: Batch | None) -> Iterator[Batch]:
    while first is not None:
        yield first
        first = first.rest


def _fail(group: list[Batch], error: Exception) -> None:
    for batch in group:
        if not batch.done.done():
            batch.done.set_exception(error)


async def take(engine: AsyncEngine, group: Sequence[Batch], meaning: Meaning) -> None:
    """Commit everything a group brought and everything that follows from it, in a fixed number of statements."""
    now, came = datetime.now(UTC), sum(len(batch.receipts) for batch in group)
    async with transaction(engine) as db:
        if any(batch.nonce for batch in group):
            group = await _without_copies(db, group, now)
        arrivals = [arrival(r, batch.arrived, meaning) for batch in group for r in batch.receipts]
        taken, _ = await keep(db, arrivals, [kept for batch in group for kept in batch.unread], meaning, now)
    metrics.taken(taken, came - len(taken))


async def _without_copies(db: Connection, group: Sequence[Batch], now: datetime) -> list[Batch]:
    """The callbacks whose nonce was not seen before, here or in another process."""
    fresh = await store.add_nonces(db, {batch.nonce for batch in group if batch.nonce}, now)
    first: list[Batch] = []
    for batch in group:
        if batch.nonce is None or batch.nonce in fresh:
            first.append(batch)
            fresh -= {batch.nonce}
    return first
