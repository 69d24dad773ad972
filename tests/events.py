"""Something that happens to a number, by HTTP: what random traffic is made of."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from tests.conftest import Service
from tests.test_lives import CODES, LISTS


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
