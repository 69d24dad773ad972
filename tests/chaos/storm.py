"""Storms: a load, kills at random moments of it, and what was found afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from random import Random
from time import monotonic

from app.config import Settings
from app.services.meaning import Meaning
from app.wiring import meaning_of
from tests.chaos.facts import World
from tests.chaos.ground import STARTS, Postgres, Served
from tests.chaos.load import RESUMES, Follower, Load, Log, Stream, until, until_so
from tests.chaos.truth import Kept, kept, lost, stored, unanswered, wrong

Tell = Callable[[int, str], None]
"""Hears after each kill how many there have been, and what stands so far."""
BETWEEN = (10, 90)
"""Facts that are taken between two kills: a random moment, and always under load."""
STOPS = 10.0
"""Seconds in which a service that is told to stop has ended."""
_ARRIVES = 10.0
"""Seconds until a client has read what a service sent before it ended."""


def _nobody(_: int, __: str) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Outcome:
    """What a storm leaves. `wrong` is empty, or the storm has found something; `away` is the seconds until the killed
    one answered again, or until the stopped one had ended.
    """

    log: Log
    held: Kept
    wrong: list[str]
    away: list[float]
    seconds: float
    streams: list[Stream]

    def figures(self) -> str:
        """A line for people."""
        answers = ", ".join(f"{total:,} times {status}" for status, total in sorted(self.log.answers.items()))
        away = f"away {min(self.away):.1f} to {max(self.away):.1f} s; " if self.away else ""
        return (
            f"{len(self.away)} times; {self.log.count:,} facts taken in {self.seconds:.0f} s "
            f"({answers}; {self.log.broken.total():,} broken connections); slowest answer {self.log.slowest:.1f} s; "
            f"{away}{len(self.held.receipts):,} receipts, "
            f"{len(self.held.changes):,} changes; {len(self.wrong)} wrong"
        )


@dataclass(slots=True)
class _Storm:
    """The load, and what is found on the way. `down` takes one victim away and, when it returns, it is back."""

    load: Load
    url: str
    random: Random
    tell: Tell
    left: int
    away: list[float] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    async def rage(self, down: Callable[[], Awaitable[float]]) -> None:
        """Until no kills are left. What was answered before a kill must be there after it."""
        while self.left > 0:
            self.left -= 1
            await self.load.taken(self.random.randint(*BETWEEN))
            await asyncio.sleep(self.random.random() / 50)  # not in step with the answers: inside transactions as well
            answered = Log(taken=Counter(self.load.log.taken))
            self.away.append(await down())
            self.found += lost(answered, await stored(self.url))
            self.tell(len(self.away), f"{self.load.log.count:,} facts taken, {len(self.found)} lost")


async def kill_services(
    services: Sequence[Served], url: str, kills: int, seed: int, *, tell: Tell = _nobody
) -> Outcome:
    """`kill -9` of the services, each at moments of its own, while any of the others goes on."""

    def down(victim: Served) -> Callable[[], Awaitable[float]]:
        async def kill() -> float:
            began = monotonic()
            await victim.kill()
            victim.start()
            await victim.ready()
            return monotonic() - began

        return kill

    return await _storm(services, url, [down(one) for one in services], kills, seed, tell=tell)


async def kill_postgres(server: Postgres, services: Sequence[Served], url: str, kills: int, seed: int,
                        *, tell: Tell = _nobody) -> Outcome:  # fmt: skip
    """`kill -9` of the postmaster. The services live on, and have to find it again by themselves."""

    async def down() -> float:
        began = monotonic()
        server.kill()
        await until_so(server.answers, STARTS)
        return monotonic() - began

    return await _storm(services, url, [down], kills, seed, tell=tell)


async def stop_service(service: Served, url: str, stops: int, seed: int, *, tell: Tell = _nobody) -> Outcome:
    """SIGTERM. What the service took it has committed and answered, and then it has ended, event streams and all."""
    found: list[str] = []
    log = Log()

    async def down() -> float:
        seconds = await service.ended(signal.SIGTERM, STOPS)
        if service.process.returncode:
            found.append(f"it ended with {service.process.returncode}: {service.last_words()}")
        found.extend(await _left_unanswered(log, url))
        service.start()
        await service.ready()
        return seconds

    outcome = await _storm([service], url, [down], stops, seed, tell=tell, log=log)
    outcome.wrong += found
    broken = sum(one.breaks for one in outcome.streams)
    outcome.wrong += [f"event streams broke off {broken} times and did not end"] if broken else []
    return outcome


async def _left_unanswered(log: Log, url: str) -> list[str]:
    """Once the clients have read all that they were sent. Nobody adds to the table meanwhile."""
    there = await stored(url)
    try:
        await until(lambda: not [*unanswered(log, there)], _ARRIVES)
    except TimeoutError:
        return [*unanswered(log, there)]
    return []


async def kill_nobody(services: Sequence[Served], url: str, world: World, *, facts: int, clients: int) -> Outcome:
    """The load alone: so many facts told by so many clients at once."""
    return await _storm(services, url, [], 0, 1, world=world, facts=facts, clients=clients)


async def _storm(services: Sequence[Served], url: str, downs: Sequence[Callable[[], Awaitable[float]]], kills: int,
                 seed: int, *, tell: Tell = _nobody, log: Log | None = None, world: World | None = None,
                 facts: int = BETWEEN[1], clients: int = 12) -> Outcome:  # fmt: skip
    began, urls = monotonic(), [one.url for one in services]
    load, follower, streams = Load(world or World(seed), urls, seed, log), Follower(urls), [*map(Stream, urls)]
    storm = _Storm(load, url, Random(seed), tell, kills)  # noqa: S311 - chance, not secrets
    async with AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(stream.following())
        await stack.enter_async_context(follower.following())
        async with load.running(clients):
            await asyncio.gather(*(storm.rage(down) for down in downs))
            await load.taken(facts, within=2 * RESUMES)
        held = await kept(url)
        for stream in streams:
            await _read_to_the_end(stream, held)
    found = [*storm.found, *wrong(load.log, held, meaning()), *_followed(follower.seen, held, "cursor")]
    for stream in streams:
        found += [*stream.faults, *_followed(stream.seen, held, "stream")]
    return Outcome(load.log, held, found, storm.away, monotonic() - began, streams)


def meaning() -> Meaning:
    """As the services have it: the catalogue and policy that ship, a lookup provider configured."""
    return meaning_of(Settings(lookup={}))


async def _read_to_the_end(stream: Stream, held: Kept) -> None:
    """A stream looks by itself after 15 s at most. One that does not get there is found wanting by `_followed`."""
    with suppress(TimeoutError):
        await until(lambda: not held.changes or stream.seen[-1:] == [held.changes[-1]["seq"]], 30)


def _followed(seen: Sequence[int], held: Kept, how: str) -> list[str]:
    """Who follows by the cursor has seen every change once, in the order of their commits."""
    there = [row["seq"] for row in held.changes]
    if seen == there:
        return []
    missed, twice = sorted(set(there) - set(seen)), len(seen) - len(set(seen))
    return [f"who followed the feed by {how} missed {len(missed)} changes ({missed[:5]} …) and saw {twice} twice"]
