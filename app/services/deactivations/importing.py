"""One deactivation file, from its bytes to what follows: staged, judged, acted on. Its length costs no memory.

Killed at any moment it goes on where it was when the same file comes again; finished, the same file changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any, BinaryIO, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from app.feeds import read
from app.models.catalogue import Carriers
from app.models.feed import TAKES, Deactivated, Event, Feed, Layout
from app.services import store
from app.services.apply import apply
from app.services.connection import Connection, driver_of, transaction
from app.services.deactivations import files
from app.services.deactivations.events import noted_kinds, reason_of, when
from app.services.deactivations.files import File, Given, Judged
from app.services.deactivations.unpack import NotAFile, Unpacked
from app.services.decide import reported
from app.services.meaning import Meaning
from app.services.opt_outs import opted_out

STAGED_AT_ONCE = 10_000
ACTED_AT_ONCE = 2_000
"""Numbers that one transaction locks."""
MANY, MOST_BROKEN = 100, 0.9
"""Of so many broken lines and above this share of them a file is not what its feed says."""

Tell = Callable[[str, int, int], None]
"""What is under way, how much of it is done, and how much there is (0: nobody knows)."""


class TooMuch(Exception):
    """The file takes more of a list than may be taken unasked."""

    def __init__(self, lists: Sequence[Judged], share: float) -> None:
        worst = max(lists, key=lambda one: one.affected / max(one.subscribers, 1))
        super().__init__(
            f"the file would take {worst.affected:,} of the {worst.subscribers:,} subscribers of list {worst.list} of "
            f"{worst.sender}, more than {share:.3g} of a list may be taken unasked"
        )
        self.lists = lists


class UnderWay(Exception):
    """Another process takes this very file in."""

    def __init__(self) -> None:
        super().__init__("this very file is being taken in just now: wait for it")


class NotThis(NotAFile):
    """The file is not what its feed writes."""


@dataclass(frozen=True, slots=True)
class Guard:
    """More than this share of a list, and at least so many subscribers, are not taken unasked."""

    share: float = 0.01
    at_least: int = 3

    def stops(self, one: Judged) -> bool:
        return one.affected >= self.at_least and one.affected > self.share * one.subscribers


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted: a file of a feed, its day where it is told, and how it is to be read."""

    feed: Feed
    file: BinaryIO
    day: date | None = None
    layout: Layout = field(default_factory=Layout)
    name: str | None = None
    fetched: str | None = None
    dry_run: bool = False
    sure: bool = False


class Outcome(NamedTuple):
    """What has come of a file, or would. `held`: records about numbers that anything but such a file has
    spoken of; `remembered`: other numbers. `already`: the file had been taken in before, and nothing happened now.
    """

    feed: str
    day: date | None
    records: int
    broken: int
    errors: list[dict[str, Any]]
    held: int
    remembered: int
    changes: int
    opted_out: int
    lists: list[Judged]
    cut: bool
    already: bool
    dry_run: bool

    def told(self) -> dict[str, Any]:
        return self._asdict() | {"lists": [one._asdict() for one in self.lists]}


def no_one(_what: str, _done: int, _total: int) -> None:
    """Nobody watches."""


async def take_in(engine: AsyncEngine, meaning: Meaning, order: Order, guard: Guard, tell: Tell = no_one) -> Outcome:
    """Everything. Raises TooMuch, UnderWay, NotAFile; what the database says is raised as it is, and the file goes on
    when it comes again.
    """
    given = await asyncio.to_thread(_given, order)
    now = datetime.now(UTC)
    async with _own_connection(engine) as db:
        file = await files.begin(db, given, now)
        if file.finished_at:
            await files.finish(db, file.id, None if file.cut else order.fetched)
            return _outcome(file, [], order, already=True)
        if not await files.take_alone(db, file.id):
            raise UnderWay
        try:
            if await files.find(db, given) != file:  # who had it until this moment has ended it, or given it up
                raise UnderWay
            return await _Taking(engine, db, meaning, order, guard, tell).run(file)
        finally:
            if not db.is_closed():
                await files.give_back(db, file.id)


