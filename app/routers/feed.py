"""`GET /v1/changes`: what truly changed, in the order of its commits, as pages or as a stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from app.models import api
from app.routers.answers import EVENTS, JSON, dumps, each, wanted, wrong
from app.routers.auth import Reads, require
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services import feed
from app.services.feed import Feed, Page
from app.services.reading import NEWEST

router = APIRouter(tags=["feed"], route_class=KnownQuery)
_NOT_BUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_STREAM = each(
    {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The change's `seq`: send it back as `Last-Event-ID`"},
            "data": {
                "type": "string",
                "contentMediaType": JSON,
                "contentSchema": {"$ref": "#/components/schemas/Change"},
            },
        },
    },
)


@router.get("/v1/changes", operation_id="changes", summary="What changed?", response_model=api.ChangePage,
            responses={200: {"content": {EVENTS: _STREAM}}})  # fmt: skip
async def changes(
    request: Request,
    after: Annotated[int, Query(ge=0, le=NEWEST, description="The `next` of the page before; 0 for the beginning")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
    last_event_id: Annotated[str | None, Header(description="For streams: where the last one broke off")] = None,
    _: Reads = None,
) -> Response:
    """The feed. Whoever goes on from `next` sees every change exactly once, however many processes write. To keep a
    copy of who may be texted, ask again for the numbers that it names: changes added up do not tell all of it.

    With `Accept: text/event-stream` it stays open: an event a change, its `id` the cursor, a comment now and then to
    show that the stream lives. It ends with its key. `EventSource` resumes by itself where it breaks off; where the
    answer is an error, as 503, it gives up, and is to be opened anew.
    """
    if wanted(request, JSON, EVENTS) == EVENTS:
        return await _stream(request, after if last_event_id is None else _event_id(last_event_id))
    rows = await feed.page(request.app.state.reads, after, limit)
    parts = []
    for start in range(0, len(rows), feed.PART):
        parts.append(dumps([*map(feed.shape, rows[start : start + feed.PART])])[1:-1])
        await asyncio.sleep(0)
    body = b'{"items":[' + b",".join(parts) + b'],"next":%d}' % (rows[-1].seq if rows else after)
    return Response(body, media_type=JSON)


_ID = re.compile(r"\d{1,19}", re.ASCII)


def _event_id(text: str) -> int:
    if _ID.fullmatch(text) and int(text) <= NEWEST:
        return int(text)
    raise wrong("Last-Event-ID", "not the id of an event of this stream: send the last one back as it came")


async def _stream(request: Request, after: int) -> Response:
    """Our own few lines and not sse-starlette: that one writes every event, and so phone numbers, to its debug log."""
    stream: Feed = request.app.state.feed
    pages = stream.follow(after)
    first = await anext(pages, None)  # a database that is away is said before the answer has begun
    return StreamingResponse(_events(request, first, pages), media_type=EVENTS, headers=_NOT_BUFFERED)


async def _events(request: Request, first: Page | None, pages: AsyncIterator[Page]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first.events
    async for page in pages:
        try:
            await require(request, "numbers:read")
        except Problem:
            return  # whoever comes back hears why
        yield page.events
