"""`/v1/numbers/{number}/lookup` and `/v1/lookups`: ask a provider now, and what providers have said."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Security
from starlette.responses import Response

from app.lookups import PROVIDERS
from app.models import api
from app.models.opt_in import InQuery, Moment
from app.routers.answers import PhoneNumber, answer, number_of
from app.routers.auth import Reads, scope
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services import feed, reading, status
from app.services.lookup import stops
from app.services.lookup.service import NoProvider
from app.services.store import cause_json

router = APIRouter(tags=["lookups"], route_class=KnownQuery)


@router.post("/v1/numbers/{number}/lookup", operation_id="lookUpNumber", summary="Who serves this number now?",
             response_model=api.LookupAnswer,
             responses={409: {"description": "No lookup provider is configured"}})  # fmt: skip
async def look_up(request: Request, number: PhoneNumber, _: Annotated[None, Security(scope("lookups:write"))] = None,
                  ) -> Response:  # fmt: skip
    """A lookup now, past the answers that are kept but not past the budget; or the one that is under way: a number has
    one at a time, however many ask. What follows from it is committed before this answers.
    """
    state = request.app.state
    who = number_of(state.settings.region, number)
    try:
        outcome = await state.lookups.look_up(who)
    except NoProvider as error:
        raise Problem(409, "no lookup provider is configured: name one under [lookup] in the settings file") from error
    until = {asker.name: at for asker in state.lookups.panel.askers if (at := asker.rests_until())}
    row = (await status.read_many(state.reads, [who]))[who]
    return answer({
        "number": who,
        "outcome": outcome.outcome,
        "provider": outcome.provider,
        "carrier": status.answer(row, status.Asked())["carrier"],
        "errors": [
            {"provider": provider, "error": error} | ({"until": until[provider]} if provider in until else {})
            for provider, error in outcome.errors
        ],
        "price": str(outcome.price),
        "waiting_for": outcome.waiting_for,
        "changes": [feed.told(change, cause_json(change.cause)) for change in outcome.changes],
    })  # fmt: skip


@router.post("/v1/lookups/providers/{provider}/resume", operation_id="resumeProvider",
             summary="Ask this lookup provider again", response_model=api.Resumed,
             responses={404: {"description": "No such lookup provider"}})  # fmt: skip
async def resume(
    request: Request,
    provider: Annotated[str, Path(description="As in the settings", examples=["telnyx"])],
    _: Annotated[None, Security(scope("lookups:write"))] = None,
) -> Response:
    """A provider that refuses our account (`auth`, `quota`) is asked no more by any process, and stands in
    `GET /v1/alarms` as `lookup_stopped`. This lets all ask it again, once its key is mended or its bill is paid.
    """
    if provider not in PROVIDERS:
        raise Problem(404, f"{provider[:40]!r} is no lookup provider; there are {', '.join(PROVIDERS)}")
    lifted = await stops.lift(request.app.state.engine, provider)
    return answer({"provider": provider, "resumed": bool(lifted), "error": lifted[0].error if lifted else None,
                   "since": lifted[0].since if lifted else None})  # fmt: skip


@router.get("/v1/lookups", operation_id="lookupAnswers", summary="What did lookup providers say?",
            response_model=api.LookupPage)  # fmt: skip
async def answers(request: Request, number: Annotated[str, Query(description="Of this number", examples=[api.NUMBER])],
                  before: Annotated[Moment | None, Query(description="The `next` of the page before"), InQuery] = None,
                  limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
                  _: Reads = None) -> Response:  # fmt: skip
    """Every provider's answer about a number, newest first, with its price, without what tells who a person is."""
    state = request.app.state
    rows = await reading.lookup_answers(state.reads, number_of(state.settings.region, number), before, limit + 1)
    items = [_answer(row._asdict()) for row in rows[:limit]]
    return answer({"items": items, "next": items[-1]["asked_at"] if len(rows) > limit else None})


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    record = orjson.loads(row.pop("found") or "{}")
    record.pop("number", None)
    return row | {"price": str(row["price"]), "record": record or None}
