"""A database that is lost, in every shape: whoever asks hears 503 and when to come back, soon, and nothing is lost;
when it is back, work goes on by itself in the same process.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url

from app.models.number import OptIn
from app.services.store import FEED_LOCK
from tests.chaos.facts import Fact, OptedIn, Posted, Request, World
from tests.chaos.ground import Postgres, Served, folder, postgres, served
from tests.chaos.load import GIVES_UP, Load, Log, until, until_so
from tests.chaos.storm import meaning
from tests.chaos.truth import kept, wrong
from tests.chaos.wire import Wire, wire

BACK = 30.0
"""Seconds within which work goes on once the database is there again."""
READERS = (
    Request("GET", "/v1/numbers/+15555550100?sender=12345&list=spring"),
    Request("POST", "/v1/numbers/status", b'{"numbers": ["+15555550100", "+15555550101"]}'),
    Request("GET", "/v1/numbers/+15555550100/history"),
    Request("GET", "/v1/changes"),
)
ALL = (
    "receipt_keys, receipts, messages, unnamed, numbers, sender_blocks, subscriptions, lookups, hourly_counts, alarms, "
    "unread, changes"
)
GRACE = 30.0
"""Seconds after which a container that was told to stop is killed."""
_worlds = count(1)


class Heard(NamedTuple):
    """An answer and the seconds it took. `told_when`: it says when to come back."""

    what: str
    status: int
    told_when: bool
    seconds: float


@dataclass(slots=True)
class Ground:
    """One service that reaches its PostgreSQL over a wire, and what has been said to it so far."""

    server: Postgres
    wire: Wire
    service: Served
    url: str
    http: httpx.AsyncClient
    log: Log = field(default_factory=Log)

    async def ask(self, request: Request, fact: Fact | None = None) -> Heard:
        began = monotonic()
        answer = await self.http.request(request.method, request.path, content=request.body,
                                         headers={"content-type": request.content_type})  # fmt: skip
        if fact:
            self.log.note(fact, request, answer)
        what = f"{request.method} {request.path[:20]}"
        return Heard(what, answer.status_code, "retry-after" in answer.headers, monotonic() - began)

    async def write(self, facts: Sequence[Fact]) -> list[Heard]:
        self.log.said += facts
        return await asyncio.gather(*(self.ask(fact.request(), fact) for fact in facts))

    async def read(self) -> list[Heard]:
        return await asyncio.gather(*map(self.ask, READERS))

    async def probe(self) -> list[httpx.Response]:
        return await asyncio.gather(*map(self.http.get, ("/livez", "/readyz", "/metrics")))

    async def tell_database(self, command: str) -> None:
        """Beside the wire, as the owner of the service's tables."""
        session = await asyncpg.connect(self.url)
        try:
            await session.execute(command)
        finally:
            await session.close()

    async def tell_server(self, *commands: str) -> None:
        """As its superuser."""
        for command in commands:
            await self.server.tell(command, role="postgres")

    async def answers(self) -> bool:
        return {one.status for one in await self.read()} == {200}

    async def goes_on(self, world: World) -> None:
        """Everyone is answered again, what was refused is taken when it comes again, and nothing happened twice."""
        await until_so(self.answers, BACK)
        async with Load(world, [self.service.url], log=self.log).running(4):
            pass
        assert wrong(self.log, await kept(self.url), meaning()) == []
        assert self.service.process.poll() is None, "the same process goes on"
        await until_in_use(self.http, 0)


def http_to(service: Served) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=service.url, timeout=60, trust_env=False)


async def until_in_use(http: httpx.AsyncClient, connections: int) -> None:
    """Until the service has so many connections in use, or more; 0: none. Raises TimeoutError."""

    async def so() -> bool:
        lines = (await http.get("/metrics")).text.splitlines()
        used = next(float(line.split()[1]) for line in lines if line.startswith("sendable_pool_in_use "))
        return used >= connections if connections else not used

    await until_so(so, BACK)


def refused(heard: Sequence[Heard]) -> bool:
    """Whether all were: 503, with the time to come back, and before a gateway would have given up."""
    assert [one for one in heard if one.status != 503 or not one.told_when or one.seconds > GIVES_UP] == []
    return True


def a_write_of_each_kind(world: World) -> list[Fact]:
    """The first of each in this world, which will tell them again."""
    found: dict[type[Fact], Fact] = {}
    told = []
    while len(found) < 4:
        told.append(fact := next(world))
        if fact.insists:
            found.setdefault(type(fact), fact)
    world.tell_again(told)
    return [*found.values()]


