"""What others read beside the numbers: receipts, lists, the catalogue, alarms, what could not be read."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import Row
from starlette.responses import Response, StreamingResponse

from app.models import api
from app.models.catalogue import Code
from app.models.duration import written
from app.models.number import Consent, State
from app.models.policy import Policy, Rule
from app.routers.answers import (
    CSV,
    JSON,
    NDJSON,
    ListName,
    Sender,
    answer,
    list_of,
    number_of,
    sender_of,
    wanted,
)
from app.routers.auth import Admin, Reads
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services import reading
from app.services.reading import Rows
from app.services.status import in_utc

router = APIRouter(route_class=KnownQuery)
Limit = Annotated[int, Query(ge=1, le=1_000)]
AFTER = "The `next` of the page before"
AfterReceipt = Annotated[str, Query(pattern="^([0-9]{1,16}[.][0-9a-f]{32})?$", description=AFTER)]
AfterNumber = Annotated[str, Query(pattern="^([0-9a-f]{2})*$", description=AFTER)]
AfterId = Annotated[int, Query(ge=1, le=reading.NEWEST, description=AFTER)]
Words = Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]+$")]


# Receipts ----------------------------------------------------------------------------------------------------------


@router.get("/v1/receipts", operation_id="storedReceipts", summary="What did the gateways say?", tags=["receipts"],
            response_model=api.ReceiptPage)  # fmt: skip
async def receipts(request: Request, *, message_id: Words = None, number: str | None = None, gateway: Words = None,
                   after: AfterReceipt = "", limit: Limit = 100, _: Reads = None) -> Response:  # fmt: skip
    """Stored receipts, newest first: of a message, a number, a gateway, or the newest of all. They are kept 90 days."""
    who = None if number is None else number_of(request.app.state.settings.region, number)
    given = {"message_id": message_id, "number": who, "gateway": gateway}
    asked = {name: value for name, value in given.items() if value is not None}
    rows = await reading.receipts(request.app.state.reads, asked, _place(after) if after else reading.now(), limit + 1)
    items = [{name: value for name, value in row._asdict().items() if name != "key"} for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return answer({"items": items, "next": last and _cursor(reading.Place(last.received_at, last.key))})


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _cursor(place: reading.Place) -> str:
    return f"{(place.received_at - _EPOCH) // _MICROSECOND}.{place.key.hex}"


def _place(cursor: str) -> reading.Place:
    at, _, key = cursor.partition(".")
    return reading.Place(_EPOCH + int(at) * _MICROSECOND, UUID(key))


# Subscribers -------------------------------------------------------------------------------------------------------

_LINES: dict[str, Any] = {"itemSchema": {"$ref": "#/components/schemas/Subscriber"}}
_TABLE = {
    "schema": {"type": "string"},
    "example": f"number,consent,state,sendable,reason,at\r\n{api.NUMBER},opted_in,active,true,,2026-03-02T09:15:00Z",
}
_COLUMNS = ("number", "consent", "state", "sendable", "reason", "at")


@router.get("/v1/senders/{sender:path}/lists/{list:path}/subscribers", operation_id="subscribers",
            summary="Who is on this list?", tags=["consent"], response_model=api.SubscriberPage,
            responses={200: {"content": {NDJSON: _LINES, CSV: _TABLE}}})  # fmt: skip
async def subscribers(
    request: Request,
    *,
    sender: Sender,
    list: ListName,  # noqa: A002 - as the path calls it
    consent: Consent | None = None,
    state: State | None = None,
    sendable: Annotated[bool | None, Query(description="Whether this list may be texted at this number now")] = None,
    after: AfterNumber = "",
    limit: Annotated[int, Query(ge=1, le=10_000, description="For JSON; NDJSON and CSV give the whole list")] = 1_000,
    _: Reads = None,
) -> Response:
    """In order of number, as pages of JSON, or the whole list as NDJSON or CSV (by `Accept`), streamed.

    The suspended stay listed: they are subscribers still. `sendable=true` names exactly those who may be texted now.
    `consent=opted_out` names those who left: `reason` and `at` are of what ended their consent, whatever else stands in
    the way.
    """
    who = sender_of(request.app.state.settings.region, sender), list_of(list)
    given = {"consent": consent, "state": state, "sendable": sendable}
    asked = {name: value for name, value in given.items() if value is not None}
    kind = wanted(request, JSON, NDJSON, CSV)
    # In hex: a `+` that is not encoded reads as a space, and no log of a proxy should show a number.
    reads, start = request.app.state.reads, bytes.fromhex(after).replace(b"\0", b"").decode("latin-1")
    if kind == JSON:
        rows = await reading.subscribers(reads, *who, asked, after=start, limit=limit + 1)
        items = [row._asdict() for row in rows[:limit]]
        return answer({"items": items, "next": items[-1]["number"].encode().hex() if len(rows) > limit else None})
    pages = reading.all_subscribers(reads, *who, asked, start)
    write = _as_lines if kind == NDJSON else _as_table
    return StreamingResponse(_written(await anext(pages), pages, write), media_type=kind)


async def _written(first: Rows, pages: AsyncIterator[Rows], write: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
    yield write(first, first=True)
    async for page in pages:
        yield write(page, first=False)


def _as_lines(rows: Rows, *, first: bool) -> bytes:  # noqa: ARG001 - lines need no heading
    return b"".join(orjson.dumps(row._asdict(), option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for row in rows)


def _as_table(rows: Rows, *, first: bool) -> bytes:
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    if first:
        writer.writerow(_COLUMNS)
    writer.writerows(map(_cells, rows))
    return table.getvalue().encode()


def _cells(row: Row[Any]) -> Iterable[str]:
    return (row.number, row.consent, row.state, "true" if row.sendable else "false", row.reason or "", in_utc(row.at))


# The catalogue -----------------------------------------------------------------------------------------------------


@router.get("/v1/codes", operation_id="codes", summary="All codes, or those of a space", tags=["codes"],
            response_model=api.Codes, responses={404: {"description": "There is no space of this name"}})  # fmt: skip
async def codes(request: Request, space: str | None = None, _: Reads = None) -> Response:
    """The catalogue: what each vendor's code means, what it is taken for, and what the policy in force does then."""
    meaning = request.app.state.meaning
    spaces = meaning.catalogue.spaces()
    if space is not None and space not in spaces:
        raise Problem(404, f"there is no code space of this name; there are {', '.join(spaces)}")
    found = meaning.catalogue.codes.values() if space is None else meaning.catalogue.space(space)
    return answer({"items": [_code(code, meaning.policy) for code in found]})