@asynccontextmanager
async def _own_connection(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """One connection for the whole file: it holds the file's lock, and stages its lines."""
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as pooled:
        try:
            yield await driver_of(pooled)
        except BaseException:
            await pooled.invalidate()  # in the middle of a COPY, perhaps, and the lock goes with it
            raise


def _given(order: Order) -> Given:
    """The same bytes, read in the same way, are the same file; where there are none, what it is fetched as."""
    digest = sha256(repr(sorted(order.layout.columns.items())).encode())
    order.file.seek(0)
    while part := order.file.read(1 << 20):
        digest.update(part)
    if order.fetched and not order.file.tell():
        digest.update(order.fetched.encode())
    return Given(order.feed.name, digest.digest(), order.day, order.layout.carrier, order.name)


@dataclass(slots=True)
class _Taking:
    """One file on its way."""

    engine: AsyncEngine
    db: Connection
    meaning: Meaning
    order: Order
    guard: Guard
    tell: Tell

    async def run(self, file: File) -> Outcome:
        await files.clear_away(self.db, datetime.now(UTC), file.id)
        file = await files.prepare(self.db, file)
        if not file.whole:
            file = await self._whole(file)
        if why := _is_none(file):
            await files.forget(self.db, file.id)
            raise NotThis(why)
        lists: list[Judged] = []
        if self.order.dry_run or not file.acted:
            at = when(file.day, "DEACT", file.started_at)[0]
            lists = await files.judge(self.db, file.id, at, sorted(TAKES))
        if self.order.dry_run:
            return await self._would(file, lists)
        if not self.order.sure and any(map(self.guard.stops, lists)):
            await files.forget(self.db, file.id)
            raise TooMuch([*filter(self.guard.stops, lists)], self.guard.share)
        await self._act(file)
        await files.finish(self.db, file.id, None if file.cut else self.order.fetched)
        return _outcome(await files.state(self.db, file.id), lists, self.order)

    async def _whole(self, file: File) -> File:
        """With all of its lines staged. Of bytes that are no file nothing stays."""
        try:
            await self._stage(file)
        except NotAFile:
            await files.forget(self.db, file.id)
            raise
        return await files.state(self.db, file.id)

    async def _would(self, file: File, lists: list[Judged]) -> Outcome:
        held, noted = await files.foresee(self.db, file.id, self._default(file))
        if not file.acted:
            await files.forget(self.db, file.id)
        return _outcome(file._replace(held=held, noted=noted), lists, self.order)

    # Staging ---------------------------------------------------------------------------------------------------------

    async def _stage(self, file: File) -> None:
        """Lines in parts, each with the progress in one transaction. What was staged before is read over."""
        unpacked = Unpacked(self.order.file)
        parts = self._parts(file, unpacked)
        while part := await asyncio.to_thread(next, parts, None):
            await files.stage(self.db, file, part.records, part.errors, part.upto)
            self.tell("reading", self.order.file.tell(), 0)
        await files.is_whole(self.db, file.id, cut=unpacked.cut)

    def _parts(self, file: File, unpacked: Unpacked) -> Iterator[_Part]:
        """A line's records are never torn apart: progress is by line."""
        row = _row(file, self.meaning.carriers)
        part = _Part()
        for line, said in read(self.order.feed, unpacked.lines(), self.order.layout):
            if line <= file.staged:
                continue
            if line > part.upto and len(part.records) + len(part.errors) >= STAGED_AT_ONCE:
                yield part
                part = _Part()
            part.upto = line
            if isinstance(said, str):
                part.errors.append((line, said))
            else:
                part.records.append(row(line, said))
        if part.upto:
            yield part

    # Acting ----------------------------------------------------------------------------------------------------------

    async def _act(self, file: File) -> None:
        """Until there are no more: an erasure may write some lines anew behind all others."""
        first = file.acted
        while first < (total := await files.blocks(self.db, file.id)):
            await self._apply(file, first, await self._note(file, first))
            first += files.BLOCKS
            self.tell("acting", min(first, total), total)

    async def _note(self, file: File, first: int) -> Sequence[Any]:
        """Note numbers in a transaction of its own: in one with `_apply` they would be locked in two different orders.
        Returns the records that are left to be applied.
        """
        async with transaction(self.engine) as db:
            noted, held = await files.note(db, file.id, first, self._default(file))
            if noted:
                await files.acted(db, file.id, noted=noted)
        return held

    def _default(self, file: File) -> files.Default:
        reasons = (reason_of("TRANSFER", self.meaning), reason_of("DEACT", self.meaning))
        return files.Default(*when(file.day, "DEACT", file.started_at), reasons, noted_kinds(self.meaning))

    async def _apply(self, file: File, first: int, rows: Sequence[Any]) -> None:
        """In groups. How many records it held is told with the last: a part that broke off is applied once more."""
        groups = [rows[start : start + ACTED_AT_ONCE] for start in range(0, len(rows), ACTED_AT_ONCE)]
        held = 0
        for place, group in enumerate(groups or [[]], 1):
            now = datetime.now(UTC)
            async with transaction(self.engine) as db:
                kept = await self._not_erased(db, file, group)
                verdicts = [reported(self._event(file, row), self.meaning.policy) for row in kept]
                applied = await apply(db, verdicts, self.meaning.policy, now)
                changes = applied.every_change
                await store.count(db, opted_out(applied, changes))
                outs = sum(change.kind == "list.opted_out" for change in changes)
                held += len(kept)
                ends = {"upto": first + files.BLOCKS, "held": held} if place >= len(groups) else {}
                await files.acted(db, file.id, **ends, changes=len(changes), opted_out=outs)
                await store.publish(db, changes)

    async def _not_erased(self, db: Connection, file: File, group: Sequence[Any]) -> Sequence[Any]:
        """Of records that were read before the transaction those that still lie there."""
        gone = await files.erased_since(db, file, lambda: {number for row in group for number in (row[0], row[5])})
        rows = (row for row in group if row[0] not in gone)
        return [(*row[:5], None, row[6]) if row[5] in gone else row for row in rows] if gone else group

    def _event(self, file: File, row: Sequence[Any]) -> Event:
        number, kind, at, guard, carrier, new_number, new_carrier = row
        default = when(file.day, kind, file.started_at)
        return Event(
            number, kind, reason_of(kind, self.meaning), at or default[0], guard or default[1], file.feed, file.day,
            carrier or self._carrier(file, number), new_number, new_carrier,
        )  # fmt: skip

    def _carrier(self, file: File, number: str) -> str | None:
        return self.meaning.carriers.name(file.carrier, number) if file.carrier else None


@dataclass(slots=True)
class _Part:
    """Records to be staged, and the broken lines among them, up to a line."""

    records: list[tuple[Any, ...]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    upto: int = 0


def _row(file: File, carriers: Carriers) -> Callable[[int, Deactivated], tuple[Any, ...]]:
    """A record as it is staged. What it shares with its whole file is left to the file; a carrier's code that no table
    knows is no carrier: it would look like another one than yesterday's.
    """
    arrived, own = file.started_at, file.carrier

    def row(line: int, said: Deactivated) -> tuple[Any, ...]:
        number, kind, told, carrier, new_number, new_carrier = said
        at, guard = when(told, kind, arrived) if told is not None else (None, None)
        if carrier is not None:
            carrier = carriers.name(carrier, number) if carrier != own else None
        if new_carrier is not None:
            new_carrier = carriers.name(new_carrier, number) or new_carrier
        return line, number, kind, at, guard, carrier, new_number, new_carrier

    return row


def _is_none(file: File) -> str | None:
    """Why it cannot be a file of its feed: a page of HTML, a picture, another feed's table are mostly broken lines."""
    lines = file.broken + file.records
    if file.cut and not file.records:
        return "the file is cut or broken before its first record: nothing was done; get the file again"
    if not file.broken or (file.records and (file.broken < MANY or file.broken <= MOST_BROKEN * lines)):
        return None
    first = file.errors[0]
    return (
        f"{file.broken:,} of {lines:,} lines are broken (line {first['line']}: {first['error']}): nothing was done; "
        "name the feed that wrote the file, and the columns where that is `generic`"
    )


def _outcome(file: File, lists: list[Judged], order: Order, *, already: bool = False) -> Outcome:
    return Outcome(
        file.feed, file.day, file.records, file.broken, file.errors[: files.ERRORS_KEPT], file.held, file.noted,
        file.changes, file.opted_out, lists, file.cut, already, order.dry_run,
    )  # fmt: skip