@pytest.fixture(scope="module")
async def standing() -> AsyncIterator[Ground]:
    with folder() as path:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(postgres(path))
            line = await stack.enter_async_context(wire(server.home.socket / ".s.PGSQL.5432"))
            url = await server.database()
            over = f"postgresql://sendable@127.0.0.1:{line.port}/{make_url(url).database}"
            (service,) = await stack.enter_async_context(served(path, database_url=over))
            http = await stack.enter_async_context(http_to(service))
            yield Ground(server, line, service, url, http)


@pytest.fixture
async def ground(standing: Ground) -> Ground:
    """The same service for all, and nothing said to it yet."""
    await standing.tell_database(f"TRUNCATE {ALL}")
    standing.log = Log()
    return standing


@pytest.fixture
def world() -> World:
    return World(next(_worlds))


# Lost in the middle of a statement -----------------------------------------------------------------------------------


@asynccontextmanager
async def blocked(ground: Ground, world: World) -> AsyncIterator[list[asyncio.Task[Heard]]]:
    """A request of every kind, each in the middle of a statement that waits for a lock."""
    holder = await asyncpg.connect(ground.url)
    try:
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {ALL}")
            asked = [asyncio.create_task(ground.ask(one)) for one in READERS]
            facts = a_write_of_each_kind(world)
            ground.log.said += facts
            asked += [asyncio.create_task(ground.ask(fact.request(), fact)) for fact in facts]
            await until_so(lambda: holder.fetchval(WAITING, len(asked)), GIVES_UP)
            yield asked
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
        pass  # its own session was lost with the others
    finally:
        holder.terminate()


WAITING = "SELECT count(*) >= $1 FROM pg_locks WHERE NOT granted"


async def terminate(ground: Ground) -> None:
    await ground.tell_server(TERMINATE)


TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sendable'
"""


async def kill(ground: Ground) -> None:
    ground.server.kill()


async def stop(ground: Ground) -> None:
    ground.server.stop()


async def drop(ground: Ground) -> None:
    ground.wire.drop()


@pytest.mark.parametrize("lose", [kill, stop, terminate, drop])
async def test_whoever_is_in_the_middle_of_a_statement_hears_503_and_the_work_goes_on(
    ground: Ground, world: World, lose: Callable[[Ground], Awaitable[None]]
):
    async with blocked(ground, world) as asked:
        await lose(ground)
        assert refused(await asyncio.gather(*asked))
    await ground.goes_on(world)


async def test_a_connection_whose_driver_has_lost_its_way_is_dropped(ground: Ground, world: World):
    """By an InternalClientError of asyncpg: here at a row that nobody asked for, while a statement waits for a lock."""
    body = b'{"message_id": "m", "number": "+15555550199", "sender": "12345", "status": "undeliverable", "code": "352"}'
    opted_in = OptedIn("+15555550198", "12345", "spring", OptIn(datetime.now(UTC), "web form"))
    facts = [opted_in, Posted("native", body, body)]
    holder = await asyncpg.connect(ground.url)
    try:
        await holder.execute(f"SELECT pg_advisory_lock({FEED_LOCK})")
        asked = asyncio.create_task(ground.write(facts))
        await until_so(lambda: holder.fetchval(WAITING, len(facts)), GIVES_UP)
        ground.wire.talk_nonsense()
    finally:
        await holder.close()
    assert refused(await asked)
    assert ground.service.told("InternalClientError") + ground.service.told("ProtocolError")
    world.tell_again(facts)
    await ground.goes_on(world)


# Lost for a while ----------------------------------------------------------------------------------------------------


@contextmanager
def hanging(ground: Ground) -> Iterator[None]:
    with ground.wire.hanging():
        yield


@contextmanager
def cut(ground: Ground) -> Iterator[None]:
    with ground.wire.cut():
        yield


@pytest.mark.parametrize("away", [hanging, cut])
async def test_while_it_does_not_answer_everyone_hears_503_soon_and_the_work_goes_on(
    ground: Ground, world: World, away: Callable[[Ground], Iterator[None]]
):
    facts = a_write_of_each_kind(world)
    await ground.read()  # so that there are connections to lose
    with away(ground):
        first = asyncio.gather(ground.write(facts), ground.read())
        second = asyncio.gather(ground.write(facts), ground.read())  # they come while the first ones wait
        assert refused([one for some in (*await first, *await second) for one in some])
        later = asyncio.gather(ground.write(facts), ground.read())  # over connections that are to be made
        assert [one.status_code for one in await ground.probe()] == [200, 503, 200], "nobody must restart us for it"
        assert refused([one for some in await later for one in some])
    await ground.goes_on(world)


async def test_a_service_that_is_told_to_stop_while_the_database_is_frozen_answers_everyone_and_ends(
    ground: Ground, world: World, tmp_path: Path
):
    facts = a_write_of_each_kind(world)
    async with served(tmp_path, database_url=ground.url) as (service,):
        going = replace(ground, service=service, http=http_to(service))
        await going.read()
        with ground.server.frozen():
            asked = asyncio.gather(going.write(facts), going.read())
            await until_in_use(going.http, 1)
            ended = asyncio.create_task(service.ended(signal.SIGTERM, GRACE))
            assert refused([one for some in await asked for one in some])
            await ended
        assert service.process.returncode == 0
        await going.http.aclose()
    await ground.goes_on(world)


# There, but closed for writing ---------------------------------------------------------------------------------------


@asynccontextmanager
async def demoted(ground: Ground) -> AsyncIterator[None]:
    """As after a failover: sessions lead to a node that answers and takes no writes (25006). Those that are made later
    lead to the new primary; the others stay as they are for as long as they are kept.
    """
    await ground.tell_server("ALTER ROLE sendable SET default_transaction_read_only = on")
    ground.wire.drop()
    try:
        yield
    finally:
        await ground.tell_server("ALTER ROLE sendable RESET default_transaction_read_only")


@asynccontextmanager
async def full(ground: Ground) -> AsyncIterator[None]:
    """Every write of a row says what a full disk says (53100)."""
    await ground.tell_database(FULL)
    try:
        yield
    finally:
        await ground.tell_database("DROP FUNCTION full_disk CASCADE")


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON receipts FOR EACH ROW EXECUTE FUNCTION full_disk();
CREATE TRIGGER full_disk BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION full_disk();
CREATE TRIGGER full_disk BEFORE UPDATE ON numbers FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


@pytest.mark.parametrize("closed", [demoted, full])
async def test_while_it_takes_no_writes_they_hear_503_and_readers_their_answers(
    ground: Ground, world: World, closed: Callable[[Ground], AsyncIterator[None]]
):
    async with closed(ground):
        facts = a_write_of_each_kind(world)
        assert refused(await ground.write(facts))
        assert {one.status for one in await ground.read()} == {200}
    await ground.goes_on(world)


@asynccontextmanager
async def locked_out(ground: Ground) -> AsyncIterator[None]:
    """As while a password is changed, or a database is put back from a copy: it refuses every login (28, 3D)."""
    await ground.tell_server("ALTER ROLE sendable NOLOGIN")
    ground.wire.drop()
    try:
        yield
    finally:
        await ground.tell_server("ALTER ROLE sendable LOGIN")


async def test_while_it_lets_nobody_in_everyone_hears_503_and_the_work_goes_on(ground: Ground, world: World):
    async with locked_out(ground):
        assert refused([*await ground.write(a_write_of_each_kind(world)), *await ground.read()])
        assert [one.status_code for one in await ground.probe()] == [200, 503, 200]
        assert refused(await ground.read())
    await ground.goes_on(world)


# A disk that is really full ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, as large as an empty database needs and some; only root may make one."""
    with folder() as path:
        mount = ["mount", "-t", "tmpfs", "-o", "size=192m,mode=0711", "none", path]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only who may mount file systems can fill one")
        try:
            yield path
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)


async def test_a_full_disk_is_told_as_503_loses_nothing_and_is_over_when_there_is_room(
    small_disk: Path, tmp_path: Path
):
    async with postgres(small_disk) as server:
        url = await server.database()
        async with served(tmp_path, database_url=url) as (service,):
            load = Load(World(next(_worlds)), [service.url])
            ballast = small_disk / "ballast"
            async with load.running(8) as log:
                await load.taken(20)
                fill(ballast)
                await until(lambda: log.answers[503] > 20, BACK * 2)
                async with http_to(service) as http:
                    said = [await http.request(one.method, one.path, content=one.body) for one in READERS]
                ballast.unlink()
                await load.taken(100)
            assert wrong(log, await kept(url), meaning()) == []
            assert {one.status_code for one in said} <= {200, 503}
            assert service.told("DiskFullError")


def fill(ballast: Path) -> None:
    """Write until there is no byte left."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4_096))
