"""A short piece of chaos: kills at random moments under load, and stops. `make chaos` is longer (tests/chaos)."""

from __future__ import annotations

import asyncio
import signal

import asyncpg
import httpx
import psutil
import pytest

from app.services.embedded.cluster import survivors
from app.services.store import FEED_LOCK
from tests.chaos.facts import Request, World
from tests.chaos.ground import Postgres, Served, folder, postgres, served
from tests.chaos.load import GIVES_UP, until, until_so
from tests.chaos.storm import STOPS, kill_nobody, kill_postgres, kill_services, stop_service
from tests.chaos.truth import lost, stored

KILLS = 20
pytestmark = pytest.mark.timeout(600)


async def test_of_services_killed_at_random_under_load_no_answer_is_lost_and_no_effect_doubled():
    with folder() as path:
        async with postgres(path) as server:
            url = await server.database()
            async with served(path, 2, database_url=url) as services:
                outcome = await kill_services(services, url, KILLS, seed=1)
    assert outcome.wrong == []
    assert len(outcome.away) == KILLS
    assert outcome.log.broken.total() >= KILLS, "each was killed under load"


async def test_of_a_postgres_killed_at_random_under_load_no_answer_is_lost_and_no_effect_doubled():
    """The embedded one. Its service lives on, tells who comes to come back, and its event stream stays open."""
    with folder() as path:
        async with served(path, data_dir=str(path / "data")) as services:
            server = Postgres(path / "data")
            await server.recover_quickly()
            before = services[0].process.pid
            outcome = await kill_postgres(server, services, server.url, KILLS, seed=2)
            assert services[0].process.pid == before
            assert services[0].process.poll() is None
    assert outcome.wrong == []
    assert len(outcome.away) == KILLS
    assert outcome.log.answers[503] >= KILLS, "each was killed under load"
    assert not outcome.log.broken, "everyone who came was answered"
    assert [(one.ends, one.breaks) for one in outcome.streams] == [(0, 0)]


async def test_a_service_that_is_stopped_under_load_has_committed_and_answered_all_that_it_took():
    with folder() as path:
        async with postgres(path) as server:
            url = await server.database()
            async with served(path, database_url=url) as services:
                outcome = await stop_service(services[0], url, stops=5, seed=3)
    assert outcome.wrong == []
    assert outcome.streams[0].ends >= 5, "event streams end with the service, and are taken up again"


async def test_who_waits_for_a_commit_when_the_service_is_told_to_stop_still_gets_the_answer():
    with folder() as path:
        async with postgres(path) as server:
            url = await server.database()
            async with served(path, database_url=url) as (service,):
                feed = await asyncpg.connect(url)
                await feed.execute(f"SELECT pg_advisory_lock({FEED_LOCK})")
                asked = [asyncio.create_task(tell(service, one)) for one in TOLD]
                await until_so(lambda: feed.fetchval(THREE_WAIT), STOPS)
                ended = asyncio.create_task(service.ended(signal.SIGTERM, STOPS))
                await until(lambda: service.told("Waiting for connections to close"), STOPS)
                assert not any(task.done() for task in [*asked, ended])
                await feed.close()
                assert [(await task).status_code for task in asked] == [200] * len(TOLD)
                await ended
                assert service.process.returncode == 0


THREE_WAIT = "SELECT count(*) >= 3 FROM pg_locks WHERE NOT granted"
"""The group of the first receipts and both calls; the other receipts queue."""
GONE = b'{"message_id": "%d", "number": "+1555555014%d", "sender": "12345", "status": "undeliverable", "code": "352"}'
TOLD = (
    *(Request("POST", "/v1/receipts/native", GONE % (place, place)) for place in range(4)),
    *(Request("DELETE", f"/v1/senders/12345/lists/spring/subscribers/+1555555013{place}") for place in range(2)),
)


async def tell(service: Served, request: Request) -> httpx.Response:
    async with httpx.AsyncClient(timeout=GIVES_UP, trust_env=False) as http:
        return await http.request(request.method, service.url + request.path, content=request.body)


async def test_ctrl_c_leaves_no_process_and_what_was_answered_is_there_at_the_next_start():
    with folder() as path:
        async with served(path, data_dir=str(path / "data")) as (service,):
            server = Postgres(path / "data")
            outcome = await kill_nobody([service], server.url, World(5), facts=50, clients=4)
            parent = psutil.Process(service.process.pid)
            family = [parent, *parent.children(recursive=True)]
            assert len(family) > 5, "the service, the watcher, and PostgreSQL's own"
            await service.ended(signal.SIGINT, STOPS, group=True)
            assert psutil.wait_procs(family, timeout=STOPS)[1] == []
            assert survivors(server.home) == []
            service.start()
            await service.ready()
            assert outcome.wrong == [*lost(outcome.log, await stored(server.url))] == []
