"""`/v1/codes`: what vendors' codes mean, what follows from each, and which ones nobody knows."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.models import api
from app.models.catalogue import Code
from app.models.duration import written
from app.models.policy import Policy, Rule
from app.routers.answers import Limit, Words, answer
from app.routers.auth import Reads
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services import reading

router = APIRouter(tags=["codes"], route_class=KnownQuery)


@router.get("/v1/codes", operation_id="codes", summary="All codes, or those of a space",
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
            response_model=api.UnknownWords)  # fmt: skip
async def unknown_codes(request: Request, gateway: Words = None, limit: Limit = 1_000, _: Reads = None) -> Response:
    """They are kept and counted, and opt nobody out. `sendable codes suggest` prints the rows to add for them."""
    state = request.app.state
    known = reading.Known(state.meaning.catalogue, state.settings.links())
    rows = await reading.unknown_words(state.reads, known, gateway, limit)
    return answer({"items": [row._asdict() for row in rows]})


@router.get("/v1/codes/{space}/{code:path}", operation_id="code", summary="What does this code mean?",
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
