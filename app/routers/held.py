"""`/v1/held`: numbers that wait for a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from app.models import api
from app.routers.answers import Limit, answer, number_of
from app.routers.auth import Admin, Reads
from app.routers.body import SmallBody
from app.services import held
from app.services.held import Which

router = APIRouter(tags=["held"], route_class=SmallBody)
Word = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""PostgreSQL keeps no NUL in a text, so nothing is found by one."""


class Choice(BaseModel):
    """One number, or all that one code of a space, or one reason, holds."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"code": "345", "code_space": "openmarket"}]}
    )

    number: Word | None = None
    code: Word | None = None
    code_space: Word | None = None
    reason: Word | None = None

    @model_validator(mode="after")
    def _something(self) -> Choice:
        if not (self.number or self.code or self.reason):
            raise ValueError("name a number, a code or a reason: all held numbers at once are never meant")
        if self.code and not self.code_space:
            raise ValueError('a code means something only inside its space: name it too, for example "openmarket"')
        return self


@router.get("/v1/held", operation_id="listHeld", summary="List held numbers", response_model=api.HeldPage)
async def list_held(request: Request, code: Word | None = None, code_space: Word | None = None,  # noqa: PLR0917
                    reason: Word | None = None, waiting_for: Word | None = None, after: Word = "", limit: Limit = 100,
                    _: Reads = None) -> Response:  # fmt: skip
    """Held numbers and what each waits for, in order of number."""
    which = Which(None, code, code_space, reason, waiting_for)
    if after.startswith(" "):
        after = "+" + after.lstrip()  # a plus that stood bare in the query
    items = await held.held(request.app.state.reads, which, after, limit)
    body = {"items": items, "next": items[-1]["number"] if len(items) == limit else None}
    return answer(body)


@router.post("/v1/held/release", operation_id="releaseHeld", summary="Let held numbers be texted again",
             response_model=api.Decided)  # fmt: skip
async def release(request: Request, choice: Choice, _: Admin = None) -> Response:
    """A person's decision: the hold ends, consent is untouched."""
    state = request.app.state
    return _count(await held.release(state.engine, _which(request, choice), state.meaning.policy, "api"))


@router.post("/v1/held/opt-out", operation_id="optOutHeld", summary="Give held numbers up", response_model=api.Decided)
async def opt_out(request: Request, choice: Choice, _: Admin = None) -> Response:
    """A person's decision: the hold ends, and with it the number's consent on every list."""
    state = request.app.state
    return _count(await held.opt_out(state.engine, _which(request, choice), state.meaning.policy, "api"))


def _which(request: Request, choice: Choice) -> Which:
    number = number_of(request.app.state.settings.region, choice.number, "/number") if choice.number else None
    return Which(number, choice.code, choice.code_space, choice.reason)


def _count(total: int) -> Response:
    return answer({"numbers": total})
