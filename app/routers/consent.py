"""`/v1/senders/{sender:path}/lists/{list:path}/subscribers/{number}`: opt-in and opt-out by call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from pydantic import AfterValidator
from starlette.responses import Response

from app.models import api
from app.models.number import OptIn, Scope
from app.models.opt_in import InQuery, Moment, OptInCall, Place, clean
from app.routers.answers import JSON, ListName, PhoneNumber, Sender, answer, list_of, number_of, sender_of
from app.routers.auth import scope
from app.routers.body import SmallBody
from app.routers.problems import Problem
from app.services import consent
from app.services.consent import Stands
from app.services.decide import AHEAD

router = APIRouter(tags=["consent"], route_class=SmallBody)
PATH = "/v1/senders/{sender:path}/lists/{list:path}/subscribers/{number}"


@router.put(PATH, operation_id="optIn", summary="Opt a number in to a list", response_model=api.Subscribed,
            responses={409: {"description": "A newer opt-out stands, and the list stands as opted out"}})  # fmt: skip
async def opt_in(request: Request, sender: Sender, list: ListName, number: PhoneNumber, call: OptInCall,  # noqa: A002
                 _: Annotated[None, Security(scope("consent:write"))] = None) -> Response:  # fmt: skip
    """Only the person's own, newer opt-in brings consent back; it also lifts this sender's block (`was_blocked`).
    A 409 tells what stands: `consent`, `reason`, `at`.
    """
    who = _who(request, sender, list, number)
    if call.consented_at > datetime.now(UTC) + AHEAD:
        raise Problem(422, "consented_at lies more than 5 minutes ahead: give the moment at which the person agreed")
    state = request.app.state
    given = OptIn(call.consented_at, call.source, call.evidence)
    stands = await consent.opt_in(state.engine, who, given, state.meaning.policy)
    if stands.consent == "opted_out":
        detail = "a newer opt-out stands: only an opt-in that the person gave after it counts"
        raise Problem(409, detail, consent=stands.consent, reason=stands.reason, at=stands.at)
    return _answer(who, stands)


@router.delete(PATH, operation_id="optOut", summary="Opt a number out", response_model=api.Subscribed,
               responses={200: {"content": {JSON: {"example": api.LEFT}}}})  # fmt: skip
async def opt_out(request: Request, sender: Sender, list: ListName, number: PhoneNumber,  # noqa: A002, PLR0917
                  scope: Annotated[Scope | None, Query(description="As the settings say unless given")] = None,
                  reason: Annotated[str, Query(min_length=1, max_length=64, description="In your own words",
                                               examples=["stop_keyword"]), AfterValidator(clean)] = "unsubscribed",
                  at: Annotated[Moment | None, InQuery] = None,
                  _: Annotated[None, Security(scope("consent:write"))] = None) -> Response:  # fmt: skip
    """Of this list, of all lists of the sender, or of everything. It is remembered where no list exists yet.

    Without `scope` it reaches as far as `revocation_scope` of the sender or the policy says, and without that, this
    list alone. Without `at` it counts from now, and after every opt-in told of before.
    """
    who = _who(request, sender, list, number)
    if at and at > datetime.now(UTC) + AHEAD:
        raise Problem(422, "at lies more than 5 minutes ahead: leave it out, or give the moment of the opt-out")
    state = request.app.state
    policy = state.meaning.policy
    reach: Scope = scope or policy.revoked(who.sender) or "list"
    return _answer(who, await consent.opt_out(state.engine, who, reason, reach, policy, at=at))


def _who(request: Request, sender: str, list_: str, number: str) -> Place:
    region = request.app.state.settings.region
    return Place(number_of(region, number), sender_of(region, sender), list_of(list_))


def _answer(who: Place, stands: Stands) -> Response:
    return answer(who._asdict() | stands._asdict())
