"""What the twelve codes must have done to twelve numbers, whichever real gateway brought them: tests/twelve.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.real.smsc import centre
from tests.running import WITHIN, serving, until
from tests.twelve import OURS, Expected, lookup_first, number

TWELVE = lookup_first(provider=False)


class Between(NamedTuple):
    """A real gateway between a message centre and a real service. `send` is where the gateway takes messages; `url` is
    the service's own.
    """

    send: str
    url: str
    service: httpx.AsyncClient
    sender: httpx.AsyncClient


Gateway = Callable[[Path, int], AbstractAsyncContextManager[str]]
"""From a folder and the message centre's port to where it takes messages."""


@asynccontextmanager
async def between(gateway: Gateway, folder: Path, *, database_url: str, settings: str) -> AsyncIterator[Between]:
    config = folder / "sendable.toml"
    config.write_text(settings)
    async with (
        centre() as here,
        serving(folder / "sendable.log", database_url=database_url, config=str(config), auth="off") as served,
        gateway(folder, here.port) as send,
        httpx.AsyncClient(base_url=served.url, timeout=60) as service,
        httpx.AsyncClient(timeout=60) as sender,
    ):
        await until(lambda: here._links)
        yield Between(send, served.url, service, sender)


def a_month_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=30)


async def subscribed(service: httpx.AsyncClient, place: int, opted_in: datetime) -> None:
    """Opted in to three lists of one short code and one of another."""
    consent = {"consented_at": opted_in.isoformat(), "source": "web form"}
    for sender, name in [*(("12345", name) for name in OURS), ("67890", "news")]:
        put = await service.put(f"/v1/senders/{sender}/lists/{name}/subscribers/{number(place)}", json=consent)
        assert put.json()["consent"] == "opted_in"


async def final(service: httpx.AsyncClient, message_id: str, *, status: str = "undeliverable") -> dict[str, Any]:
    """The final receipt of a message, once the gateway has posted it."""
    async with asyncio.timeout(WITHIN):
        while True:
            told = (await service.get("/v1/receipts", params={"message_id": message_id})).json()["items"]
            if found := [one for one in told if one["status"] == status]:
                return dict(found[0])
            await asyncio.sleep(0.1)


async def ended_as_the_policy_says(
    service: httpx.AsyncClient, place: int, code: str, message_id: str, row: Expected
) -> None:
    receipt = await final(service, message_id)
    assert (receipt["code"], receipt["code_space"]) == (code, "openmarket")
    told = (await service.get(f"/v1/numbers/{number(place)}", params={"sender": "12345"})).json()
    assert (told["state"], told["waiting_for"]) == (row.state, row.waiting_for), code
    assert told["sender"]["blocked"] == row.blocked, code
    assert {one["list"]: one["consent"] for one in told["lists"]} == dict.fromkeys(OURS, row.ours), code
    untouched = row.state == "active" and not row.blocked and row.ours == "opted_in"
    assert told["decision"]["sendable"] == untouched, code
    other = (await service.get(f"/v1/numbers/{number(place)}", params={"sender": "67890", "list": "news"})).json()
    assert other["lists"][0]["consent"] == row.other, code
    assert other["decision"]["sendable"] == (row.state == "active" and row.other == "opted_in"), code
