"""What the twelve codes must have done to twelve numbers, whichever real gateway brought them: policy.md's table."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx

from tests.running import WITHIN
from tests.test_twelve_codes import OURS, Expected, lookup_first, number

TWELVE = lookup_first(provider=False)


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
