"""`/v1/unread`: what could not be read or proven was kept; it is listed, tried again or given up."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from app.models import api
from app.routers.answers import AfterId, Limit, answer
from app.routers.auth import Admin
from app.routers.body import SmallBody
from app.routers.problems import Problem
from app.services import reading, refused, unread
from app.services.reading import NEWEST
from app.services.unread import Which

router = APIRouter(tags=["operating"], route_class=SmallBody)
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]
Id = Annotated[int, Field(ge=1, le=NEWEST)]


class UnreadChoice(BaseModel):
    """Some by id, those of a gateway, or all of them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"gateway": "openmarket"}]})

    ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)] | None = None
    gateway: Name | None = None
    all: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> UnreadChoice:
        if (self.ids is not None) + (self.gateway is not None) + self.all != 1:
            raise ValueError('say which in one way: "ids", "gateway", or "all": true')
        return self


class OfGateway(BaseModel):
    """Those of one gateway; without a name, of every one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"gateway": "twilio"}]})

    gateway: Name | None = None


@router.get("/v1/unread", operation_id="unread", summary="What could not be read?",
            response_model=api.UnreadPage)  # fmt: skip
async def list_unread(request: Request, after: AfterId = NEWEST, limit: Limit = 100, _: Admin = None) -> Response:
    """Callbacks, or elements of them, that were answered as success and kept for a person; newest first."""
    rows = await reading.unread(request.app.state.reads, after, limit + 1)
    items = [row._asdict() for row in rows[:limit]]
    return answer({"items": items, "next": items[-1]["id"] if len(rows) > limit else None})


@router.get("/v1/unread/{id:int}", operation_id="unreadCallback", summary="One of them, as it came",
            response_model=api.UnreadCallback,
            responses={404: {"description": "There is none of this id"}})  # fmt: skip
async def show_unread(request: Request, id: Annotated[int, Path(ge=1, le=NEWEST, examples=[17])],  # noqa: A002
                          _: Admin = None) -> Response:  # fmt: skip
    """With its headers, query and body (base64): it may hold phone numbers."""
    row = await reading.one_unread(request.app.state.reads, id)
    if row is None:
        raise Problem(404, "nothing unread has this id: it was read since, or never existed")
    return answer(row._asdict() | {"headers": orjson.Fragment(row.headers), "body": b64encode(row.body).decode()})


@router.post("/v1/unread/replay", operation_id="replayUnread", summary="Read again what could not be read",
             response_model=api.Replayed)  # fmt: skip
async def replay(request: Request, choice: UnreadChoice, _: Admin = None) -> Response:
    """After a fix: they are applied as if they had been read when they came, once; what is still unreadable stays."""
    state = request.app.state
    return answer((await unread.replay(state.engine, state.meaning, state.links, _which(choice)))._asdict())


@router.post("/v1/unread/reverify", operation_id="reverifyRefused", summary="Prove refused requests again",
             response_model=api.Reverified)  # fmt: skip
async def reverify(request: Request, choice: OfGateway, _: Admin = None) -> Response:
    """After a secret was mended: those that are authentic by the present secrets are applied, once. A signed time is
    held against the moment when they came.

    The newest 10,000 of each gateway are kept, as long as receipts are.
    """
    state = request.app.state
    found = await refused.reverify(state.engine, state.meaning, state.links, choice.gateway, errands=state.errands)
    return answer(found._asdict())


@router.post("/v1/unread/drop", operation_id="dropUnread", summary="Give up what could not be read",
             response_model=api.Dropped)  # fmt: skip
async def drop(request: Request, choice: UnreadChoice, _: Admin = None) -> Response:
    """They are forgotten for good, unread."""
    return answer({"dropped": await unread.drop(request.app.state.engine, _which(choice))})


def _which(choice: UnreadChoice) -> Which:
    return Which(choice.ids, choice.gateway)
