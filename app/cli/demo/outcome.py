"""What the service says of the day afterwards, read back by its own calls, and whether that is what was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from app.cli.demo.day import GATEWAYS, NUMBERS, Day, Told
from app.cli.demo.wire import Wire
from app.cli.show import Refused
from app.models.receipt import Status

Seen = tuple[str, str, str | None, str | None, str, str | None]
"""A receipt as `GET /v1/receipts` has it: gateway, message id, number, sender, status, code."""
AT_ONCE = 10_000
OWN_WILL = frozenset({"573", "603", "21610"})
"""Codes by which a person has left. What came of them must hold for every reader."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`answers`: what is said of each number; `changes`: what the feed told; `history`: the story's, oldest first."""

    receipts: Counter[Seen]
    answers: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    held: list[dict[str, Any]]
    unread: list[dict[str, Any]]
    unknown: list[dict[str, Any]]
    history: list[dict[str, Any]]


async def strangers(http: httpx.AsyncClient, many: int) -> list[str]:
    """So many numbers that the service has never heard of. Refused when it knows too many of ours."""
    found: list[str] = []
    for start in range(0, len(NUMBERS), AT_ONCE):
        items = await _answers(http, NUMBERS[start : start + AT_ONCE])
        found += [item["number"] for item in items if item["state"] == "unseen"]
        if len(found) >= many:
            return found
    raise Refused(f"the service knows all but {len(found)} of the demo's numbers: ask for fewer --receipts", 1)


async def newest(http: httpx.AsyncClient) -> int:
    """The cursor behind all that the feed has told so far."""
    after = -1
    while after != (after := (await _asked(http, "/v1/changes", {"after": max(after, 0), "limit": 10_000}))["next"]):
        pass
    return after


async def read(http: httpx.AsyncClient, day: Day, began: datetime, start: int) -> Outcome:
    """Everything about this day: what has arrived since `began`, and what the feed told behind `start`."""
    numbers = [person.number for person in day.subscribers]
    ours, who = {told.message_id for told in day.told}, set(numbers)
    alarms = await _asked(http, "/v1/alarms", {"limit": 1_000, "cleared": False})
    return Outcome(
        Counter([_seen(row) async for row in _receipts(http, began) if row["message_id"] in ours]),
        [item for at in range(0, len(numbers), AT_ONCE) for item in await _answers(http, numbers[at : at + AT_ONCE])],
        [change async for change in _changes(http, start) if change["number"] in who],
        [row async for row in _pages(http, "/v1/held", {"limit": 1_000}) if row["number"] in who],
        [row async for row in _pages(http, "/v1/unread", {"limit": 1_000}) if _at(row["first_at"]) >= began],
        [row for row in alarms["items"] if row["kind"] == "unknown_code"],
        [row async for row in _pages(http, f"/v1/numbers/{numbers[0]}/history", {"limit": 1_000})][::-1],
    )


async def _answers(http: httpx.AsyncClient, numbers: Sequence[str]) -> list[dict[str, Any]]:
    answer = await http.post("/v1/numbers/status", json={"numbers": numbers})
    items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
    return items


async def _receipts(http: httpx.AsyncClient, began: datetime) -> AsyncIterator[dict[str, Any]]:
    for gateway in GATEWAYS:
        async for row in _pages(http, "/v1/receipts", {"gateway": gateway, "limit": 1_000}):
            if _at(row["received_at"]) < began:
                break
            yield row


async def _changes(http: httpx.AsyncClient, after: int) -> AsyncIterator[dict[str, Any]]:
    while (page := await _asked(http, "/v1/changes", {"after": after, "limit": 10_000}))["items"]:
        for change in page["items"]:
            yield change
        after = page["next"]


async def _pages(http: httpx.AsyncClient, path: str, asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    after = ""
    while after is not None:
        page = await _asked(http, path, asked | {"after": after})
        for item in page["items"]:
            yield item
        after = page["next"]


async def _asked(http: httpx.AsyncClient, path: str, asked: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    answer = await http.get(path, params={name: value for name, value in asked.items() if value != ""})
    return answer.raise_for_status().json()


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _seen(row: dict[str, Any]) -> Seen:
    return row["gateway"], row["message_id"], row["number"], row["sender"], row["status"], row["code"]


# As sent? ----------------------------------------------------------------------------------------------------------


def mismatches(day: Day, wire: Wire, came: Outcome) -> Iterator[str]:
    """Each thing that is not as it was sent, in a line; none when all is well."""
    sent = Counter({_sent(told, wire): 1 for told in day.told})
    if missing := sent - came.receipts:
        yield f"{missing.total()} receipts that were answered are not stored as they were sent, such as {_one(missing)}"
    if more := came.receipts - sent:
        yield f"{more.total()} receipts are stored that were not sent, or twice, such as {_one(more)}"
    unread = 7 * (1 + len(day.told) // 10_000)
    if len(came.unread) < unread:
        yield f"{unread} things could not be read and {len(came.unread)} are kept"
    yield from _wrong_answers(day, came)
    yield from _wrong_feed(came)


def _sent(told: Told, wire: Wire) -> Seen:
    return told.gateway, told.message_id, told.number, told.sender, told.status.value, wire.code(told)


def _one(rows: Counter[Seen]) -> str:
    gateway, id_, _, _, status, code = min(rows, key=str)
    return f"{gateway} {id_} {status} {code or ''}".rstrip()


def _wrong_answers(day: Day, came: Outcome) -> Iterator[str]:
    """Whoever left is sent nothing more by that sender; whoever got every message may be sent the next one."""
    people = {person.number: person for person in day.subscribers}
    crowd = {answer["number"]: answer for answer in came.answers if answer["number"] != day.subscribers[0].number}
    left = {(told.number, told.sender) for told in day.told if told.code in OWN_WILL and told.number in crowd}
    troubled = {told.number for told in day.told if told.status not in {Status.DELIVERED, Status.SENT}}
    for number, answer in crowd.items():
        lists = {(one["sender"], one["list"]): one["sendable"] for one in answer["lists"]}
        if lists.keys() != set(people[number].lists):
            yield f"{number} is not on the lists that it was opted in to"
        if any(sendable and (number, sender) in left for (sender, _), sendable in lists.items()):
            yield f"{number} has left, and is sendable"
        if number not in troubled and not all(lists.values()):
            yield f"{number} has got every message, and is not sendable"


def _wrong_feed(came: Outcome) -> Iterator[str]:
    """Who has followed the feed must know what is answered now."""
    told = {
        (one["number"], one.get("sender"), one.get("list")): one["to"] for one in came.changes
        if one["kind"] in {"number.state", "list.opted_in", "list.opted_out"}
    }  # fmt: skip
    for answer in came.answers:
        number = answer["number"]
        shown = {(number, None, None): answer["state"]}
        shown |= {(number, one["sender"], one["list"]): one["consent"] for one in answer["lists"]}
        if any(told.get(what, now) != now for what, now in shown.items()):
            yield f"the feed ends with something else of {number} than is answered"
