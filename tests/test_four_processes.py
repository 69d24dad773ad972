"""Four processes at once on the same numbers of the same database, as a rolling deploy or a busy day has them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from app.models.number import Cause, Change
from app.services import store
from app.services.connection import transaction
from tests.chaos.facts import NUMBERS, World
from tests.chaos.ground import folder, postgres, served
from tests.chaos.storm import kill_nobody

FACTS = 700
CLIENTS = 72
"""They tell them about few numbers, most to several processes at once, and many numbers at once. The larger the groups,
the more often they meet: with keys locked in any order, 1,500 facts of 24 clients met in 7 deadlocks too, in twice the
time, and 700 of 24 in one or two.
"""
OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT pg_xact_commit_timestamp(xmin) AS at, lag(pg_xact_commit_timestamp(xmin)) OVER (ORDER BY seq) AS before
    FROM changes
) AS changes WHERE at < before
"""
"""Changes that were committed before one with a lower place in the feed: a reader may have passed that one."""


async def test_four_processes_neither_deadlock_nor_lose_nor_double_and_the_feed_tells_every_change_once_in_order():
    world = World(4, numbers=NUMBERS[:24], calls=0.6, batches=0.5)
    with folder() as path:
        async with postgres(path) as server:
            await server.restarted_with("track_commit_timestamp = on")
            url = await server.database()
            async with served(path, 4, database_url=url) as services:
                outcome = await kill_nobody(services, url, world, facts=FACTS, clients=CLIENTS)
                refused = [one.told("group not committed") for one in services]
            # The services have ended, and with them their sessions: those have told the server what they had counted.
            deadlocks = await server.ask("SELECT sum(deadlocks)::int FROM pg_stat_database")
            out_of_order = await server.ask(OUT_OF_ORDER, url)
    assert outcome.wrong == []
    assert outcome.log.answers.keys() <= {200, 409}, "nobody was refused"
    assert not outcome.log.broken
    assert refused == [0, 0, 0, 0]
    assert deadlocks == 0
    assert out_of_order == 0
    assert len(outcome.held.changes) > FACTS / 10, "the feed had something to tell"


async def test_a_change_gets_its_place_in_the_feed_when_the_one_before_it_is_committed(service):
    """However long that takes: who has read the later one will never be told of the earlier one."""
    now = datetime.now(UTC)
    first = Change("+15555550100", "number.state", "unseen", "held", "carrier_unknown", Cause("person"), now)
    async with transaction(service.app.state.engine) as db:
        await store.publish(db, [first])
        second = asyncio.create_task(service.client.delete("/v1/senders/12345/lists/spring/subscribers/+15555550101"))
        async with asyncio.timeout(10):
            while not await service.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                assert not second.done(), "it did not wait its turn"
        assert (await service.client.get("/v1/changes")).json()["items"] == []
    assert (await second).status_code == 200
    told = (await service.client.get("/v1/changes")).json()["items"]
    assert [change["number"] for change in told] == ["+15555550100", "+15555550101", "+15555550101"]
