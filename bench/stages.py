"""What is measured, a function each: it starts the peer, lets both take turns, and says what it saw."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import httpx

from bench import deactivations as taking
from bench import lookups as looking
from bench import servers, tutorial
from bench.bare import Bare, bare
from bench.gateways import costs
from bench.ground import Ground, data_dir, know, own_database, stored, subscribe
from bench.load import CannotMeasure, Kind, Round, load
from bench.plan import BATCH, BULK, Plan
from bench.report import Cost, Line, Target
from bench.rounds import Turns, turns
from bench.servers import Server
from bench.traffic import number

ONE = "one receipt a post"
MANY = f"posts of {BATCH} receipts"
NO_TARGET = Target()
MOST_MEMORY = 150
"""MiB that an import may take, however long its file is."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: our service on its ground, and how much of everything."""

    plan: Plan
    ground: Ground
    traffic: Path
    ours: Server
    fresh: float
    """Resident MiB before the first request."""
    answered: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    costs: list[Cost] = field(default_factory=list)

    async def load(self, server: Server, path: str, kind: Kind = "receipts", *, size: int = 1,
                   seconds: int | None = None, connections: int | None = None) -> Round:  # fmt: skip
        plan = self.plan
        return await load(
            server.url + path, kind, self.traffic, seconds=seconds or plan.seconds,
            connections=connections or plan.connections, size=size,
        )  # fmt: skip

    async def take(self, size: int = 1, seconds: int | None = None) -> Round:
        """One round of receipts for us; each 2xx must be found in the database."""
        before = await stored(self.ground.ours)
        seen = await self.load(self.ours, "/v1/receipts/native", size=size, seconds=seconds)
        self.check("Sendable", seen, await stored(self.ground.ours) - before, size)
        return seen

    def check(self, who: str, seen: Round, found: int, size: int) -> None:
        """What got a 2xx is there. There may be more: what was on its way when wrk hung up, a request a connection."""
        if seen.refused or seen.broken or not seen.done:
            raise CannotMeasure(f"{who} refused {seen.refused} requests, broke {seen.broken}, answered {seen.done}")
        if not seen.done <= found <= seen.done + self.plan.connections * size:
            raise CannotMeasure(f"{who} answered {seen.done} receipts and stored {found}")
        self.tell(who, seen.done, found)

    def tell(self, who: str, answered: int, found: int) -> None:
        self.answered[who] += answered
        self.found[who] += found

    def truths(self) -> list[str]:
        """For each who stores: what it answered, what was found, and what that leaves."""
        return [self._truth(who, answered, self.found[who] - answered) for who, answered in self.answered.items()]

    def _truth(self, who: str, answered: int, more: int) -> str:
        left = f"all found, and {more:,} whose answer wrk did not wait for"
        return f"{who}: {answered:,} receipts answered, {f'**{-more:,} of them lost**' if more < 0 else left}"

    @asynccontextmanager
    async def peer(self, factory: str, given: dict[str, str] | None = None) -> AsyncIterator[Server]:
        async with servers.peer(factory, self.ground.folder / "peer.log", given) as server:
            yield server


Stage = Callable[[Run], Awaitable[list[Line]]]


async def the_tutorial_way(run: Run) -> list[Line]:
    url = run.ground.tutorial

    async def theirs() -> Round:
        before = await stored(url)
        seen = await run.load(peer, "/receipts")
        run.check("the tutorial's way", seen, await stored(url) - before, 1)
        return seen

    async with run.peer("bench.tutorial:create_app", {tutorial.DATABASE: url}) as peer:
        await know(url, run.plan.population)
        await run.load(peer, "/receipts", seconds=1)
        seen = await turns(run.plan.rounds, run.take, theirs)
    beside = "(a) a session and a commit a receipt"
    slowest = [_ms(one.p99 for one in rounds) for rounds in (seen.ours, seen.theirs)]
    return [
        _line(seen, ONE, beside, Target("≥", 12)),
        Line(f"{ONE}: p99", beside, seen.ratio(lambda one: one.p99), Target("<", 1), *slowest),
    ]


async def answering_first(run: Run) -> list[Line]:
    """The peer is killed when a round is over: what it had answered and not stored by then is lost."""
    url = run.ground.tutorial

    async def theirs() -> Round:
        async with run.peer("bench.tutorial:create_background_app", {tutorial.DATABASE: url}) as peer:
            before = await stored(url)
            seen = await run.load(peer, "/receipts")
            peer.kill()
        run.tell("200 first, then a background task, killed after each round", seen.done, await stored(url) - before)
        return seen

    seen = await turns(run.plan.rounds, run.take, theirs)
    return [_line(seen, ONE, "(b) 200 first, then a background task (loses receipts, see below)", NO_TARGET)]


