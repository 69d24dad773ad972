"""Every call without a limit of its own takes bodies of up to 1 MiB, however they come."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.routers import body
from tests.conftest import Service

MIB = 1024 * 1024
AGREED = {"consented_at": "2026-11-01T00:00:00Z", "source": "web"}
SENT = {"gateway": "native", "message_id": "m-1", "number": "+15555551234", "sender": "12345",
        "sent_at": "2026-11-01T00:00:00Z"}  # fmt: skip
CALLS = (
    ("PUT", "/v1/senders/12345/lists/spring/subscribers/+15555551234", AGREED),
    ("POST", "/v1/held/release", {"number": "+15555551234"}),
    ("POST", "/v1/held/opt-out", {"number": "+15555551234"}),
    ("POST", "/v1/unread/replay", {"all": True}),
    ("POST", "/v1/unread/reverify", {"gateway": "twilio"}),
    ("POST", "/v1/unread/drop", {"all": True}),
)
OTHERS = (
    ("POST", "/v1/messages", [SENT]),
    ("POST", "/v1/messages", SENT),
    ("POST", "/v1/numbers/status", {"numbers": ["+15555551234"]}),
    ("POST", "/v1/numbers/status", {"number": "+15555551234"}),
)
OWN_LIMIT = (
    "/v1/receipts/{gateway}",
    "/v1/receipts/{gateway}/{account}",
    "/v1/messages",
    "/v1/numbers/status",
    "/v1/deactivations/{feed}",
    "/v1/senders/{sender}/lists/{list}/subscribers",
)
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(("method", "path", "call"), CALLS)
async def test_a_body_beyond_1_mib_is_refused_and_one_just_below_is_read(
    service: Service, method: str, path: str, call: dict[str, object]
) -> None:
    async def send(content: bytes | AsyncIterator[bytes], **headers: str) -> int:
        return (await service.client.request(method, path, content=content, headers=JSON | headers)).status_code

    text = json.dumps(call).encode()
    assert await send(text.ljust(MIB)) < 300
    assert await send(text.ljust(MIB + 1)) == 413
    assert await send(_endless()) == 413
    assert await send(gzip.compress(text), **{"content-encoding": "gzip"}) < 300
    assert await send(gzip.compress(text.ljust(64 * MIB)), **{"content-encoding": "gzip"}) == 413
    assert await send(text, **{"content-encoding": "gzip"}) == 400


@pytest.mark.parametrize(("method", "path", "call"), [*CALLS, *OTHERS])
async def test_a_byte_order_mark_in_front_of_a_body_is_skipped(
    service: Service, method: str, path: str, call: dict[str, object] | list[dict[str, object]]
) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(call).encode()
    kind = "application/x-ndjson" if path == "/v1/numbers/status" and "number" in call else "application/json"
    answer = await service.client.request(method, path, content=body, headers={"content-type": kind})
    assert answer.is_success, answer.text
    assert '"error":' not in answer.text


@pytest.mark.parametrize(("method", "path"), [*((method, path) for method, path, _ in CALLS), ("POST", OTHERS[2][1])])
@pytest.mark.parametrize("content", ["null", "[]", '"text"'])
async def test_what_is_no_object_is_refused_in_words_of_json(
    service: Service, method: str, path: str, content: str
) -> None:
    answer = await service.client.request(method, path, content=content, headers=JSON)
    assert (answer.status_code, answer.json()["errors"]) == (
        422, [{"pointer": "", "detail": "the body must be a JSON object"}],
    )  # fmt: skip


async def test_no_call_that_takes_a_body_is_forgotten(service: Service) -> None:
    paths = (await service.client.get("/openapi.json")).json()["paths"]
    taking = {path for path, calls in paths.items() for call in calls.values() if "requestBody" in call}
    consent = "/v1/senders/{sender}/lists/{list}/subscribers/{number}"
    assert taking - {*OWN_LIMIT} == {path for _, path, _ in CALLS[1:]} | {consent}


async def test_a_body_that_does_not_come_to_its_end_is_given_up_and_its_neighbours_are_not(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "WITHIN", 0.2)
    monkeypatch.setattr(body, "LOOK", 0.05)
    status, told = await asyncio.wait_for(asyncio.create_task(_stalled(service)), 10)
    assert (status, told["status"]) == (408, 408)
    assert "did not arrive within" in told["detail"]
    assert (await service.client.post("/v1/held/release", json={"number": "+15555551234"})).status_code < 300


async def test_who_goes_away_while_its_body_comes_is_not_taken_for_slow(
    service: Service,
) -> None:
    stalled = asyncio.create_task(_stalled(service))
    for _ in range(10):
        await asyncio.sleep(0)
    stalled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stalled


async def test_large_bodies_that_never_end_take_no_more_than_their_room_and_none_from_the_small(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "COMING_MOST", MIB)
    large = b" " * (400 * 1024)
    coming = [asyncio.create_task(_stalled(service, large)) for _ in range(5)]
    async with asyncio.timeout(5):
        while len(refused := [one for one in coming if one.done()]) < 3:
            await asyncio.sleep(0)
    assert [(await one)[0] for one in refused] == [503, 503, 503]
    small = {"message_id": "m-1", "number": "+15555551234", "sender": "12345", "status": "delivered"}
    assert (await service.client.post("/v1/receipts/native", json=small)).status_code == 200
    for one in coming:
        one.cancel()
    await asyncio.gather(*coming, return_exceptions=True)
    whole = json.dumps(small).encode() + large * 2
    assert (await service.client.post("/v1/receipts/native", content=_in_parts(whole))).status_code == 200


async def _in_parts(whole: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), 1024):
        yield whole[start : start + 1024]


async def _stalled(service: Service, begins: bytes = b'{"message_id"') -> tuple[int, dict[str, Any]]:
    """A receipt of which only the beginning comes: what is answered to it."""
    parts = [{"type": "http.request", "body": begins, "more_body": True}]
    said: list[Any] = []

    async def receive() -> Any:
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        said.append(message)

    path = "/v1/receipts/native"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "headers": [(b"content-type", b"application/json")], "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await service.app(scope, receive, send)
    return said[0]["status"], json.loads(b"".join(one.get("body", b"") for one in said[1:]))


async def _endless() -> AsyncIterator[bytes]:
    for _ in range(2 * 1024):
        yield b" " * 1024
