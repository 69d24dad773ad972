"""Clients: they post facts to any of several processes, repeat themselves as gateways do, and note every answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from time import monotonic

import httpx

from tests.chaos.facts import Fact, OptedIn, Request, World

GIVES_UP = 15.0
"""Seconds in which an answer must come: gateways wait no longer. Whatever takes longer is a fault."""
RESUMES = 60.0
"""Seconds within which a fact that is told again and again must be taken: else work did not resume."""
PAUSE = 0.2
BUSY, CONFLICT = 503, 409


@dataclass(slots=True)
class Log:
    """What was said and what was answered. `taken`: how often each fact got a 2xx (or the 409 of an opt-in that is
    kept, and outdone). `faults`: answers that no client should ever get.
    """

    said: list[Fact] = field(default_factory=list)
    taken: Counter[Fact] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def count(self) -> int:
        """Facts that were taken."""
        return len(self.taken)

    def note(self, fact: Fact, request: Request, answer: httpx.Response) -> bool:
        """Whether the fact was taken."""
        status = answer.status_code
        self.answers[status] += 1
        if answer.is_success or (status == CONFLICT and isinstance(fact, OptedIn)):
            self.taken[fact] += 1
            return True
        if status != BUSY or "retry-after" not in answer.headers:
            self.faults.append(f"{status} to {request.method} {request.path.split('?')[0][:24]}: {answer.text[:200]}")
        return False


class Load:
    """`world` is what is told, `urls` are whom it is told to. A `log` may go on from an earlier load."""

    def __init__(self, world: World, urls: Sequence[str], seed: int = 1, log: Log | None = None) -> None:
        self.log = log or Log()
        self._world = world
        self._urls = urls
        self._random = Random(seed)  # noqa: S311 - chance, not secrets

    @asynccontextmanager
    async def running(self, clients: int = 12) -> AsyncIterator[Log]:
        """Clients that talk until the block ends, and then to the end of the world."""
        async with AsyncExitStack() as stack:
            own = [await stack.enter_async_context(_client()) for _ in range(clients)]
            talking = [asyncio.create_task(self._talk(http)) for http in own]
            try:
                yield self.log
                self._world.end()
                async with asyncio.timeout(RESUMES + GIVES_UP):
                    await asyncio.gather(*talking)
            finally:
                for task in talking:
                    task.cancel()
                await asyncio.wait(talking)

    async def taken(self, more: int, within: float = RESUMES) -> None:
        """Until so many more facts have been taken: time measured in work. Raises TimeoutError when none goes on."""
        await until(lambda goal=self.log.count + more: self.log.count >= goal, within)  # type: ignore[misc]

    async def _talk(self, http: httpx.AsyncClient) -> None:
        for fact in self._world:
            self.log.said.append(fact)
            await asyncio.gather(*(self._tell(http, fact, copy) for copy in range(fact.copies)))

    async def _tell(self, http: httpx.AsyncClient, fact: Fact, copy: int) -> None:
        began, request = monotonic(), fact.request(copy)
        if copy and self._random.random() < 0.5:  # one in two repetitions comes at the same moment, the others after
            await asyncio.sleep(self._random.random() / 5)
        while not await self._post(http, fact, request):
            if not fact.insists:
                return
            if monotonic() - began > RESUMES:
                self.log.faults.append(f"not taken within {RESUMES:.0f} s: {request.method} {request.path[:24]}")
                return
            await asyncio.sleep(PAUSE)

    async def _post(self, http: httpx.AsyncClient, fact: Fact, request: Request) -> bool:
        began, url = monotonic(), self._random.choice(self._urls)
        headers = {"content-type": request.content_type}
        try:
            answer = await http.request(request.method, url + request.path, content=request.body, headers=headers)
        except httpx.TransportError as error:
            self.log.broken[type(error).__name__] += 1
            if isinstance(error, httpx.TimeoutException):
                self.log.faults.append(f"no answer within {GIVES_UP:.0f} s: {request.method} {request.path[:24]}")
            return False
        finally:
            self.log.slowest = max(self.log.slowest, monotonic() - began)
        return self.log.note(fact, request, answer)


def _client() -> httpx.AsyncClient:
    """One for each of those who talk: a pool is searched for every request, and one for all takes longer than all else
    that a client does.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(GIVES_UP), trust_env=False, verify=False)  # noqa: S501


class Follower:
    """Reads the feed by its cursor, from one process after the other, while it is written. `seen`: in that order."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.seen: list[int] = []
        self.refused = 0
        self._urls = urls
        self._cursor = 0

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follows until the block ends and then to the end of the feed."""
        async with httpx.AsyncClient(timeout=httpx.Timeout(GIVES_UP), trust_env=False) as http:
            task = asyncio.create_task(self._follow(http))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])
            while await self._page(http, self._urls[0]):
                pass

    async def _follow(self, http: httpx.AsyncClient) -> None:
        turn = 0
        while True:
            turn += 1
            try:
                more = await self._page(http, self._urls[turn % len(self._urls)])
            except httpx.HTTPError:
                self.refused, more = self.refused + 1, 0
            await asyncio.sleep(0 if more else 0.05)

    async def _page(self, http: httpx.AsyncClient, url: str) -> int:
        """The next page; the number of its changes. A page that is not taken whole moves no cursor."""
        answer = await http.get(f"{url}/v1/changes", params={"after": self._cursor, "limit": 500})
        page = answer.raise_for_status().json()
        self.seen += [change["seq"] for change in page["items"]]
        self._cursor = page["next"]
        return len(page["items"])


class Stream:
    """Reads the feed as an event stream and takes it up again where it broke off: what it has seen, in order."""

    def __init__(self, url: str) -> None:
        self.seen: list[int] = []
        self.ends = 0
        """How often the service ended the stream, wholly and in order."""
        self.breaks = 0
        """How often it broke off."""
        self.faults: list[str] = []
        self.open = asyncio.Event()
        self._url = url

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self) -> None:
        async with httpx.AsyncClient(timeout=httpx.Timeout(RESUMES), trust_env=False) as http:
            while True:
                try:
                    await self._read(http)
                except httpx.ConnectError:
                    pass
                except httpx.TransportError:
                    self.breaks += 1
                self.open.clear()
                await asyncio.sleep(PAUSE)

    async def _read(self, http: httpx.AsyncClient) -> None:
        headers = {"accept": "text/event-stream", "last-event-id": str(self.seen[-1] if self.seen else 0)}
        async with http.stream("GET", f"{self._url}/v1/changes", headers=headers) as answer:
            if answer.status_code == BUSY:
                return
            if not answer.is_success:
                self.faults.append(f"{answer.status_code} to an event stream")
            self.open.set()
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    self.seen.append(int(line.removeprefix("id: ")))
        self.ends += 1


async def until(true: Callable[[], object], within: float) -> None:
    """Until a condition about other processes holds: those set no events. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.01)


async def until_so(true: Callable[[], Awaitable[object]], within: float) -> None:
    """The same where the answer has to be asked for."""
    async with asyncio.timeout(within):
        while not await true():
            await asyncio.sleep(0.05)
