"""Four processes at once on the same numbers of the same database, as a rolling deploy or a busy day has them."""

from __future__ import annotations

from tests.chaos.facts import NUMBERS, World
from tests.chaos.ground import folder, postgres, served
from tests.chaos.storm import kill_nobody

FACTS = 1_500
"""Told by 24 clients about few numbers, most of them to several processes at once, and many numbers at once."""
OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT pg_xact_commit_timestamp(xmin) AS at, lag(pg_xact_commit_timestamp(xmin)) OVER (ORDER BY seq) AS before
    FROM changes
) AS changes WHERE at < before
"""
"""Changes that were committed before one with a lower place in the feed: a reader of the feed may have passed that one."""


async def test_four_processes_neither_deadlock_nor_lose_nor_double_and_the_feed_tells_every_change_once_in_order():
    world = World(4, numbers=NUMBERS[:12], batches=0.4)
    with folder() as path:
        async with postgres(path) as server:
            await server.restarted_with("track_commit_timestamp = on")
            url = await server.database()
            async with served(path, 4, database_url=url) as services:
                outcome = await kill_nobody(services, url, world, facts=FACTS, clients=24)
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