@router.get("/v1/codes/unknown", operation_id="unknownCodes", summary="Which codes and statuses does nobody know?",
            tags=["codes"], response_model=api.UnknownWords)  # fmt: skip
async def unknown_codes(request: Request, gateway: Words = None, limit: Limit = 1_000, _: Reads = None) -> Response:
    """They are kept and counted, and opt nobody out. `sendable codes suggest` prints the rows to add for them."""
    state = request.app.state
    rows = await reading.unknown_words(state.reads, state.meaning.catalogue, gateway, limit)
    return answer({"items": [row._asdict() for row in rows]})


@router.get("/v1/codes/{space}/{code:path}", operation_id="code", summary="What does this code mean?", tags=["codes"],
            response_model=api.Code, responses={404: {"description": "The code is in no table"}})  # fmt: skip
async def code(request: Request, space: Annotated[str, Path(examples=["openmarket"])],
               code: Annotated[str, Path(examples=["3041"])], _: Reads = None) -> Response:  # fmt: skip
    """Looked up exactly, then without leading zeros where the space is numeric."""
    meaning = request.app.state.meaning
    found = meaning.catalogue.find(space, code)
    if found is None:
        raise Problem(404, "this code is in no table: `GET /v1/codes` lists those there are")
    return answer(_code(found, meaning.policy))


def _code(code: Code, policy: Policy) -> dict[str, Any]:
    return {
        "space": code.space, "code": code.code, "meaning": code.meaning, "level": code.level,
        "permanence": code.permanence, "reason": code.reason, "rule": _rule(policy.rule(code.reason)),
        "confidence": code.confidence, "source": code.source,
    }  # fmt: skip


def _rule(rule: Rule) -> dict[str, Any]:
    """A rule as a policy file would write it: without what is at its default."""
    values = {field.name: getattr(rule, field.name) for field in fields(Rule) if field.name != "reason"}
    usual = Rule(rule.reason)
    told = {name: value for name, value in values.items() if value != getattr(usual, name)}
    return {name: written(value) if isinstance(value, timedelta) else value for name, value in told.items()}


# For people --------------------------------------------------------------------------------------------------------


@router.get("/v1/alarms", operation_id="alarms", summary="What should a person look at?", tags=["operating"],
            response_model=api.Alarms)  # fmt: skip
async def alarms(request: Request, *, cleared: Annotated[bool, Query(description="Show those too that ended")] = True,
                 limit: Limit = 1_000, _: Reads = None) -> Response:  # fmt: skip
    """Unknown codes, errors of ours, what waits for a person: those that stand first, newest first."""
    rows = await reading.alarms(request.app.state.reads, limit, cleared=cleared)
    return answer({"items": [row._asdict() for row in rows]})


@router.get("/v1/unread", operation_id="unread", summary="What could not be read?", tags=["operating"],
            response_model=api.UnreadPage)  # fmt: skip
async def unread(request: Request, after: AfterId = reading.NEWEST, limit: Limit = 100, _: Admin = None) -> Response:
    """Callbacks, or elements of them, that were answered as success and kept for a person; newest first."""
    rows = await reading.unread(request.app.state.reads, after, limit + 1)
    items = [row._asdict() for row in rows[:limit]]
    return answer({"items": items, "next": items[-1]["id"] if len(rows) > limit else None})


@router.get("/v1/unread/{id:int}", operation_id="unreadCallback", summary="One of them, as it came", tags=["operating"],
            response_model=api.UnreadCallback,
            responses={404: {"description": "There is none of this id"}})  # fmt: skip
async def unread_callback(request: Request, id: Annotated[int, Path(ge=1, le=reading.NEWEST, examples=[17])],  # noqa: A002
                          _: Admin = None) -> Response:  # fmt: skip
    """With its headers, query and body (base64): it may hold phone numbers."""
    row = await reading.one_unread(request.app.state.reads, id)
    if row is None:
        raise Problem(404, "there is none of this id: it was read since, or never was")
    return answer(row._asdict() | {"headers": orjson.Fragment(row.headers), "body": b64encode(row.body).decode()})
