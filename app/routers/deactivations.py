"""`POST /v1/deactivations/{feed}`: a carrier's or aggregator's file, streamed to disk first, then taken in."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import PurePath
from typing import Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Path, Query, Request, Security
from pydantic import BeforeValidator
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.feeds import FEEDS, known_by
from app.models import api
from app.models.feed import Feed, Layout
from app.routers.answers import answer
from app.routers.auth import scope
from app.routers.body import WITHIN
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services.deactivations.columns import WrongColumns, columns_of
from app.services.deactivations.importing import Order, TooMuch, UnderWay, take_in
from app.services.deactivations.unpack import NotAFile

router = APIRouter(tags=["deactivations"], route_class=KnownQuery)
MOST = 4 << 30
"""Bytes of one file as it is sent: ten million numbers are 120 MB."""


def _as_written(given: object) -> object:
    """A day as 2026-11-20, and not as seconds since 1970, which the library would take too."""
    if isinstance(given, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", given, re.ASCII):
        raise ValueError("not a day: write it as 2026-11-20")
    return given


Day = Annotated[
    date | None, BeforeValidator(_as_written), Query(description="The day it is about; else that of `name`")
]


_FEEDS = ["twilio", *(name for name in FEEDS if name != "twilio")]
"""As the API's page shows them: it asks the first one about the file that stands there as an example."""


@router.post("/v1/deactivations/{feed}", operation_id="importDeactivations", summary="A deactivation file",
             response_model=api.DeactivationOutcome,
             responses={409: {"description": "It takes more of a list than may be taken unasked, or is under way"}},
             openapi_extra={"requestBody": {"required": True, "content": {
                 "text/plain": {"schema": {}, "example": "15555551234\n15555550142\n"},
                 "text/csv": {"schema": {}},
                 "application/json": {"schema": {}, "example": {"results": [
                     {"destination": "15555551234", "type": "DEACTIVATION", "date": "2026-11-20T10:00:00.000Z"}]}},
                 "application/gzip": {"schema": {}},
                 "application/zip": {"schema": {}},
             }}})  # fmt: skip
async def take(
    request: Request,
    feed: Annotated[str, Path(description="The feed that wrote the file", examples=_FEEDS)],
    date: Day = None,
    name: Annotated[str | None, Query(description="The file's name, which may tell carrier and day", max_length=256,
                                      examples=["att-deacts_20261120.zip"])] = None,
    columns: Annotated[str | None, Query(description="Which column holds what, by name or place", max_length=512,
                                         examples=["number=MDN,date=Effective"])] = None,
    *,
    dry_run: Annotated[bool, Query(description="Only tell what it would do")] = False,
    yes: Annotated[bool, Query(description="Take as much of a list as the file names")] = False,
    _: Annotated[None, Security(scope("deactivations:write"))] = None,
) -> Response:  # fmt: skip
    """Plain, gzip or zip, of any length: numbers become unsendable at once; consent ends by the lookups, or, without a
    provider, by the file. A broken line is told and skipped. The same file again changes nothing, and one that was
    interrupted goes on when it is sent again. Two are taken in at a time; others wait for their turn. A 409 that asks
    for `yes=true` has `lists`, as the answer has.
    """
    state = request.app.state
    order_of = _described(_feed(feed), date, name, columns, state.settings.region)
    with tempfile.TemporaryFile(prefix="sendable-feed-") as raw:
        file = cast("BinaryIO", raw)
        await _spool(request, file)
        order = Order(file=file, dry_run=dry_run, sure=yes, **order_of)
        try:
            async with state.files:
                outcome = await take_in(state.engine, state.meaning, order, state.guard)
        except TooMuch as error:
            lists = [one._asdict() for one in error.lists]
            raise Problem(409, f"{error}: add `yes=true` if it is meant", lists=lists) from error
        except UnderWay as error:
            raise Problem(409, str(error)) from error
        except NotAFile as error:
            raise Problem(422, str(error)) from error
    return answer(outcome.told())


def _feed(name: str) -> Feed:
    if name not in FEEDS:
        raise Problem(404, f"there is no such feed; there are {', '.join(FEEDS)}")
    return FEEDS[name]


def _described(feed: Feed, day: date | None, name: str | None, columns: str | None,
               region: str) -> Mapping[str, Any]:  # fmt: skip
    """What is known of the file beside its bytes."""
    known = known_by(PurePath(name).name) if name else None
    try:
        named = columns_of(feed, columns)
    except WrongColumns as error:
        raise Problem(422, str(error), errors=[{"parameter": "columns", "detail": str(error)}]) from error
    layout = Layout(named, known.carrier if known else None, region)
    return {
        "feed": feed,
        "day": day or (known.day if known else None),
        "layout": layout,
        "name": name and name.replace("\0", ""),
    }


async def _spool(request: Request, file: BinaryIO) -> None:
    """To the disk, as it comes: a zip tells only at its end what is in it, and a file is known by all of its bytes."""
    size, stream = 0, aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout(WITHIN):
                part = await anext(stream, None)
            if part is None and not size:
                raise Problem(
                    422, "the body is empty: send the file itself, for example with `curl --data-binary @FILE`"
                )
            if part is None:
                return
            size += len(part)
            if size > MOST:
                raise Problem(413, f"the file is larger than {MOST >> 30} GiB: send it in parts, or compressed")
            file.write(part)
    except TimeoutError as error:
        raise Problem(408, f"nothing more of the file came within {WITHIN:.0f} s: send it again") from error
    except ClientDisconnect as error:
        raise Problem(400, "the connection was closed before the file was complete: send it again") from error
