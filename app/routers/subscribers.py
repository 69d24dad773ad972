"""`/v1/senders/{sender}/lists/{list}/subscribers`: a whole list, read or brought in by one call, streamed."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import APIRouter, Query, Request, Security
from sqlalchemy import Row
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from app.models import api
from app.models.number import Consent, State
from app.routers.answers import AFTER, CSV, JSON, NDJSON, ListName, Sender, answer, each, list_of, sender_of, wanted
from app.routers.auth import Reads, scope
from app.routers.body import MIB, NotCompressed, too_large, unpacked
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services import reading, subscribers
from app.services.connection import Rows
from app.services.roster import NotARoster, Roster, Usual
from app.services.status import in_utc

router = APIRouter(tags=["consent"], route_class=KnownQuery)
AfterNumber = Annotated[str, Query(pattern="^([0-9a-f]{2})*$", description=AFTER)]

# Read ----------------------------------------------------------------------------------------------------------------

_LINES = each({"$ref": "#/components/schemas/Subscriber"})
_HEADING = b"number,consent,state,sendable,reason,at\r\n"
_TABLE = {
    "schema": {"type": "string"},
    "example": f"{_HEADING.decode()}{api.NUMBER},opted_in,active,true,,2026-03-02T09:15:00Z",
}


@router.get("/v1/senders/{sender:path}/lists/{list:path}/subscribers", operation_id="subscribers",
            summary="Who is on this list?", response_model=api.SubscriberPage,
            responses={200: {"content": {NDJSON: _LINES, CSV: _TABLE}}})  # fmt: skip
async def who_is_on(
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
    heading, write = (b"", _as_lines) if kind == NDJSON else (_HEADING, _as_table)
    return StreamingResponse(_written(heading + write(await anext(pages)), pages, write), media_type=kind)


async def _written(first: bytes, pages: AsyncIterator[Rows], write: Callable[[Rows], bytes]) -> AsyncIterator[bytes]:
    yield first
    async for page in pages:
        yield write(page)


def _as_lines(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row._asdict(), option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for row in rows)


def _as_table(rows: Rows) -> bytes:
    table = io.StringIO(newline="")
    csv.writer(table).writerows(map(_cells, rows))
    return table.getvalue().encode()


def _cells(row: Row[Any]) -> Iterable[str]:
    return (row.number, row.consent, row.state, "true" if row.sendable else "false", row.reason or "", in_utc(row.at))


# Brought in ----------------------------------------------------------------------------------------------------------

MOST = 512 * MIB
"""Bytes after decompression: some four million lines."""

_BODY = {
    CSV: {
        "schema": {"type": "string"},
        "example": "number,consented_at,source,evidence\n+15555551234,2026-03-02T09:15:00Z,web form,form 7f3a\n",
    },
    NDJSON: each({"$ref": "#/components/schemas/SubscriberLine"}),
}


@router.post(
    "/v1/senders/{sender:path}/lists/{list:path}/subscribers", operation_id="importSubscribers",
    summary="Opt many numbers in to a list", response_model=api.Imported,
    openapi_extra={"requestBody": {"required": True, "content": _BODY, "description":
        f"Up to {MOST // MIB} MiB after decompression (gzip)"}},
)  # fmt: skip
async def import_subscribers(
    request: Request,
    sender: Sender,
    list: ListName,  # noqa: A002 - as the path calls it
    *,
    dry_run: Annotated[bool, Query(description="Only say what it would do")] = False,
    _: Annotated[None, Security(scope("consent:write"))] = None,
) -> Response:
    """CSV with a heading, or NDJSON: `number`, `consented_at`, `source`, and `evidence` where there is some.

    Each line acts as an opt-in of its own: whoever opted out later stays out and is `refused`. Wrong lines are named
    and left out. Nothing acts before the body is complete; the answer comes when all of it has acted.
    """
    state = request.app.state
    usual = Usual(sender_of(state.settings.region, sender), list_of(list), region=state.settings.region, only=True)
    roster, parts, policy = Roster(usual, datetime.now(UTC)), _limited(request), state.meaning.policy
    import_ = uuid4()
    try:
        if dry_run:
            told = await subscribers.judge(state.engine, parts, roster, policy)
        else:
            told = await subscribers.take(state.engine, import_, parts, roster, policy=policy)
    except (NotARoster, NotCompressed, TimeoutError, ClientDisconnect, Problem) as error:
        await subscribers.drop(state.engine, import_)
        raise _problem(error) from error
    if told.lines == 0 and not told.errors:
        raise Problem(422, "the body is empty: send CSV with a heading, or NDJSON")
    if told.lines == 0:
        errors = [{"pointer": f"/{one.line}", "detail": one.detail} for one in told.errors[:100]]
        raise Problem(422, "no line is an opt-in: `errors` says why of each", errors=errors)
    return answer(told.answer())


async def _limited(request: Request) -> AsyncIterator[bytes]:
    size = 0
    async for part in unpacked(request):
        size += len(part)
        if size > MOST:
            raise too_large(MOST)
        yield part


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, NotARoster):
        return Problem(422, str(error))
    if isinstance(error, TimeoutError):
        return Problem(408, "the body stopped before its end: send it again")
    if isinstance(error, NotCompressed):
        return Problem(400, str(error))
    return Problem(400, "the connection was closed before the body was complete")
