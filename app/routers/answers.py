"""Answers as this API gives them, JSON with times in UTC (`Z`); and the words that many calls take, read in one way."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.models import api
from app.models.phone import LONGEST_LIST, e164, list_name, sender_id
from app.routers.problems import Problem
from app.services.reading import NEWEST
from app.services.status import Asked

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
EVENTS = "text/event-stream"

PhoneNumber = Annotated[str, Path(description="E.164; a national number is read with the default region",
                                  examples=[api.NUMBER])]  # fmt: skip
Sender = Annotated[str, Path(description="Short code, phone number or name, percent-encoded", examples=["12345"])]
ListName = Annotated[str, Path(max_length=LONGEST_LIST, description="A list of this sender", examples=["spring"])]
Words = Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]+$")]
AFTER = "The `next` of the page before"
AfterId = Annotated[int, Query(ge=1, le=NEWEST, description=AFTER)]
Limit = Annotated[int, Query(ge=1, le=1_000)]


def each(item: dict[str, Any]) -> dict[str, Any]:
    """How the document describes a text of many items. It is OpenAPI 3.1: 3.2 has a word of its own for that."""
    return {"schema": {"type": "string"}, "x-itemSchema": item}


def dumps(body: object) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


def answer(body: object) -> Response:
    return Response(dumps(body), media_type=JSON)


def number_of(region: str, text: str, where: str = "number") -> str:
    try:
        return e164(text, region)
    except ValueError as error:
        raise wrong(where, str(error)) from error


def sender_of(region: str, text: str, where: str = "sender") -> str:
    if _BROKEN in text:
        raise wrong(where, _NOT_UTF_8)
    try:
        return sender_id(text, region)
    except ValueError as error:
        raise wrong(where, str(error)) from error


_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What every byte becomes that is not UTF-8: two names would be one."""
_NOT_UTF_8 = "the name is not UTF-8: percent-encode it as UTF-8"


def list_of(text: str, where: str = "list") -> str:
    if _BROKEN in text:
        raise wrong(where, _NOT_UTF_8)
    try:
        return list_name(text)
    except ValueError as error:
        raise wrong(where, str(error)) from error


def asked_of(region: str, sender: str | None, name: str | None, inside: str = "") -> Asked:
    """A sender, and a list of that sender; `inside`: `/` when they stand in a body. Raises Problem 422."""
    if sender is None:
        if name is not None:
            raise wrong(f"{inside}sender", "a list belongs to a sender: name the sender too")
        return _NOBODY
    own = None if name is None else list_of(name, f"{inside}list")
    return Asked(sender_of(region, sender, f"{inside}sender"), own)


_NOBODY = Asked()


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def past_time(text: str, kept: timedelta, where: str = "as_of") -> datetime:
    """A moment of the history that is kept; a blank stands for the `+` that a query string decoded. Raises Problem."""
    now = datetime.now(UTC)
    try:
        at = datetime.fromisoformat(_RFC_3339.fullmatch(text.replace(" ", "+").upper())[0])  # type: ignore[index] # caught
    except (TypeError, ValueError) as error:
        raise wrong(where, "not a time with its zone: give it as RFC 3339, for example 2026-11-21T18:42:00Z") from error
    if at > now:
        raise wrong(where, "it lies ahead: nobody knows yet what will be answered then")
    if at < now - kept:
        raise wrong(where, f"the history is kept for {kept.days} days: what was answered before is not known any more")
    return at


def wrong(where: str, detail: str) -> Problem:
    """422: `where` is a parameter, or with a slash a pointer into the body."""
    return Problem(422, detail, errors=[{"pointer" if where.startswith("/") else "parameter": where, "detail": detail}])


_ALSO_NDJSON = ("application/ndjson", "application/jsonl")


def media_type(text: str) -> str:
    """Of a header that names one, without its parameters and in its one form."""
    name = text.partition(";")[0].strip().lower()
    return NDJSON if name in _ALSO_NDJSON else name


def wanted(request: Request, *offered: str) -> str:
    """Of the media types on offer the one that the caller likes best, the first named of equals; the first offered when
    none is named.
    """
    ranges = ",".join(request.headers.getlist("accept")).split(",")
    named = [(-_quality(one), place, media_type(one)) for place, one in enumerate(ranges) if media_type(one) in offered]
    liked = [one for one in named if one[0] < 0]
    return min(liked)[2] if liked else offered[0]


def _quality(accepted: str) -> float:
    found = re.search(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", accepted, re.ASCII | re.IGNORECASE)
    return float(found[1]) if found else 1.0
