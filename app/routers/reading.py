"""What others read beside the numbers: stored receipts, and what a person should look at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.models import api
from app.routers.answers import AFTER, Limit, Words, answer, number_of
from app.routers.auth import Reads
from app.routers.query import KnownQuery
from app.services import reading

router = APIRouter(route_class=KnownQuery)
AfterReceipt = Annotated[str, Query(pattern="^([0-9]{1,16}[.][0-9a-f]{32})?$", description=AFTER)]


@router.get("/v1/receipts", operation_id="storedReceipts", summary="What did the gateways say?", tags=["receipts"],
            response_model=api.ReceiptPage)  # fmt: skip
async def receipts(request: Request, *, message_id: Words = None, number: str | None = None, gateway: Words = None,
                   after: AfterReceipt = "", limit: Limit = 100, _: Reads = None) -> Response:  # fmt: skip
    """Stored receipts, newest first: of a message, a number, a gateway, or the newest of all. They are kept 90 days."""
    who = None if number is None else number_of(request.app.state.settings.region, number)
    given = {"message_id": message_id, "number": who, "gateway": gateway}
    asked = {name: value for name, value in given.items() if value is not None}
    rows = await reading.receipts(request.app.state.reads, asked, _place(after) if after else reading.now(), limit + 1)
    items = [{name: value for name, value in row._asdict().items() if name != "key"} for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return answer({"items": items, "next": last and _cursor(reading.Place(last.received_at, last.key))})


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _cursor(place: reading.Place) -> str:
    return f"{(place.received_at - _EPOCH) // _MICROSECOND}.{place.key.hex}"


def _place(cursor: str) -> reading.Place:
    at, _, key = cursor.partition(".")
    return reading.Place(_EPOCH + int(at) * _MICROSECOND, UUID(key))


@router.get("/v1/alarms", operation_id="alarms", summary="What should a person look at?", tags=["operating"],
            response_model=api.Alarms)  # fmt: skip
async def alarms(request: Request, *, cleared: Annotated[bool, Query(description="Show those too that ended")] = True,
                 limit: Limit = 1_000, _: Reads = None) -> Response:  # fmt: skip
    """Unknown codes, errors of ours, what waits for a person: those that stand first, newest first."""
    rows = await reading.alarms(request.app.state.reads, limit, cleared=cleared)
    return answer({"items": [row._asdict() for row in rows]})
