"""May this number be texted? Read for one number or ten thousand by the same statement; shaped by pure functions.

Single questions gather as receipts do: while one query runs, the next ones wait together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

AT_ONCE = 1_000
"""Numbers that one query asks for."""

_STATUS = text("""
SELECT w.number, n.state, n.reason, n.waiting_for, n.until, n.steps, n.carrier, n.dead_since, n.changed_at,
       n.last_receipt_at, clock_timestamp() AS now,
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
        self._waiting: dict[str, asyncio.Future[Row[Any]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def read(self, number: str) -> Row[Any]:
        future = self._waiting.get(number)
        if future is None:
            future = self._waiting[number] = asyncio.get_running_loop().create_future()
            if not self._running:
                self._start()
        return await asyncio.shield(future)

    def _start(self) -> None:
        task = asyncio.create_task(self._run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                rows = await read_many(self._engine, asked)
            except Exception as error:  # noqa: BLE001 - each who waits must hear of it
                for future in asked.values():
                    if not future.done():
                        future.set_exception(error)
                        future.exception()
            else:
                for number, future in asked.items():
                    if not future.done():
                        future.set_result(rows[number])


# Shaping -----------------------------------------------------------------------------------------------------------


def answer(row: Row[Any], asked: Asked) -> dict[str, Any]:
    """The answer of `GET /v1/numbers/{number}` (contract.md), from one row of the statement above."""
    step = _step(row)
    sendable = step["state"] in {"active", "unseen"}
    blocks: Mapping[str, str] = orjson.loads(row.blocks) if row.blocks else {}
    lists = [_list(entry, step, blocks, sendable=sendable) for entry in (orjson.loads(row.lists) if row.lists else ())]
    sender = _sender(asked.sender, step, blocks, lists, sendable=sendable) if asked.sender else None
    shown = [one for one in lists if asked.sender in {None, one["sender"]} and asked.list in {None, one["list"]}]
    return {
        "number": row.number,
        "state": step["state"],
        "sendable": sendable,
        "reason": step["reason"],
        "waiting_for": step["waiting_for"],
        "until": step["until"],
        "carrier": _carrier(row.carrier),
        "sender": sender,
        "lists": [{key: value for key, value in one.items() if key != "axis"} for one in shown],
        "decision": _decision(asked, step, sender, shown, sendable=sendable),
        "evidence": _evidence(step),
        "changed_at": step["changed_at"],
        "last_receipt_at": row.last_receipt_at,
    }


def _step(row: Row[Any]) -> dict[str, Any]:
    """The step in force at the database's own now: what the views show at the same moment."""
    if row.state is None:
        return {"state": "unseen", "reason": None, "waiting_for": None, "until": None, "changed_at": None}
    shown: dict[str, Any] = {
        "state": row.state, "reason": row.reason, "waiting_for": row.waiting_for, "until": row.until,
        "changed_at": row.changed_at,
    }  # fmt: skip
    if row.steps == "[]":
        return shown
    steps: Sequence[dict[str, Any]] = orjson.loads(row.steps)
    lapsed = None
    for step in steps:
        until = datetime.fromisoformat(step["until"]) if step.get("until") else None
        if until is None or until > row.now:
            break
        lapsed = until
    return shown | {
        "state": step["state"], "reason": step.get("reason"), "waiting_for": step.get("waiting_for"), "until": until,
        "changed_at": lapsed or row.changed_at, "fact": step.get("fact"),
    }  # fmt: skip


def _list(entry: Sequence[Any], step: Mapping[str, Any], blocks: Mapping[str, str], *, sendable: bool) -> dict[str, Any]:
    sender, name, consent, reason, at, fresh = entry
    axis, why = None, None
    if not sendable:
        axis, why = "number", step["reason"]
    elif sender in blocks:
        axis, why = "sender", blocks[sender]
    elif consent == "opted_out":
        axis, why = "consent", reason
    elif not fresh:
        # The number came back by an opt-in to another list: this list's consent is older than its last deactivation.
        axis, why = "consent", "deactivated"
    return {
        "sender": sender, "list": name, "consent": consent, "sendable": axis is None, "reason": why,
        "at": at.replace("+00:00", "Z"), "axis": axis,
    }  # fmt: skip


def _sender(sender: str, step: Mapping[str, Any], blocks: Mapping[str, str], lists: Sequence[Mapping[str, Any]],
            *, sendable: bool) -> dict[str, Any]:  # fmt: skip
    own = [one for one in lists if one["sender"] == sender]
    refused = [one for one in own if one["axis"] == "consent"]
    axis, why = None, None
    if not sendable:
        axis, why = "number", step["reason"]
    elif sender in blocks:
        axis, why = "sender", blocks[sender]
    elif own and len(refused) == len(own):
        axis, why = "consent", max(refused, key=lambda one: one["at"])["reason"]
    return {"sender": sender, "blocked": sender in blocks, "sendable": axis is None, "reason": why, "axis": axis}


def _decision(asked: Asked, step: Mapping[str, Any], sender: dict[str, Any] | None, shown: Sequence[Mapping[str, Any]],
              *, sendable: bool) -> dict[str, Any]:  # fmt: skip
    """Exactly what was asked. A list without any consent on it is not sendable: nobody has said yes."""
    if sender is None:
        return {"sendable": sendable, "axis": None if sendable else "number", "reason": step["reason"]}
    axis, why = sender.pop("axis"), sender["reason"]
    if asked.list is not None and axis in {None, "consent"}:
        one = shown[0] if shown else {"axis": "consent", "reason": "no_consent"}
        axis, why = one["axis"], one["reason"]
    return {"sendable": axis is None, "axis": axis, "reason": why}


def _carrier(carrier: str | None) -> dict[str, Any] | None:
    if carrier is None:
        return None
    known = orjson.loads(carrier)
    raw = known.get("name_raw")
    return {
        "name": known.get("name") or raw, "name_raw": raw, "mcc": known.get("mcc"), "mnc": known.get("mnc"),
        "line_type": known.get("line_type"), "ported": known.get("ported"), "ported_at": known.get("ported_at"),
        "source": known["source"], "as_of": known["at"],
    }  # fmt: skip


def _evidence(step: Mapping[str, Any]) -> dict[str, Any] | None:
    fact = step.get("fact")
    if not fact:
        return None
    cause = fact["cause"]
    return {
        "gateway": cause.get("gateway"), "code_space": cause.get("code_space"), "code": cause.get("code"),
        "message_id": cause.get("message_id"), "occurred_at": fact["at"],
    }  # fmt: skip
