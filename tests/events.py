"""What random traffic is made of: some people, senders, lists and codes, and what happens to a number, by HTTP."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from tests.conftest import Service

SENDERS = ("12345", "67890")
LISTS = tuple((sender, name) for sender in SENDERS for name in ("spring", "summer"))
CODES = ("341", "345", "560", "561", "565", "568", "569", "573", "592", "603", "629", "3041", "514", None)
PEOPLE = [f"+1555555{place:04}" for place in range(12)]


async def some_event(service: Service, chance: random.Random, number: str) -> None:
    sender, name = chance.choice(LISTS)
    at = datetime.now(UTC) - timedelta(days=chance.choice([0, 1, 2, 5, 29, 31, 60]), hours=chance.randrange(24))
    path = f"/v1/senders/{sender}/lists/{name}/subscribers/{number}"
    what = chance.random()
    if what < 0.3:
        await service.client.put(path, json={"consented_at": at.isoformat(), "source": "form"})
    elif what < 0.36:
        scope = chance.choice(["list", "sender", "all"])
        await service.client.delete(path, params={"scope": scope, "at": at.isoformat()})
    else:
        code = chance.choice(CODES)
        body = {"message_id": f"m{chance.randrange(40)}", "number": number, "status": "undeliverable",
                "code": code, "occurred_at": at.isoformat(),
                "sent_at": (at - timedelta(hours=chance.choice([0, 1, 50]))).isoformat()}  # fmt: skip
        if chance.random() < 0.9:
            body["sender"] = sender
        if chance.random() < 0.25:
            body |= {"status": "delivered", "code": None}
        for _ in range(chance.choice([1, 1, 2])):
            assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200


async def some_decision(service: Service, chance: random.Random) -> None:
    for one in (await service.client.get("/v1/quarantine", params={"open": True})).json()["items"]:
        await service.client.post(f"/v1/quarantine/{one['id']}/{chance.choice(['release', 'discard'])}")