async def no_op_fastapi(run: Run) -> list[Line]:
    beside = "(c) a no-op route: FastAPI, Pydantic body (goal: 1.0)"
    return [await _no_op(run, "bench.peers:create_fastapi", beside, Target("≥", 0.6))]


async def no_op_starlette(run: Run) -> list[Line]:
    beside = "(c) a no-op route: bare Starlette, JSON body"
    return [await _no_op(run, "bench.peers:create_starlette", beside, NO_TARGET)]


async def _no_op(run: Run, factory: str, beside: str, target: Target) -> Line:
    async with run.peer(factory) as peer:
        await run.load(peer, "/receipts", seconds=1)
        return _line(await turns(run.plan.rounds, run.take, lambda: run.load(peer, "/receipts")), ONE, beside, target)


async def posts_of_many(run: Run) -> list[Line]:
    """Our rounds are longer here: with 128 posts under way, each waits for the 12,800 receipts of all of them."""

    async def theirs() -> Bare:
        before, plan = await stored(run.ground.ours), run.plan
        done = await bare(run.ground.ours, "receipts", seconds=plan.seconds, size=BATCH, population=plan.population)
        if await stored(run.ground.ours) - before != done.stored:
            raise CannotMeasure(f"the bare statements say that they stored {done.stored} receipts, and did not")
        run.tell("the bare statements", done.stored, done.stored)
        return done

    seen = await turns(run.plan.rounds, lambda: run.take(BATCH, 2 * run.plan.seconds), theirs)
    return [_line(seen, MANY, f"(d) the bare statements from memory, {BATCH} at a time", Target("≥", 0.5))]


async def one_status(run: Run) -> list[Line]:
    path = "/v1/numbers"
    async with httpx.AsyncClient() as client, run.peer("bench.peers:create_fastapi") as peer:
        answer = (await client.get(f"{run.ours.url}{path}/{number(0)}")).raise_for_status().content
        await client.put(f"{peer.url}/answer", content=answer)
        await run.load(peer, "/numbers", "status", seconds=1)
        seen = await turns(
            run.plan.rounds,
            lambda: _answered(run.load(run.ours, path, "status")),
            lambda: _answered(run.load(peer, "/numbers", "status")),
        )
    beside = f"a no-op route that answers the same {len(answer)} bytes"
    return [_line(seen, "one number's status", beside, Target("≥", 0.7), unit="questions/s")]


async def bulk_status(run: Run) -> list[Line]:
    plan, url = run.plan, run.ground.ours
    size = min(BULK, plan.population)
    seen = await turns(
        plan.rounds,
        lambda: _answered(run.load(run.ours, "/v1/numbers/status", "bulk", size=size, connections=1)),
        lambda: bare(url, "status", seconds=plan.seconds, size=size, population=plan.population),
    )
    ours, theirs = (_ms(1e3 / one.rate for one in rounds) for rounds in (seen.ours, seen.theirs))
    beside, slower = "the bare query from memory, its rows fetched", seen.ratio(lambda one: 1 / one.rate)
    return [Line(f"{size:,} numbers in one question", beside, slower, Target("≤", 1.5), ours, theirs)]


async def lookups_made(run: Run) -> list[Line]:
    """Each round has numbers of its own; the wire is asked the same ones."""
    plan, starts = run.plan, count()
    size = plan.population // 20
    url = await own_database(run.ground.ours, "lookups")
    async with run.peer("bench.peers:create_provider") as peer:
        await looking.wire(peer.url, looking.some(0, size))
        seen = await turns(
            plan.rounds,
            lambda: looking.whole(url, peer.url, looking.some(next(starts) * size, size)),
            lambda: looking.wire(peer.url, looking.some(0, size)),
        )
    ours, theirs = (f"{median(one.rate for one in rounds):,.0f} lookups/s" for rounds in (seen.ours, seen.theirs))
    what = "lookups: claimed, paid, asked, decided, committed"
    return [Line(what, "the same calls alone, by the same client", seen.ratio(), NO_TARGET, ours, theirs)]


