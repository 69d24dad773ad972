"""`POST /v1/messages`: what our platforms sent."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Security
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from app.models import api
from app.models.opt_in import OLDEST, clean
from app.models.phone import e164, sender_id
from app.routers.answers import answer
from app.routers.auth import scope
from app.routers.body import MARK, RECEIPTS_MOST, NotCompressed, read_body
from app.routers.problems import Problem
from app.routers.query import KnownQuery
from app.services.decide import AHEAD
from app.services.register import Sent, register

router = APIRouter(tags=["messages"], route_class=KnownQuery)
ERRORS_TOLD = 100
ENTRIES_MOST = 100_000
"""No sent message is shorter than 80 bytes. Three million empty objects would keep everybody waiting for 40 s."""
READ_AT_ONCE = 500
"""Entries that are read in one turn; others are answered between two. Twenty bodies of 8 MiB kept everybody waiting for
8 s.
"""


Word = Annotated[str, Field(max_length=256), AfterValidator(clean)]


class SentMessage(BaseModel):
    """One message that was sent through a gateway. `carrier`: the one that was named when sending, if any was."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    gateway: Word
    account: Annotated[str, Field(max_length=256)] | None = None
    message_id: Word
    number: Word
    sender: Word
    carrier: Annotated[str, Field(max_length=128)] | None = None
    sent_at: datetime


@router.post("/v1/messages", operation_id="registerMessages", summary="Register sent messages",
             response_model=api.Registered)  # fmt: skip
async def messages(request: Request, _: Annotated[None, Security(scope("messages:write"))] = None) -> Response:
    """Receipts that carry only an id find their number and sender here, whichever of the two comes first.

    A JSON array or NDJSON. Good entries are kept; `errors` names the bad ones by their place. 422 when none is good.
    """
    state = request.app.state
    try:
        entries = [*islice(_entries(await read_body(request, RECEIPTS_MOST)), ENTRIES_MOST + 1)]
    except (NotCompressed, orjson.JSONDecodeError) as error:
        raise Problem(400, "the body is neither a JSON array nor NDJSON of sent messages") from error
    if len(entries) > ENTRIES_MOST:
        raise Problem(413, f"more than {ENTRIES_MOST} entries: send them in smaller parts")
    sent, errors = [], []
    for start in range(0, len(entries), READ_AT_ONCE):
        async with state.large:
            await asyncio.sleep(0)
            for place, entry in enumerate(entries[start : start + READ_AT_ONCE], start):
                try:
                    sent.append(_sent(entry, state.gateways, state.settings.region))
                except (ValueError, TypeError) as error:
                    errors.append({"pointer": f"/{place}", "detail": _why(error)})
    if errors and not sent:
        raise Problem(422, "no entry is a sent message", errors=errors[:ERRORS_TOLD])
    applied = await register(state.engine, sent, state.meaning) if sent else 0
    return answer({"registered": len(sent), "receipts_applied": applied, "errors": errors[:ERRORS_TOLD]})


def _entries(body: bytes) -> Iterator[Any]:
    """The entries of a JSON array, of one JSON object, or of NDJSON. A broken line is a bad entry of its own."""
    text = body.removeprefix(MARK).strip()
    if text.startswith(b"["):
        yield from orjson.loads(text)
        return
    lines = [line for line in text.split(b"\n") if line.strip()]
    if not lines:
        raise Problem(422, "the body is empty: send a JSON array or NDJSON of sent messages")
    try:
        yield orjson.loads(text)
    except orjson.JSONDecodeError:
        for line in lines:
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                yield None


def _sent(entry: object, gateways: Collection[str], region: str) -> Sent:
    read = SentMessage.model_validate(entry)
    if read.gateway not in gateways:
        raise ValueError(f"gateway: there is none of this name; there are {', '.join(gateways)}")
    at = read.sent_at if read.sent_at.tzinfo else None
    if at is None or not OLDEST <= at <= datetime.now(UTC) + AHEAD:
        raise ValueError("sent_at: must name its zone (2026-11-21T18:42:07Z), not lie ahead, nor before 1900")
    carrier = (read.carrier or "").replace("\0", "").strip() or None
    return Sent(
        read.gateway, (read.account or "").replace("\0", ""), read.message_id, e164(read.number, region),
        sender_id(read.sender, region), carrier, at,
    )  # fmt: skip


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        if not first["loc"]:
            return "not a JSON object: write each sent message as one, in a line of its own or in an array"
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    return str(error)
