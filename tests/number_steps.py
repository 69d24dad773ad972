"""What the tests of questions about numbers do: a receipt is posted, a person opts in, a number is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conftest import Service

WHO = "+15555551234"


def receipt(number: str = WHO, **said: Any) -> dict[str, Any]:
    return {
        "message_id": f"m-{number}", "number": number, "sender": "12345", "status": "undeliverable", "code": "560",
    } | said  # fmt: skip


async def post(service: Service, *receipts: dict[str, Any]) -> None:
    assert (await service.client.post("/v1/receipts/native", json=[*receipts])).status_code == 200


async def opt_in(
    service: Service, number: str = WHO, sender: str = "12345", name: str = "spring", days: float = 30
) -> None:
    call = {"consented_at": (datetime.now(UTC) - timedelta(days=days)).isoformat(), "source": "web form"}
    put = await service.client.put(f"/v1/senders/{sender}/lists/{name}/subscribers/{number}", json=call)
    assert put.json()["consent"] == "opted_in"


async def status(service: Service, number: str = WHO, **query: Any) -> Any:
    return await service.get(f"/v1/numbers/{number}", **query)