async def while_lookups_are_made(run: Run) -> list[Line]:
    """The same service by turns with providers and without; what is due is due in both. It starts anew each round."""
    url = await own_database(run.ground.ours, "during")
    await subscribe(url, run.plan.population)
    await looking.let_wait(url, run.plan.population)
    async with run.peer("bench.peers:create_bad_provider") as peer:
        await _started(run, url, looking.IDLE)  # the first start on a database prepares it
        made = []

        async def busy() -> Round:
            before = await looking.made(url)
            seen = await _started(run, url, looking.BUSY.replace("{peer}", peer.url))
            made.append(await looking.made(url) - before)
            if made[-1] <= 0:
                raise CannotMeasure("no lookup was made while receipts came in")
            return seen

        seen = await turns(run.plan.rounds, busy, lambda: _started(run, url, looking.IDLE))
    pace = median(made) / (run.plan.seconds + 1)  # the second before the round is theirs as well
    what = f"{ONE}, while {pace:.0f} lookups a second meet a slow, failing and lying provider, then another"
    return [_line(seen, what, "the same without a provider", Target("≥", 0.95))]


async def _started(run: Run, url: str, config: str) -> Round:
    path = run.ground.folder / "during.toml"
    path.write_text(config)
    more = {"SENDABLE_DATABASE_URL": url, "SENDABLE_CONFIG": str(path)}
    async with servers.sendable(data_dir(run.ground.folder), run.ground.folder / "during.log", more) as server:
        await run.load(server, "/v1/receipts/native", seconds=1)
        before = await stored(url)
        seen = await run.load(server, "/v1/receipts/native")
    run.check("Sendable", seen, await stored(url) - before, 1)
    return seen


async def deactivation_file(run: Run) -> list[Line]:
    """Once each: the file is long, and it is taken in only once."""
    lines, population = run.plan.lines, run.plan.population
    url = await own_database(run.ground.ours, "deactivations")
    await subscribe(url, population)
    file = taking.write(run.ground.folder / "deactivations.txt", lines, population)
    theirs = await taking.bare(url, file, lines)
    ours = await taking.whole(url, file, lines)
    what = f"a deactivation file of {lines:,} lines"
    said = [f"{one.rate:,.0f} lines/s, {one.seconds:.1f} s" for one in (ours, theirs)]
    most = "the most that it may take"
    return [
        Line(what, "a bare COPY of the same file", ours.rate / theirs.rate, NO_TARGET, *said),
        Line(
            f"{what}: memory",
            most,
            ours.peak / MOST_MEMORY,
            Target("≤", 1),
            f"{ours.peak:.0f} MiB",
            f"{MOST_MEMORY} MiB",
        ),
    ]


async def every_gateway(run: Run) -> list[Line]:
    """A table of its own: there is nothing to stand beside."""
    run.costs.extend(costs(run.plan.rounds))
    return []


async def memory(run: Run) -> list[Line]:
    """Under unbroken load; the first tenth of the time, in which caches and pools fill, is not looked at."""
    soak, samples = run.plan.soak, []

    async def watch() -> None:
        while True:
            await asyncio.sleep(min(1.0, soak / 10))
            samples.append(run.ours.memory())

    watching = asyncio.create_task(watch())
    seen = await run.take(seconds=soak)
    watching.cancel()
    part = max(1, len(samples) // 10)
    start, end = median(samples[part : 2 * part] or samples), median(samples[-part:])
    what = f"memory after {soak} s and {seen.done:,} receipts of unbroken load"
    beside = f"memory {round(soak / 10)} s into it (before any request: {run.fresh:.0f} MiB)"
    return [Line(what, beside, end / start, Target("≤", 1.1), f"{end:.0f} MiB", f"{start:.0f} MiB")]


STAGES: dict[str, Stage] = {
    "tutorial": the_tutorial_way,
    "background": answering_first,
    "fastapi": no_op_fastapi,
    "starlette": no_op_starlette,
    "batches": posts_of_many,
    "status": one_status,
    "bulk": bulk_status,
    "lookups": lookups_made,
    "during": while_lookups_are_made,
    "deactivations": deactivation_file,
    "gateways": every_gateway,
    "memory": memory,
}


async def _answered(loading: Awaitable[Round]) -> Round:
    seen = await loading
    if seen.refused or seen.broken or not seen.done:
        raise CannotMeasure(f"{seen.refused} questions were refused, {seen.broken} broke, {seen.done} were answered")
    return seen


def _line(seen: Turns[Round, Round] | Turns[Round, Bare], what: str, beside: str, target: Target, *,
          unit: str = "receipts/s") -> Line:  # fmt: skip
    return Line(what, beside, seen.ratio(), target, _said(seen.ours, unit), _said(seen.theirs, unit))


def _said(rounds: Sequence[Round] | Sequence[Bare], unit: str) -> str:
    said = f"{median(one.rate for one in rounds):,.0f} {unit}"
    waits = [one for one in rounds if isinstance(one, Round)]
    return f"{said}, p50 {_ms(one.p50 for one in waits)}, p99 {_ms(one.p99 for one in waits)}" if waits else said


def _ms(times: Iterable[float]) -> str:
    return f"{median(times):.1f} ms"
