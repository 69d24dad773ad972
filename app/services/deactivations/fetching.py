"""Fetches the files of the feeds that are configured: every day, those of missed days too, and none of them twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, BinaryIO, NamedTuple, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.feeds import CANNOT_READ, known_by, why
from app.models.feed import Ask, Download, Feed, Layout, Listing, NotYet, Refused, Save, Source, TooOld, Wanted, Write
from app.models.http import Options
from app.services import store
from app.services.connection import Connection, driver_of, is_lost, transaction
from app.services.deactivations.importing import MANY, Guard, Order, Outcome, Tell, TooMuch, UnderWay, no_one, take_in
from app.services.deactivations.transport import Transport, Unreached
from app.services.deactivations.unpack import NotAFile
from app.services.logs import error_fields
from app.services.meaning import Meaning

log = structlog.get_logger(__name__)

EVERY = 3_600.0
"""Seconds between two looks of the service: a file that was not ready is there an hour later."""
DAYS = 7
"""How many days back are looked at; further back the missing ones alone."""
MOST_UNREAD = 0.01
"""Above this share of lines, if they are many, somebody is told that they cannot be read."""
LOCK = 7_316_005
FAILED, STOPPED = "feed_failed", "feed_guard"
NOTHING = "there is nothing of any of the last days: look at the feed's `base_url` and at the account"
CUT = "the file ended before it should have: what there is of it counts, and it is fetched again"
FAULT = "a fault of Sendable: the log says where; it is tried again, and the others are fetched"
MAKE_ROOM = "make room in the folder of temporary files, or name another by TMPDIR"
LOOK = "look at it, and run `sendable fetch deactivations --yes` if it is meant"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A feed that is configured, with its own settings."""

    feed: Feed
    options: Options

    @property
    def source(self) -> Source:
        assert self.feed.source is not None  # noqa: S101 - only such feeds are subscribed to
        return self.feed.source


class Fetched(NamedTuple):
    """One file, or one day of which no list could be had. `error` None: it was taken in, whole; `alarm`: which one an
    error raises.
    """

    feed: str
    day: date
    key: str | None
    outcome: Outcome | None = None
    error: str | None = None
    alarm: str = FAILED

    def told(self) -> dict[str, Any]:
        outcome = self.outcome.told() if self.outcome else None
        return {"feed": self.feed, "day": self.day, "key": self.key, "outcome": outcome, "error": self.error}


class NoRoom(Exception):
    """A file cannot be kept here until it is taken in."""


