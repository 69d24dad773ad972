"""`POST /v1/numbers/status`: many numbers at once, read and answered in parts of bounded size.

While one part is shaped, the query of the next one runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.models import api
from app.models.phone import e164
from app.routers.answers import JSON, NDJSON, asked_of, dumps, each
from app.routers.body import MARK, RECEIPTS_MOST, NotCompressed, read_body, unpacked
from app.routers.problems import Problem
from app.services import status
from app.services.connection import heard, is_lost
from app.services.status import AT_ONCE, Asked

LINE_MOST = 8 * 1024
"""Bytes of one line: a number, a sender and a list are a few hundred."""

_LINE = {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/LineQuestion"}]}
QUESTIONS = {JSON: {"schema": {"$ref": "#/components/schemas/BulkQuestion"}}, NDJSON: each(_LINE)}
LINES_OUT = each({"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("NumberStatus", "BadNumber")]})


class Entry(NamedTuple):
    """One number asked for: as it was given, as E.164, or why it is none."""

    given: Any
    number: str | None
    asked: Asked
    error: str | None = None


# One JSON object ---------------------------------------------------------------------------------------------------


async def object_(request: Request) -> Response:
    """`{"numbers": […], "sender"?, "list"?}` → `{"items": […]}`. Raises Problem for what is not that."""
    question = _question(await _json(request))
    region = request.app.state.settings.region
    asked = asked_of(region, question.sender, question.list, "/")
    entries = [_entry(given, region, asked) for given in question.numbers]
    parts = _answered(request.app.state.reads, _parts(entries))
    return StreamingResponse(_framed(await anext(parts, []), parts), media_type=JSON)


async def _json(request: Request) -> Any:  # noqa: ANN401 - whatever came
    try:
        return orjson.loads((await read_body(request, RECEIPTS_MOST)).removeprefix(MARK))
    except (NotCompressed, orjson.JSONDecodeError) as error:
        raise Problem(400, 'the body is not JSON: send {"numbers": […]}') from error


def _question(body: object) -> api.BulkQuestion:
    if isinstance(body, dict) and isinstance(numbers := body.get("numbers"), list) and len(numbers) > api.AT_MOST:
        detail = f"{len(numbers)} numbers are more than the {api.AT_MOST} of one question: send several, or NDJSON"
        raise Problem(422, detail, errors=[{"pointer": "/numbers", "detail": detail}])
    try:
        return api.BulkQuestion.model_validate(body)
    except ValidationError as error:
        places = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([place | {"loc": ("body", *place["loc"])} for place in places]) from error


def _entry(given: object, region: str, asked: Asked) -> Entry:
    try:
        return Entry(given, e164(given if isinstance(given, str) else _digits(given), region), asked)
    except ValueError as error:
        return Entry(_echoed(given), None, asked, str(error))


def _echoed(given: object) -> object:
    """What was given in a number's place; of an array or object nothing, which may be too deep to be written again."""
    return None if isinstance(given, list | dict) else given


def _digits(given: object) -> str:
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise ValueError("not a phone number: give it as text, for example +15555551234")


def _parts(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while part := [*islice(rest, AT_ONCE)]:
        yield part


async def _answered(engine: AsyncEngine, parts: Iterator[list[Entry]]) -> AsyncIterator[list[dict[str, Any]]]:
    """The answers, part by part. Raises when the first part cannot be read; those of a later one say so themselves."""
    part, waiting = _ask(engine, parts)
    first = True
    while waiting is not None:
        following, ahead = _ask(engine, parts)
        yield await _told(part, waiting, first=first)
        first, part, waiting = False, following, ahead


Rows = dict[str, Any]


def _ask(engine: AsyncEngine, parts: Iterator[list[Entry]]) -> tuple[list[Entry], asyncio.Task[Rows] | None]:
    part = next(parts, None)
    if not part:
        return [], None
    reading = asyncio.create_task(_read(engine, part))
    reading.add_done_callback(heard)
    return part, reading


async def _read(engine: AsyncEngine, part: Sequence[Entry]) -> Rows:
    return await status.read_many(engine, (entry.number for entry in part if entry.number))


async def _told(part: Sequence[Entry], rows: asyncio.Task[Rows], *, first: bool) -> list[dict[str, Any]]:
    try:
        found = await rows
    except Exception as error:
        if first or not is_lost(error):
            raise
        return [{"number": entry.given, "error": "nothing can be read just now: ask again"} for entry in part]
    return [
        status.answer(found[entry.number], entry.asked)
        if entry.number
        else {"number": entry.given, "error": entry.error}
        for entry in part
    ]


async def _framed(first: list[dict[str, Any]], parts: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """One JSON object around the parts: each is a JSON array whose brackets are cut off."""
    yield b'{"items":[' + dumps(first)[1:-1]
    async for answers in parts:
        yield b"," + dumps(answers)[1:-1]
    yield b"]}"


# Lines -------------------------------------------------------------------------------------------------------------


class Duplex(StreamingResponse):
    """A response that is sent while its request still arrives: Starlette's own listens for the end of the connection,
    and would take the body's parts away meanwhile.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI calls it
        await self.stream_response(send)


async def lines(request: Request) -> Response:
    """NDJSON in, NDJSON out. Whatever has arrived is answered at once, so a caller may also wait for each answer."""
    parts = _lines_answered(request)
    return Duplex(_joined(await anext(parts, b""), parts), media_type=NDJSON)


async def _joined(first: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part


async def _lines_answered(request: Request) -> AsyncIterator[bytes]:
    state, first = request.app.state, True
    try:
        async for arrived in _lines(request):
            for part in _parts(_line_entry(line, state.settings.region) for line in arrived):
                reading = asyncio.create_task(_read(state.reads, part))
                told = await _told(part, reading, first=first)
                yield b"".join(orjson.dumps(one, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for one in told)
                first = False
    except ClientDisconnect:
        return
    except (TimeoutError, NotCompressed) as error:
        detail = "no line came" if isinstance(error, TimeoutError) else str(error)
        if first:
            raise Problem(408 if isinstance(error, TimeoutError) else 400, detail) from error
        yield dumps({"number": None, "error": f"{detail}: the lines behind this one were not read"}) + b"\n"


async def _lines(request: Request) -> AsyncIterator[list[bytes | None]]:
    """The lines that each part of the body completes; None for one that is too long, of which nothing is kept."""
    rest, too_long = b"", False
    async for part in unpacked(request):
        *whole, rest = (rest + part).split(b"\n")
        found: list[bytes | None] = [line if len(line) <= LINE_MOST else None for line in whole]
        if too_long and whole:
            found[0], too_long = None, False
        if len(rest) > LINE_MOST:
            rest, too_long = b"", True
        elif too_long:
            rest = b""
        if found:
            yield [line for line in found if line is None or line.strip()]
    if too_long or rest.strip():
        yield [None if too_long else rest]


def _line_entry(line: bytes | None, region: str) -> Entry:
    if line is None:
        return Entry(None, None, Asked(), f"the line is longer than {LINE_MOST} bytes")
    try:
        said = orjson.loads(line.removeprefix(MARK))
    except orjson.JSONDecodeError:
        return Entry(None, None, Asked(), "the line is not JSON: write a string, or an object with `number`")
    if not isinstance(said, dict):
        return _entry(said, region, Asked())
    try:
        question = api.LineQuestion.model_validate(said)
        asked = asked_of(region, question.sender, question.list)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Entry(_echoed(said.get("number")), None, Asked(), f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except Problem as error:
        return Entry(_echoed(said.get("number")), None, Asked(), str(error))
    return _entry(question.number, region, asked)
