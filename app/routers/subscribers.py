"""`POST /v1/senders/{sender}/lists/{list}/subscribers`: a whole list's opt-ins in one call, streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Security
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.models import api
from app.routers.answers import CSV, NDJSON, ListName, Sender, answer, each, list_of, sender_of
from app.routers.auth import scope
from app.routers.body import MIB, NotCompressed, too_large, unpacked
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services import subscribers
from app.services.roster import NotARoster, Roster, Usual

router = APIRouter(tags=["consent"], route_class=KnownQuery)
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
        return Problem(408, "the body did not go on")
    if isinstance(error, NotCompressed):
        return Problem(400, str(error))
    return Problem(400, "the connection was closed before the body was complete")
