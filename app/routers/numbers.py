"""`/v1/numbers/…`: may this number be texted now? One at a time, many at once, and how it came to be so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import Response
from starlette.routing import Route

from app.models import api
from app.routers import bulk
from app.routers.answers import (
    JSON,
    NDJSON,
    AfterId,
    Limit,
    PhoneNumber,
    answer,
    asked_of,
    dumps,
    media_type,
    number_of,
    past_time,
)
from app.routers.auth import Admin, Reads, require
from app.routers.query import KnownQuery, refuse_others
from app.services import history, status
from app.services.as_of import as_of
from app.services.erase import erase
from app.services.reading import NEWEST

router = APIRouter(tags=["numbers"], route_class=KnownQuery)


_NO_QUERY: Mapping[str, str] = {}
_ASKED = ("sender", "list", "as_of")


async def number(request: Request) -> Response:
    """The question that is asked before every message: a thin endpoint, without a dependency graph."""
    await require(request, "numbers:read")
    state, query = request.app.state, request.query_params if request.scope["query_string"] else _NO_QUERY
    refuse_others(query, _ASKED)
    who = number_of(state.settings.region, request.path_params["number"])
    asked = asked_of(state.settings.region, query.get("sender"), query.get("list"))
    if (moment := query.get("as_of")) is not None:
        at = past_time(moment, state.settings.changes_kept)
        return Response(dumps(await as_of(state.reads, who, at, asked)), media_type=JSON)
    row = await state.reader.read(who)
    return Response(dumps(status.answer(row, asked)), media_type=JSON)


routes = [Route("/v1/numbers/{number}", number, methods=["GET"])]
"""The hot path: matched before FastAPI's own routes. Documented in openapi.py."""


@router.post(
    "/v1/numbers/status", operation_id="numberStatuses", summary="May I text these numbers?",
    response_model=api.BulkAnswer, responses={200: {"content": {NDJSON: bulk.LINES_OUT}}},
    openapi_extra={"requestBody": {"required": True, "content": bulk.QUESTIONS}},
)  # fmt: skip
async def statuses(request: Request, content_type: Annotated[str, Header(include_in_schema=False)] = JSON,
                   _: Reads = None) -> Response:  # fmt: skip
    """Up to 10,000 numbers as one JSON object, or any number of them as NDJSON: a line in, a line out, in order.

    Of NDJSON every line is a JSON string, or an object with `number`, `sender`, `list`. Read the answer while you send:
    neither side keeps more than a part of it. A bad entry is answered in its place, as `{"number", "error"}`.
    """
    if media_type(content_type) == NDJSON:
        return await bulk.lines(request)
    return await bulk.object_(request)


@router.get("/v1/numbers/{number}/history", operation_id="numberHistory", summary="How did it come to be so?",
            response_model=api.HistoryPage)  # fmt: skip
async def number_history(request: Request, number: PhoneNumber, after: AfterId = NEWEST, limit: Limit = 100,
                         _: Reads = None) -> Response:  # fmt: skip
    """Every change with its cause, newest first: why, since when, by which receipt, lookup, file or call. With the
    first page, `checks`: what the Reassigned Numbers Database was asked about the number, and what it said.
    """
    state = request.app.state
    return answer(await history.page(state.reads, number_of(state.settings.region, number), after, limit))


@router.delete("/v1/numbers/{number}", operation_id="eraseNumber", summary="Erase everything of a number",
               response_model=api.Erased)  # fmt: skip
async def erase_number(request: Request, number: PhoneNumber, _: Admin = None) -> Response:
    """Receipts, history, consent, lookups, the register, what could not be read: all of it goes, for good, but a keyed
    hash. It keeps the person opted out: only an opt-in that they gave after the erasure counts. Answered the same for a
    number that nobody has spoken of.
    """
    state = request.app.state
    return answer({"erased": await erase(state.engine, number_of(state.settings.region, number))})
