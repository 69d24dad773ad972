"""Makes the lookups that are due: claims them, asks, and commits what follows on the same path as a receipt.

In the whole fleet one lookup a number is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import metrics
from app.services.connection import Busy, is_lost, transaction
from app.services.logs import error_fields
from app.services.lookup import claims, stops
from app.services.lookup.ask import Asker
from app.services.lookup.budget import Budget
from app.services.lookup.claims import Claim
from app.services.lookup.commit import Commits
from app.services.lookup.kept import NOTHING_KNOWN, Known, known, refused, still_good, wordless
from app.services.lookup.outcome import Done, Outcome, Plan
from app.services.lookup.panel import Panel, Told
from app.services.lookup.transport import Transport
from app.services.lookup.written import Before, there, written
from app.services.meaning import Meaning

log = structlog.get_logger(__name__)

AT_ONCE = 64
"""Lookups under way in one process."""
MOST = 2_000
"""Numbers under way in one process, where a call asks for many."""
LOOKS_EVERY = 0.5
"""Seconds between two looks for lookups that are due."""
JOINS_EVERY = 0.1
"""Seconds between two looks at a lookup that another process makes."""
STOPS_WITHIN = 5.0
"""Seconds that answers which have come may still take to be committed when we stop; no provider is waited for."""


class NoProvider(Exception):
    """No lookup provider is configured."""


class Lookups:
    """The lookup service of one process."""

    def __init__(self, engine: AsyncEngine, meaning: Meaning, plan: Plan) -> None:
        self._engine = engine
        self._meaning = meaning
        self.plan = plan
        self._transport = Transport()
        self.budget = Budget(engine, plan.per_day, plan.per_number, plan.most)
        self.panel = Panel([Asker(source, self._transport, self.budget) for source in plan.sources])
        self._flights: dict[str, asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None] | None] = set()
        self._commits = Commits(engine, meaning, plan)
        self._free, self._poked = asyncio.Event(), asyncio.Event()
        self._stopping = False

    # The loop ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop`. With no provider configured there is nothing to do: lookups wait."""
        if not self.plan.sources:
            return
        async with self.open():
            await self._wake()
            while not self._stopping:
                try:
                    await self._look()
                except Exception as error:  # noqa: BLE001 - lookups are tried again; they must not end
                    log.warning("lookups not claimed, tried again", lost=is_lost(error), **error_fields(error))
                    await self._pause()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Lookups]:
        """Ready to look numbers up by call; `run` looks for what is due as well."""
        committing = asyncio.create_task(self._commits.run())
        try:
            yield self
            await self._land()
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
            await self._transport.close()

    def stop(self) -> None:
        self._stopping = True
        self._poked.set()
        self._free.set()

    async def _wake(self) -> None:
        try:
            async with transaction(self._engine) as db:
                await claims.wake_the_unpaid(db)
        except Exception as error:  # noqa: BLE001 - they are due at midnight anyway
            log.warning("lookups over the budget were not woken", lost=is_lost(error), **error_fields(error))

    async def _pause(self) -> None:
        if self._stopping:
            return
        self._poked.clear()
        try:
            async with asyncio.timeout(LOOKS_EVERY):
                await self._poked.wait()
        except TimeoutError:
            pass

    async def _look(self) -> None:
        """Claim as many as there is room for, and whose turn comes soon; send them on their way."""
        size, turns = self._batch()
        room = min(AT_ONCE * size, MOST) - len(self._flights)
        if room <= 0:
            self._free.clear()
            await self._free.wait()
            return
        async with transaction(self._engine) as db:
            self.panel.obey(await stops.read(db))
            size, turns = self._batch()
            most = min(room, turns)
            mine = await claims.claim(db, most, self.panel.lease) if most else []
            before = await known(db, mine) if mine else NOTHING_KNOWN
        for start in range(0, len(mine), size):
            self._fly(mine[start : start + size], before)
        if len(mine) < room:
            await self._pause()

    def _batch(self) -> tuple[int, int]:
        """Numbers that one call may ask for, and those whose turn comes soon: none while no provider may be asked."""
        first = self.panel.first()
        return (first.source.provider.batch, first.room) if first else (1, 0)

    def _fly(self, mine: Sequence[Claim], before: Known) -> None:
        loop = asyncio.get_running_loop()
        for one in mine:
            self._flights.setdefault(one.number, loop.create_future())  # of a number that was erased, callers wait on
        task = asyncio.create_task(self._make(mine, before))
        for tasks in (self._tasks, self._asking):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _land(self) -> None:
        """At a stop: calls under way are given up, their numbers given back; answers that have come are committed."""
        await asyncio.sleep(0)  # a task that is cancelled before it has begun gives nothing back
        for task in [*self._asking]:
            if task:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOPS_WITHIN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.budget.idle()

    # One lookup ----------------------------------------------------------------------------------------------------

    async def _make(self, mine: Sequence[Claim], before: Known) -> None:
        """Ask about these numbers and have what follows committed. Whatever fails, the lease ends by itself: of what
        has been paid for, and after a fault of ours, not sooner, since it would be paid for again and again.
        """
        give_back = True
        try:
            done = await self._asked(mine, before)
            self._asking.discard(asyncio.current_task())
            give_back = False
            for outcome in await self._commits.outcomes(done):
                self._arrive(outcome.number, outcome)
        except Exception as error:  # noqa: BLE001 - it is made again after its lease
            lost = isinstance(error, Busy) or is_lost(error)
            give_back = give_back and lost
            log.warning("lookup not finished", lost=lost, **error_fields(error))
        finally:
            for one in mine:
                self._arrive(one.number, None)
            self._free.set()
            if give_back:
                await self._give_back(mine)

    def _arrive(self, number: str, outcome: Outcome | None) -> None:
        flight = self._flights.pop(number, None)
        if flight is None or flight.done():
            return
        if outcome is not None:
            flight.set_result(outcome)
        else:
            flight.set_exception(Busy())
            flight.exception()  # nobody need wait for it

    async def _give_back(self, mine: Sequence[Claim]) -> None:
        try:
            async with transaction(self._engine) as db:
                await claims.give_back(db, mine)
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            log.warning("claims not given back", lost=is_lost(error), **error_fields(error))

    async def _asked(self, mine: Sequence[Claim], before: Known) -> list[Done]:
        """Answers to these: an earlier one where it still decides, else what the providers say now."""
        now, numbers = datetime.now(UTC), [one.number for one in mine]
        begun = [one.number for one in mine if not one.forced and one.step == 0]
        good = {number: answer for number in begun if (answer := still_good(before, number, self._meaning, now))}
        metrics.LOOKUP_HITS.inc(len(good))
        configs = {asker.name: asker.config for asker in self.panel.askers}
        no = {number: refused(before.answers.get(number, ()), configs) for number in numbers}
        for number in begun:
            no[number] += wordless(before, number, configs, self._meaning, now)
        skip = {(number, answer.provider) for number, answers in no.items() for answer in answers}
        told = await self.panel.ask([number for number in numbers if number not in good], skip)
        for number, heard in told.items():
            if no[number] and not heard.answers and heard.lacks == "provider":
                heard.lacks = None  # all who are configured have refused, or named no carrier: that is an answer
            heard.answers += [answer._replace(config="") for answer in no[number]]
        return [
            Done(one, Told([good[one.number]]), from_kept=True) if one.number in good else Done(one, told[one.number])
            for one in mine
        ]

    # By call -------------------------------------------------------------------------------------------------------

    async def look_up(self, number: str) -> Outcome:
        """A lookup now, past the kept answers but not past the budget; or the one that is under way. Raises NoProvider,
        and Busy when nothing can be written.
        """
        if not self.plan.sources:
            raise NoProvider
        if flight := self._flights.get(number):
            return await asyncio.shield(flight)
        before: Before | None = None
        while True:
            async with transaction(self._engine) as db:
                self.panel.obey(await stops.read(db))
                before = before or await there(db, number)
                mine = await claims.take(db, number, self.panel.lease)
                answers = await known(db, [mine]) if mine else NOTHING_KNOWN
            if mine is not None:
                self._fly([mine], answers)
            if flight := self._flights.get(number):
                return await asyncio.shield(flight)
            if joined := await self._join(number, before):
                return joined

    async def _join(self, number: str, before: Before) -> Outcome | None:
        """Another process makes it: wait until its lease is given up, and read what it wrote. None if it has died.
        Raises Busy when it takes longer than that: what was answered cannot be committed just now.
        """
        until = monotonic() + self.panel.lease
        while monotonic() < until:
            await asyncio.sleep(JOINS_EVERY)
            async with transaction(self._engine) as db:
                if not await claims.is_leased(db, number):
                    return await written(db, number, before)
        raise Busy
