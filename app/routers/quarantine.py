"""`/v1/quarantine`: mass events that wait for a person."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.models import api
from app.models.number import Decision
from app.routers.answers import AfterId, Limit, answer
from app.routers.auth import Admin, Reads
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services import quarantine
from app.services.reading import NEWEST

router = APIRouter(tags=["held"], route_class=KnownQuery)
Id = Annotated[int, Path(ge=1, le=NEWEST, description="As the list tells it", examples=[1])]


@router.get("/v1/quarantine", operation_id="listQuarantines", summary="List mass events and what was decided",
            response_model=api.QuarantinePage)  # fmt: skip
async def list_quarantines(request: Request, open_: Annotated[bool | None, Query(alias="open")] = None,
                           after: AfterId = NEWEST, limit: Limit = 100, _: Reads = None) -> Response:  # fmt: skip
    """Newest first: the gateway, code, sender and carrier, how many numbers wait, and who decided what."""
    rows = await quarantine.quarantines(request.app.state.reads, is_open=open_, before=after, limit=limit + 1)
    items: list[dict[str, Any]] = [row._asdict() for row in rows[:limit]]
    return answer({"items": items, "next": items[-1]["id"] if len(rows) > limit else None})


@router.post("/v1/quarantine/{id}/release", operation_id="releaseQuarantine", summary="Let a mass event happen",
             response_model=api.Decided)  # fmt: skip
async def release(request: Request, id: Id, _: Admin = None) -> Response:  # noqa: A002
    """A person's decision: the receipts were right. What they do happens, with their own dates."""
    return await _decided(request, id, "release")


@router.post("/v1/quarantine/{id}/discard", operation_id="discardQuarantine", summary="Undo a mass event",
             response_model=api.Decided)  # fmt: skip
async def discard(request: Request, id: Id, _: Admin = None) -> Response:  # noqa: A002
    """A person's decision: the receipts were wrong. It is as if they had not acted, and the numbers are free."""
    return await _decided(request, id, "discard")


async def _decided(request: Request, id_: int, decision: Decision) -> Response:
    state = request.app.state
    total = await quarantine.decide(state.engine, id_, decision, state.meaning.policy, "api")
    if total is None:
        raise Problem(404, f"no quarantine {id_} is open; GET /v1/quarantine lists them")
    return answer({"numbers": total})