class Elsewhere(Exception):
    """Another process fetches just now."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """What fetching needs. `sure`: a person has said that as much may be taken of a list as the files name."""

    engine: AsyncEngine
    meaning: Meaning
    subscriptions: Sequence[Subscription]
    guard: Guard
    transport: Transport
    sure: bool = False

    async def run(self) -> None:
        """Until cancelled. A database or a feed that is away is tried again at the next look."""
        while True:
            try:
                await self.fetch(datetime.now(UTC).date())
            except Elsewhere:
                pass
            except Exception as error:  # noqa: BLE001 - it is tried again; it must not end
                log.warning("fetching failed and is tried again", lost=is_lost(error), **error_fields(error))
            await asyncio.sleep(EVERY)

    async def fetch(self, today: date, tell: Tell = no_one) -> list[Fetched]:
        """Everything there is up to yesterday and not taken in yet. Raises Elsewhere."""
        async with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as pooled:
            db = await driver_of(pooled)
            if not await db.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                raise Elsewhere("another process fetches deactivation files just now: wait for it")
            try:
                return [one for each in self.subscriptions for one in await self._feed(db, each, today, tell)]
            finally:
                if not db.is_closed():
                    await db.execute("SELECT pg_advisory_unlock($1)", LOCK)

    async def _feed(self, db: Connection, one: Subscription, today: date, tell: Tell) -> list[Fetched]:
        """A feed's days in order. Whatever is wrong is told, raises an alarm, and is tried again the next time."""
        told: list[Fetched] = []
        back, absent = int(one.options.get("days", DAYS)), set[date]()
        days = await _days(db, one, today, back)
        for day in days:
            found = await self._day(db, one, day, tell)
            if found is None:
                absent.add(day)
                continue
            told += found
            if any(fetched.error and fetched.outcome is None and fetched.key is None for fetched in found):
                break
        last = days[-max(back, 2) :]
        if absent.issuperset(last) and len(last) > 1:  # yesterday's alone may not be ready
            told.append(Fetched(one.feed.name, last[0], None, error=NOTHING))
        await self._alarm(one.feed.name, told)
        return told

    async def _day(self, db: Connection, one: Subscription, day: date, tell: Tell) -> list[Fetched] | None:
        """The files of a day. None: nothing of it is there."""
        name = one.feed.name
        try:
            wanted: Sequence[Wanted] = await self._drive(one.source.listing(day, one.options)) or ()
        except (NotYet, TooOld):
            return None
        except (Refused, Unreached) as error:
            return [Fetched(name, day, None, error=str(error))]
        known = await _known(db, name, [each.key for each in wanted])
        got = [await self._one(one, each, tell) for each in wanted if each.key not in known]
        there = [fetched for fetched in got if fetched]
        return there if there or known else None

    async def _one(self, one: Subscription, wanted: Wanted, tell: Tell) -> Fetched | None:
        """One file. None: it is not there yet, or not any more."""
        name = one.feed.name
        try:
            with await self._saved(one, wanted) as file:
                order = Order(one.feed, file, wanted.day, _layout(wanted), wanted.name, wanted.key, sure=self.sure)
                outcome = await take_in(self.engine, self.meaning, order, self.guard, tell)
                return Fetched(name, wanted.day, wanted.key, outcome, _lacks(outcome))
        except (NotYet, TooOld):
            return None
        except TooMuch as error:
            return Fetched(name, wanted.day, wanted.key, error=f"{error}: {LOOK}", alarm=STOPPED)
        except (Refused, Unreached, NoRoom, NotAFile, UnderWay) as error:
            return Fetched(name, wanted.day, wanted.key, error=str(error))
        except Exception as error:
            if is_lost(error):
                raise
            log.error("a file met a fault", feed=name, **error_fields(error))  # noqa: TRY400 - without its text
            return Fetched(name, wanted.day, wanted.key, error=FAULT)

    async def _saved(self, one: Subscription, wanted: Wanted) -> BinaryIO:
        """The file, on the disk. Raises NoRoom, and what is wrong with the feed."""
        try:
            with ExitStack() as undone:
                file = cast("BinaryIO", undone.enter_context(tempfile.TemporaryFile(prefix="sendable-feed-")))
                await self._drive(one.source.download(wanted, one.options), file)
                undone.pop_all()
                return file
        except OSError as error:
            raise NoRoom(f"it cannot be kept ({error.strerror}): {MAKE_ROOM}") from error

    async def _drive(self, steps: Listing | Download, file: BinaryIO | None = None) -> Any:  # noqa: ANN401 - either's
        """Send what a generator asks for, and give it the answers, until it ends."""
        answer = None
        while True:
            try:
                step = next(steps) if answer is None else steps.send(answer)
            except StopIteration as end:
                return end.value
            except CANNOT_READ as error:
                raise Refused(f"an answer that cannot be read: {why(error)}") from error
            answer = None
            if isinstance(step, Ask):
                answer = await self.transport.ask(step.call)
            elif isinstance(step, Save) and file is not None:
                await self.transport.save(step.call, file)
            elif isinstance(step, Write) and file is not None:
                file.write(step.body)

    async def _alarm(self, feed: str, told: Sequence[Fetched]) -> None:
        """Alarms stand as long as the newest look ends with what they tell."""
        kinds = {one.alarm for one in told if one.error}
        now = datetime.now(UTC)
        async with transaction(self.engine) as db:
            await store.clear_alarms(db, [*({FAILED, STOPPED} - kinds)], now, [feed])
            await store.alarm(db, {(kind, feed): 1 for kind in sorted(kinds)}, now)


def _lacks(outcome: Outcome) -> str | None:
    """What there is of a file that was not taken in, where nobody but the alarm would tell it."""
    if outcome.cut:
        return CUT
    lines = outcome.records + outcome.broken
    if outcome.broken < MANY or outcome.broken <= MOST_UNREAD * lines:
        return None
    first = outcome.errors[0]
    return f"{outcome.broken:,} of {lines:,} lines cannot be read (line {first['line']}: {first['error']})"


def _layout(wanted: Wanted) -> Layout:
    """A file's name may tell its carrier; so may the list it stands in."""
    known = known_by(wanted.name) if wanted.name else None
    return Layout(carrier=wanted.carrier or (known.carrier if known else None))


_FIRST = "SELECT min(day) FROM feed_files WHERE feed = $1 AND fetched IS NOT NULL AND finished_at IS NOT NULL"


async def _days(db: Connection, one: Subscription, today: date, back: int) -> list[date]:
    """The last days up to yesterday, and before them those since the first one of which a file was taken in: nobody
    looked then, or one of their files waits for a person.
    """
    first = await db.fetchval(_FIRST, one.feed.name) or today
    days = (today - timedelta(days=ago) for ago in range(one.source.kept, 0, -1))
    return [day for day in days if (today - day).days <= back or day >= first]


_KNOWN = """
SELECT fetched FROM feed_files WHERE feed = $1 AND fetched = ANY($2::text[]) AND finished_at IS NOT NULL
"""


async def _known(db: Connection, feed: str, keys: Sequence[str]) -> set[str]:
    return {row["fetched"] for row in await db.fetch(_KNOWN, feed, [*keys])}
