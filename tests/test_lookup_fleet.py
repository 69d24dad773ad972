"""Lookups in a fleet: four processes on one database pay once, never too much, and lose nothing when one is killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import orjson
from sqlalchemy import make_url

from tests.provider import Provider, Reply, answering, telnyx, today
from tests.running import CALM, Served, serving

WHO = "+15555551234"
PROCESSES = 4


class Fleet(NamedTuple):
    """Services in processes of their own, a client for each, and their database."""

    services: list[Served]
    clients: list[httpx.AsyncClient]
    db: asyncpg.Connection

    async def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.db.fetch(statement, *values)]

    async def quiet(self, statement: str = "SELECT 1 FROM lookups") -> None:
        """Wait until this finds nothing."""
        async with asyncio.timeout(100):
            while await self.db.fetch(statement):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def fleet(folder: Path, database_url: str, provider: Provider, *lines: str, processes: int = PROCESSES,
                ) -> AsyncIterator[Fleet]:  # fmt: skip
    config = folder / "sendable.toml"
    config.write_text("\n".join(["[lookup]", 'providers = ["telnyx"]', *lines, "[lookup.telnyx]", 'api_key = "KEY"',
                                 f'base_url = "{provider.url}"', 'price = "0.01"', "per_second = 1000"]))  # fmt: skip
    async with AsyncExitStack() as stack:
        settings = {"database_url": database_url, "auth": "off", "config": str(config), "policy": CALM}
        started = [stack.enter_async_context(serving(folder / f"log{n}", **settings)) for n in range(processes)]
        services = list(await asyncio.gather(*started))
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=one.url, timeout=60)) for one in services]
        plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        db = await asyncpg.connect(plain)
        stack.push_async_callback(db.close)
        yield Fleet(services, clients, db)


def failures(numbers: list[str], code: str = "345") -> bytes:
    return orjson.dumps([{"message_id": f"m{place}", "number": number, "sender": "12345", "status": "undeliverable",
                          "code": code} for place, number in enumerate(numbers)])  # fmt: skip


async def test_a_thousand_receipts_for_one_number_on_four_processes_cost_one_call(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        answering(lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", ported="Y", on=today()))) as provider,
        fleet(tmp_path, database_url, provider) as four,
    ):
        one = {"number": WHO, "sender": "12345", "status": "undeliverable", "code": "345"}
        posts = [
            four.clients[n % 4].post("/v1/receipts/native", json=one | {"message_id": f"m{n}"}) for n in range(1_000)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*posts)} == {200}
        await four.quiet()
        assert await four.rows("SELECT count(*) FROM receipts") == [(1_000,)]
        assert await four.rows("SELECT state, reason FROM numbers") == [("active", None)]
        assert provider.calls == {WHO: 1}


async def test_a_budget_is_never_exceeded_by_four_processes(tmp_path: Path, database_url: str) -> None:
    numbers = [f"+1555555{n:04}" for n in range(300)]
    async with (
        answering(lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", ported="Y"))) as provider,
        fleet(tmp_path, database_url, provider, 'budget_per_day = "1.234"') as four,
    ):
        await four.clients[0].post("/v1/receipts/native", content=failures(numbers))
        await four.quiet("SELECT 1 FROM lookups WHERE waiting_for IS DISTINCT FROM 'budget'")
        assert provider.calls.total() == 123
        assert await four.rows("SELECT spent FROM lookup_days") == [(Decimal("1.23"),)]
        assert await four.rows("SELECT sum(price) FROM lookup_answers") == [(Decimal("1.23"),)]
        assert await four.rows("SELECT count(*) FROM numbers WHERE state = 'held' AND waiting_for = 'budget'") == [
            (177,)
        ]


async def test_a_lookup_whose_process_is_killed_is_made_again_after_its_lease_and_acts_once(
    tmp_path: Path, database_url: str
) -> None:
    never = asyncio.Event()
    replies = iter([Reply(b"", after=never)])
    async with (
        answering(lambda n: next(replies, Reply(telnyx(n, "T-Mobile USA, Inc.", ported="Y", on=today())))) as provider,
        fleet(tmp_path, database_url, provider, processes=1) as first,
    ):
        await first.clients[0].post("/v1/receipts/native", content=failures([WHO], "3041"))
        await provider.asked.wait()
        await first.services[0].end(signal.SIGKILL)
        [(leased, waiting)] = await first.rows(
            "SELECT lease_until > now(), (SELECT waiting_for FROM numbers) FROM lookups"
        )
        assert (leased, waiting) == (True, "lookup")
        await first.rows("UPDATE lookups SET lease_until = now() + interval '2 s'")
        async with fleet(tmp_path, database_url, provider, processes=2) as two:
            await two.quiet()
            assert provider.calls == {WHO: 2}
            [(before, after)] = await two.rows("SELECT before, after FROM changes WHERE cause ->> 'kind' = 'lookup' "
                                               "AND kind = 'number.state'")  # fmt: skip
            assert (before, after) == ("deactivated", "active")
            assert await two.rows("SELECT count(*) FROM lookup_answers") == [(1,)]


async def test_kills_at_any_moment_lose_no_lookup_and_repeat_no_effect(tmp_path: Path, database_url: str) -> None:
    numbers = [f"+1555555{n:04}" for n in range(400)]
    async with answering(
        lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", ported="Y", on=today()))
    ) as provider:
        async with fleet(tmp_path, database_url, provider, processes=2) as two:
            await two.clients[0].post("/v1/receipts/native", content=failures(numbers))
            for calls, service in ((40, two.services[0]), (150, two.services[1])):
                async with asyncio.timeout(60):
                    while provider.calls.total() < calls:
                        await asyncio.sleep(0.001)
                await service.end(signal.SIGKILL)
            await two.rows("UPDATE lookups SET lease_until = now() WHERE lease_until IS NOT NULL")
            async with fleet(tmp_path, database_url, provider, processes=2) as others:
                await others.quiet()
            told = await two.rows("SELECT number, count(*) FROM changes WHERE cause ->> 'kind' = 'lookup' "
                                  "AND kind = 'number.state' GROUP BY 1")  # fmt: skip
            assert dict(told) == dict.fromkeys(numbers, 1)
            assert await two.rows("SELECT DISTINCT state FROM numbers") == [("active",)]
            assert provider.calls.keys() == {*numbers}
            [(answers,)] = await two.rows("SELECT count(*) FROM lookup_answers")
            assert len(numbers) <= answers <= provider.calls.total()
            spare = provider.calls.total() - len(numbers)
            assert spare <= 2 * 64  # what was under way in the two that were killed
