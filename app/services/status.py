"""May this number be texted? Read for one number or ten thousand by the same statement; shaped by pure functions.

Single questions gather as receipts do: while one query runs, the next ones wait together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

AT_ONCE = 1_000
"""Numbers that one query asks for."""

_STATUS = text("""
SELECT w.number, n.state, n.reason, n.waiting_for, n.until, n.steps, n.carrier, n.changed_at, n.last_receipt_at,
       clock_timestamp() AS now,
       (SELECT json_object_agg(b.sender, b.reason) FROM sender_blocks b WHERE b.number = w.number) AS blocks,
       (SELECT json_agg(json_build_array(s.sender, s.list, s.consent, s.reason, s.at,
                n.dead_since IS NULL OR s.opted_in_at > n.dead_since) ORDER BY s.sender, s.list)
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
# Ten thousand answers are made in one breath: rows are unpacked once, and nothing is built that is not sent.

Axis = Literal["number", "sender", "consent"]
Judged = tuple[Axis | None, dict[str, Any]]
"""Which axis forbids it, and what is told of it."""


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


def answer(row: Sequence[Any], asked: Asked) -> dict[str, Any]:
    """The answer of `GET /v1/numbers/{number}` (contract.md), from one row of the statement above."""
    number, state, reason, waiting_for, until, steps, carrier, changed_at, last_receipt_at, now, blocked, consents = row
    present = _UNSEEN if state is None else Present(state, reason, waiting_for, until, changed_at)
    if state is not None and steps != "[]":
        present = _present(present, orjson.loads(steps), now)
    blocks: Mapping[str, str] = orjson.loads(blocked) if blocked else {}
    lists = [_list(consent, present, blocks) for consent in orjson.loads(consents)] if consents else []
    own = lists if asked.sender is None else [one for one in lists if one[1]["sender"] == asked.sender]
    shown = own if asked.list is None else [one for one in own if one[1]["list"] == asked.list]
    sender = None if asked.sender is None else _sender(asked.sender, present, blocks, own)
    return {
        "number": number,
        "state": present.state,
        "sendable": present.state in _SENDABLE,
        "reason": present.reason,
        "waiting_for": present.waiting_for,
        "until": present.until,
        "carrier": _carrier(carrier) if carrier else None,
        "sender": sender[1] if sender else None,
        "lists": [told for _, told in shown],
        "decision": _decision(asked, present, sender, shown),
        "evidence": _evidence(present.fact) if present.fact else None,
        "changed_at": present.changed_at,
        "last_receipt_at": last_receipt_at,
    }


def _present(told: Present, steps: Sequence[Mapping[str, Any]], now: datetime) -> Present:
    """The first of the steps that has not lapsed; it began when the one before it ended."""
    lapsed = None
    for step in steps:
        until = datetime.fromisoformat(step["until"]) if "until" in step else None
        if until is None or until > now:
            break
        lapsed = until
    return Present(step["state"], step.get("reason"), step.get("waiting_for"), until, lapsed or told.changed_at,
                   step.get("fact"))  # fmt: skip


def _list(consent: Sequence[Any], present: Present, blocks: Mapping[str, str]) -> Judged:
    sender, name, wish, reason, at, fresh = consent
    axis: Axis | None = None
    why = None
    if present.state not in _SENDABLE:
        axis, why = "number", present.reason
    elif sender in blocks:
        axis, why = "sender", blocks[sender]
    elif wish == "opted_out":
        axis, why = "consent", reason
    elif not fresh:
        # The number came back by an opt-in to another list: this list's consent is older than its last deactivation.
        axis, why = "consent", "deactivated"
    return axis, {
        "sender": sender, "list": name, "consent": wish, "sendable": axis is None, "reason": why,
        "at": at.replace("+00:00", "Z"),
    }  # fmt: skip


def _sender(sender: str, present: Present, blocks: Mapping[str, str], own: Sequence[Judged]) -> Judged:
    axis: Axis | None = None
    why = None
    if present.state not in _SENDABLE:
        axis, why = "number", present.reason
    elif sender in blocks:
        axis, why = "sender", blocks[sender]
    elif own and all(of == "consent" for of, _ in own):
        axis, why = "consent", max((told for _, told in own), key=_when)["reason"]
    return axis, {"sender": sender, "blocked": sender in blocks, "sendable": axis is None, "reason": why}


def _when(told: Mapping[str, Any]) -> str:
    """Times of one zone are in order as text, once the `Z` is gone, which would stand behind a fraction."""
    return str(told["at"][:-1])


_NO_CONSENT: Judged = ("consent", {"reason": "no_consent"})


def _decision(asked: Asked, present: Present, sender: Judged | None, shown: Sequence[Judged]) -> dict[str, Any]:
    """Exactly what was asked. A list without any consent on it is not sendable: nobody has said yes."""
    axis: Axis | None = None if present.state in _SENDABLE else "number"
    why = present.reason
    if sender:
        axis, why = sender[0], sender[1]["reason"]
    if asked.list is not None and axis in {None, "consent"}:
        axis, told = shown[0] if shown else _NO_CONSENT
        why = told["reason"]
    return {"sendable": axis is None, "axis": axis, "reason": why}


def _carrier(carrier: str) -> dict[str, Any]:
    known = orjson.loads(carrier)
    raw = known.get("name_raw")
    return {
        "name": known.get("name") or raw, "name_raw": raw, "mcc": known.get("mcc"), "mnc": known.get("mnc"),
        "line_type": known.get("line_type"), "ported": known.get("ported"), "ported_at": known.get("ported_at"),
        "source": known["source"], "as_of": known["at"],
    }  # fmt: skip


def _evidence(fact: Mapping[str, Any]) -> dict[str, Any]:
    cause = fact["cause"]
    return {
        "gateway": cause.get("gateway"), "code_space": cause.get("code_space"), "code": cause.get("code"),
        "message_id": cause.get("message_id"), "occurred_at": fact["at"],
    }  # fmt: skip
