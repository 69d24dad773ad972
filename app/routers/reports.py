"""`/v1/lists` and `/v1/reports/…`: how lists stand, and why people left them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.models import api
from app.models.opt_in import InQuery, Moment
from app.routers.answers import answer, list_of, sender_of, wrong
from app.routers.auth import Reads
from app.routers.query import KnownQuery
from app.services import reports
from app.services.connection import Busy
from app.services.reports import Frame

router = APIRouter(tags=["reports"], route_class=KnownQuery)
USUAL = timedelta(days=30)
TURN_WITHIN = 10.0
"""Seconds that a report waits for others, before its caller is told to come back."""
OLDEST, NEWEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@router.get("/v1/lists", operation_id="lists", summary="How do the lists stand?", response_model=api.Lists)
async def lists(request: Request, sender: Annotated[str | None, Query(examples=["12345"])] = None,
                _: Reads = None) -> Response:  # fmt: skip
    """Every list with its `subscribers` (opted in, the suspended and held too), how many of them may be texted at this
    instant (`sendable`), are `suspended` or `held`, and how many are `opted_out`.
    """
    state = request.app.state
    who = None if sender is None else sender_of(state.settings.region, sender)
    async with _turn(state.reports):
        return answer({"items": await reports.lists(state.reads, who)})


@router.get("/v1/reports/opt-outs", operation_id="optOutReport", summary="Why did people leave?",
            response_model=api.OptOutReport)  # fmt: skip
async def opt_outs(
    request: Request, sender: Annotated[str | None, Query(examples=["12345"])] = None,
    list: Annotated[str | None, Query(description="A list, of this sender or of all", examples=["spring"])] = None,  # noqa: A002
    start: Annotated[
        Moment | None, Query(alias="from", description="30 days before `to` unless given"), InQuery
    ] = None,
    end: Annotated[Moment | None, Query(alias="to", description="Now unless given; not in it"), InQuery] = None,
    _: Reads = None,
) -> Response:  # fmt: skip
    """Subscribers who left in the time frame, by the reason and the moment of what ended their consent: counts and
    shares, of all and of each list. Who was never opted in does not count, whatever was refused.
    """
    state, until = request.app.state, end or datetime.now(UTC)
    frame = Frame(start or max(until, OLDEST + USUAL) - USUAL, until)
    if not OLDEST <= frame.start <= frame.end <= NEWEST:
        raise wrong("from", "`from` must lie before `to`, and both between the years 2000 and 2200")
    who = None if sender is None else sender_of(state.settings.region, sender)
    async with _turn(state.reports):
        rows = await reports.opt_outs(state.reads, frame, who, None if list is None else list_of(list))
    everywhere: Counter[str] = Counter()
    for row in rows:
        everywhere[row.reason] += row.total
    items = [
        {"sender": place[0], "list": place[1], **_shares({row.reason: row.total for row in of_list})}
        for place, of_list in groupby(rows, key=lambda row: (row.sender, row.list))
    ]
    return answer({"from": frame.start, "to": frame.end, **_shares(everywhere), "items": items})


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TURN_WITHIN):
            await turns.acquire()
    except TimeoutError:
        raise Busy from None
    try:
        yield
    finally:
        turns.release()


def _shares(counts: Mapping[str, int]) -> dict[str, Any]:
    total = sum(counts.values())
    ranked: Iterable[tuple[str, int]] = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    reasons = [{"reason": reason or None, "count": count, "share": round(count / total, 6)} for reason, count in ranked]
    return {"total": total, "reasons": reasons}
