"""Deactivation files as they are taken in: what follows for numbers, lists, views and the feed."""

from __future__ import annotations

from typing import Any

from tests.conftest import Service

WHO, OTHER, STRANGER = "+15555551234", "+15555550142", "+15555550199"


async def opt_in(service: Service, who: str = WHO, at: str = "2026-01-02T03:04:05Z", name: str = "spring",
                 sender: str = "12345") -> Any:  # fmt: skip
    return await service.client.put(
        f"/v1/senders/{sender}/lists/{name}/subscribers/{who}", json={"consented_at": at, "source": "form"}
    )


async def post(service: Service, body: str | bytes, feed: str = "twilio", **asked: Any) -> Any:
    answer = await service.client.post(f"/v1/deactivations/{feed}", content=body, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def status(service: Service, who: str = WHO, **asked: str) -> Any:
    return (await service.client.get(f"/v1/numbers/{who}", params=asked)).json()


async def test_a_number_in_a_file_is_unsendable_at_once_and_loses_its_consent(service: Service) -> None:
    await opt_in(service)
    told = await post(service, "15555551234\n", date="2026-11-20")
    assert (told["records"], told["held"], told["opted_out"], told["remembered"]) == (1, 1, 1, 0)
    shown = await status(service)
    assert (shown["state"], shown["sendable"], shown["reason"]) == ("deactivated", False, "deactivated")
    assert [(one["consent"], one["reason"]) for one in shown["lists"]] == [("opted_out", "deactivated")]


async def test_a_number_that_nobody_holds_is_remembered(service: Service) -> None:
    told = await post(service, "15555551234\n", date="2026-11-20")
    assert (told["held"], told["remembered"]) == (0, 1)
    shown = await status(service)
    assert (shown["state"], shown["sendable"], shown["evidence"]["code"]) == ("deactivated", False, "DEACT")
    assert (await opt_in(service)).status_code == 409
    assert (await opt_in(service, at="2026-11-21T10:00:00Z")).status_code == 200
    assert (await status(service))["state"] == "active"
