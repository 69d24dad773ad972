"""What the tests of deactivation files do by HTTP: somebody opts in, a file is posted, and what follows is asked."""

from __future__ import annotations

from typing import Any

from tests.conftest import Service

WHO, OTHER, STRANGER = "+15555551234", "+15555550142", "+15555550199"
DAY = "2026-11-20"
LONG_AGO = "2026-01-02T03:04:05Z"


async def opt_in(service: Service, who: str = WHO, at: str = LONG_AGO, name: str = "spring",
                 sender: str = "12345") -> Any:  # fmt: skip
    return await service.client.put(
        f"/v1/senders/{sender}/lists/{name}/subscribers/{who}", json={"consented_at": at, "source": "form"}
    )


async def post(service: Service, body: str | bytes, feed: str = "twilio", **asked: Any) -> Any:
    answer = await service.client.post(f"/v1/deactivations/{feed}", content=body, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def status(service: Service, who: str = WHO, **asked: str) -> Any:
    """What HTTP says of a number; the views must say the same."""
    told = (await service.client.get(f"/v1/numbers/{who}", params=asked)).json()
    view = await service.sql(
        "SELECT state, sendable, reason, waiting_for FROM published.number_status WHERE number = :who", who=who
    )
    shown = (told["state"], told["sendable"], told["reason"], told["waiting_for"])
    assert view == [shown] or (not view and told["state"] == "unseen")
    lists = {(one["sender"], one["list"]) for one in told["lists"] if one["sendable"]}
    assert lists == {*await service.sql("SELECT sender, list FROM published.sendable WHERE number = :who", who=who)}
    return told


async def changes(service: Service) -> list[tuple[str, ...]]:
    items = (await service.client.get("/v1/changes", params={"limit": 1000})).json()["items"]
    return [(c["number"], c["kind"], c["from"], c["to"], c["cause"]["kind"]) for c in items]
