"""May this number be texted? Read for one number or ten thousand by the same statement; shaped by pure functions.

Single questions gather as receipts do: while one query runs, the next ones wait together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

AT_ONCE = 1_000
"""Numbers that one query asks for."""

# PostgreSQL writes a number's carrier and lists as they are answered: it does so while Python shapes the rows before,
# and most of it goes out unread. Each list is judged by its own consent alone; the rest is for the functions below.
# A time is written as Python writes those beside it: our connections are in UTC, and whole seconds have no fraction.
_STATUS = text("""
SELECT w.number, n.state, n.reason, n.waiting_for, n.until,
       -- A number that only a deactivation file has spoken of has no steps: its evidence is that file's record.
       CASE WHEN n.noted_by IS NULL THEN n.steps ELSE jsonb_build_array(jsonb_build_object(
           'state', n.state, 'reason', n.reason, 'fact', jsonb_build_object(
           'at', replace(to_char(n.dead_since, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000Z', 'Z'), 'cause',
           jsonb_build_object('code_space', 'deactivation_feed', 'code',
                              CASE n.reason WHEN 'number_changed' THEN 'TRANSFER' ELSE 'DEACT' END)))) END AS steps,
       n.changed_at, n.last_receipt_at,
       clock_timestamp() AS now,
       CASE WHEN n.carrier IS NOT NULL THEN json_build_object(
           'name', coalesce(n.carrier -> 'name', n.carrier -> 'name_raw'), 'name_raw', n.carrier -> 'name_raw',
           'mcc', n.carrier -> 'mcc', 'mnc', n.carrier -> 'mnc', 'line_type', n.carrier -> 'line_type',
           'ported', n.carrier -> 'ported', 'ported_at', n.carrier -> 'ported_at', 'source', n.carrier -> 'source',
           'as_of', n.carrier -> 'at') END AS carrier,
       (SELECT json_object_agg(b.sender, b.reason) FROM sender_blocks b WHERE b.number = w.number) AS blocks,
       (SELECT json_agg(json_build_object(
                'sender', s.sender, 'list', s.list, 'consent', s.consent,
                'sendable', s.consent = 'opted_in' AND (n.dead_since IS NULL OR s.opted_in_at > n.dead_since),
                'reason', CASE WHEN s.consent = 'opted_out' THEN s.reason
                    -- The number came back by an opt-in to another list: this one is older than its last deactivation.
                    WHEN s.opted_in_at <= n.dead_since THEN 'deactivated' END,
                'at', replace(to_char(s.at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000Z', 'Z'))
                ORDER BY s.sender, s.list)
        FROM subscriptions s WHERE s.number = w.number) AS lists
FROM unnest(CAST(:numbers AS text[])) AS w (number) LEFT JOIN numbers n USING (number)
""")


class Asked(NamedTuple):
    """A question: about the number alone, with a sender, or with a list of that sender."""

    sender: str | None = None
    list: str | None = None


async def read_many(engine: AsyncEngine, numbers: Iterable[str]) -> dict[str, Row[Any]]:
    """One row a number, also for numbers never heard of."""
    async with engine.connect() as db:
        rows = (await db.execute(_STATUS, {"numbers": sorted(set(numbers))})).all()
    return {row.number: row for row in rows}


class Reader:
    """Gathers single questions into one query at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: list[tuple[str, asyncio.Future[Row[Any]]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def read(self, number: str) -> Row[Any]:
        future: asyncio.Future[Row[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((number, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await future

    async def _ask(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, []
            try:
                rows = await read_many(self._engine, (number for number, _ in asked))
            except Exception as error:  # noqa: BLE001 - each who waits must hear of it
                if isinstance(error, TimeoutError):  # who waited for this query has no time left to wait for another
                    asked, self._waiting = asked + self._waiting, []
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
            else:
                for number, future in asked:
                    if not future.done():
                        future.set_result(rows[number])
        self._asking = None  # here, not when the task is done: who was just answered may ask again before that


# Shaping -----------------------------------------------------------------------------------------------------------

Axis = Literal["number", "sender", "consent"]
Told = dict[str, Any]


class Present(NamedTuple):
    """The step in force at the database's own now: what the views show at the same moment."""

    state: str
    reason: str | None = None
    waiting_for: str | None = None
    until: datetime | None = None
    changed_at: datetime | None = None
    fact: Mapping[str, Any] | None = None


_UNSEEN = Present("unseen")
_SENDABLE = frozenset({"active", "unseen"})
_YES: Told = {"sendable": True, "axis": None, "reason": None}
_NO_LISTS = orjson.Fragment(b"[]")


def answer(row: Sequence[Any], asked: Asked) -> Told:
    """The answer of `GET /v1/numbers/{number}`, from one row of the statement above, to be written out: parts of it are
    JSON already.
    """
    number, state, reason, waiting_for, until, steps, changed_at, last_receipt_at, now, carrier, blocked, lists = row
    present = _UNSEEN if state is None else Present(state, reason, waiting_for, until, changed_at)
    if state is not None and steps != "[]":
        present = _present(present, orjson.loads(steps), now)
    sendable = present.state in _SENDABLE
    sender: Told | None = None
    shown: list[Told] | orjson.Fragment = orjson.Fragment(lists) if lists else _NO_LISTS
    decision = _YES
    if asked.sender is not None or blocked or not sendable:
        sender, shown, decision = _judged(asked, present, orjson.loads(blocked or "{}"), orjson.loads(lists or "[]"))
    return {
        "number": number,
        "state": present.state,
        "sendable": sendable,
        "reason": present.reason,
        "waiting_for": present.waiting_for,
        "until": present.until,
        "carrier": orjson.Fragment(carrier) if carrier else None,
        "sender": sender,
        "lists": shown,
        "decision": decision,
        "evidence": _evidence(present.fact) if present.fact else None,
        "changed_at": present.changed_at,
        "last_receipt_at": last_receipt_at,
    }


def told(row: Sequence[Any], asked: Asked) -> Told:
    """The same as plain values, to be looked into."""
    plain: Told = orjson.loads(orjson.dumps(answer(row, asked), option=orjson.OPT_UTC_Z))
    return plain


def in_utc(at: datetime) -> str:
    """A time as answers write it, where it must be text already."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _present(before: Present, steps: Sequence[Mapping[str, Any]], now: datetime) -> Present:
    """The first of the steps that has not lapsed; it began when the one before it ended."""
    lapsed = None
    for step in steps:
        until = datetime.fromisoformat(step["until"]) if "until" in step else None
        if until is None or until > now:
            break
        lapsed = until
    return Present(step["state"], step.get("reason"), step.get("waiting_for"), until, lapsed or before.changed_at,
                   step.get("fact"))  # fmt: skip


def _judged(asked: Asked, present: Present, blocks: Mapping[str, str],
            lists: list[Told]) -> tuple[Told | None, list[Told], Told]:  # fmt: skip
    """The sender asked for, the lists to show, and the decision, by all three axes."""
    if asked.sender is not None:
        lists = [one for one in lists if one["sender"] == asked.sender]
    axes = [_judge(one, present, blocks) for one in lists]
    if asked.sender is None:
        number: Axis | None = None if present.state in _SENDABLE else "number"
        return None, lists, {"sendable": number is None, "axis": number, "reason": present.reason}
    axis, why = _sender(asked.sender, present, blocks, lists, axes)
    sender = {
        "sender": asked.sender, "blocked": asked.sender in blocks, "sendable": axis is None, "reason": why,
    }  # fmt: skip
    if asked.list is not None:
        at = next((place for place, one in enumerate(lists) if one["list"] == asked.list), None)
        lists = [] if at is None else [lists[at]]
        if axis in {None, "consent"}:
            # A list without any consent on it is not sendable: nobody has said yes.
            axis, why = ("consent", "no_consent") if at is None else (axes[at], lists[0]["reason"])
    return sender, lists, {"sendable": axis is None, "axis": axis, "reason": why}


def _judge(one: Told, present: Present, blocks: Mapping[str, str]) -> Axis | None:
    """What forbids a list: the number and the sender come before its own consent."""
    if present.state not in _SENDABLE:
        one["sendable"], one["reason"] = False, present.reason
        return "number"
    if one["sender"] in blocks:
        one["sendable"], one["reason"] = False, blocks[one["sender"]]
        return "sender"
    return None if one["sendable"] else "consent"


def _sender(sender: str, present: Present, blocks: Mapping[str, str], lists: Sequence[Told],
            axes: Sequence[Axis | None]) -> tuple[Axis | None, str | None]:  # fmt: skip
    """What forbids a sender: its lists only when there are some and all of them refuse; then the newest says why."""
    if present.state not in _SENDABLE:
        return "number", present.reason
    if sender in blocks:
        return "sender", blocks[sender]
    if lists and all(axis == "consent" for axis in axes):
        newest = max(lists, key=lambda one: str(one["at"][:-1]))  # in order as text, once the `Z` is gone
        return "consent", newest["reason"]
    return None, None


def _evidence(fact: Mapping[str, Any]) -> Told:
    cause = fact["cause"]
    return {
        "gateway": cause.get("gateway"), "code_space": cause.get("code_space"), "code": cause.get("code"),
        "message_id": cause.get("message_id"), "occurred_at": fact["at"],
    }  # fmt: skip
