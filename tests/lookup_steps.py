"""What the tests of lookups do by HTTP: somebody opts in, a receipt asks for a lookup, and it is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conftest import Service

WHO = "+15555551234"
LONG_AGO = "2025-01-02T09:00:00Z"


async def opt_in(service: Service, who: str = WHO, sender: str = "12345", name: str = "spring") -> None:
    body = {"consented_at": LONG_AGO, "source": "form"}
    answer = await service.client.put(f"/v1/senders/{sender}/lists/{name}/subscribers/{who}", json=body)
    assert answer.status_code == 200, answer.text


async def receipt(service: Service, code: str = "3041", who: str = WHO, message: str = "m1", **more: Any) -> None:
    body = {"message_id": message, "number": who, "sender": "12345", "status": "undeliverable", "code": code, **more}
    answer = await service.client.post("/v1/receipts/native", json=body)
    assert (answer.status_code, "sendable-unread" in answer.headers) == (200, False)


async def served_by(service: Service, carrier: str | None = "AT&T", who: str = WHO) -> None:
    entry = {"gateway": "native", "message_id": f"sent-{who}", "number": who, "sender": "12345", "carrier": carrier,
             "sent_at": LONG_AGO}  # fmt: skip
    assert (await service.client.post("/v1/messages", json=[entry])).status_code == 200


async def looked_up(service: Service) -> None:
    """Wait until nothing is due or under way; longer than a lease, which a stalled disk may leave behind."""
    async with asyncio.timeout(90):
        while await service.sql("SELECT 1 FROM lookups WHERE due_at <= clock_timestamp() OR lease_until IS NOT NULL"):
            await asyncio.sleep(0.02)
