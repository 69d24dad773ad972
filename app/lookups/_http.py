"""What every provider's HTTP has in common: what a status means, how long to wait, when a body is no answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias
from urllib.parse import quote

import orjson

from app.lookups._fields import CANNOT_READ, Said, Unreadable, label, text, why
from app.models.http import HttpAnswer, Options
from app.models.lookup import Failed, Failure, Found

Meaning: TypeAlias = Callable[[int, Said], tuple[Failure, object] | None]
"""What a provider's own error means, by status and body ({} if that is no JSON), and its code. None: as HTTP has it."""
Reader: TypeAlias = Callable[[HttpAnswer, Sequence[str], Options], Mapping[str, Found | Failed]]

OK = frozenset({200, 201, 203})
ACCEPTED, TOO_MANY = 202, 429


class Refused(Exception):
    """The answer itself says that there is no record, and why. Raised by readers, told as `Failed`."""

    def __init__(self, error: Failure, detail: str, retry_after: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.detail = detail
        self.retry_after = retry_after


# A 403 is about our key unless a provider says otherwise: `forbidden` would be remembered, as being about the number.
# A 404 is a wrong address unless a provider says otherwise: `not_found` ends consent in the end.
STATUS: dict[int, Failure] = {
    202: "pending",
    400: "bad_request",
    401: "auth",
    402: "quota",
    403: "auth",
    404: "bad_request",
    407: "auth",
    408: "provider_error",
    425: "provider_error",
    TOO_MANY: "rate_limited",
}


def said(answer: HttpAnswer, meaning: Meaning = lambda _status, _said: None) -> Said:
    """The JSON object of a good answer, whatever its content type claims. Raises Refused, or Unreadable."""
    if answer.status not in OK:
        raise refusal(answer, meaning)
    if answer.cut:
        raise Unreadable("cut short")
    return an_object(json(answer.body))


def refusal(answer: HttpAnswer, meaning: Meaning) -> Refused:
    told = meaning(answer.status, _loose(answer.body))
    error = told[0] if told else _usual(answer.status)
    detail = f"HTTP {answer.status}" + (f", {label(told[1])}" if told else "")
    return Refused(error, detail, wait(answer.headers, limited=error == "rate_limited"))


def _usual(status: int) -> Failure:
    if status in STATUS:
        return STATUS[status]
    return "bad_request" if 300 <= status < 500 else "provider_error"  # noqa: PLR2004


def _loose(body: bytes) -> Said:
    """The body of an error, or nothing: proxies answer in HTML, Syniverse in XML or not at all."""
    try:
        return an_object(json(body))
    except Unreadable:
        return {}


def json(body: bytes) -> object:
    """Any JSON value, without the library's message: that one quotes the place."""
    try:
        return orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise Unreadable("not JSON") from error


def an_object(value: object) -> Said:
    if isinstance(value, dict):
        return value
    raise Unreadable("not an object")


def objects(value: object) -> list[Said]:
    """The objects of a list; null and a missing one are an empty list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unreadable("not a list")
    return [one for one in value if isinstance(one, dict)]


def wait(headers: Mapping[str, str], *, limited: bool = True) -> float | None:
    """Seconds that the provider asks us to wait: `Retry-After` (seconds, or a time against its own clock), else the
    reset of its rate limit where that was reached. Not capped; None where nothing sensible is said.
    """
    for name in ("retry-after", "x-ratelimit-reset", "ratelimit-reset") if limited else ("retry-after",):
        found = _seconds(headers.get(name, ""), _clock(headers))
        if found is not None:
            return found
    return None


_EPOCH = 1e9


def _seconds(value: str, now: datetime | None) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        until = _moment(value)
        seconds = (until - now).total_seconds() if until and now else math.nan
    if seconds > _EPOCH:  # an instant, not a span
        seconds -= now.timestamp() if now else math.inf
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _clock(headers: Mapping[str, str]) -> datetime | None:
    return _moment(headers.get("date", ""))


def _moment(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return at if at.tzinfo else None


# One number, and many -----------------------------------------------------------------------------------------------


def single(found: Callable[[Said, str], Found], meaning: Meaning = lambda _status, _said: None) -> Reader:
    """The reader of a provider that is asked for one number a call."""

    def read(answer: HttpAnswer, numbers: Sequence[str], _: Options) -> Mapping[str, Found | Failed]:
        (number,) = numbers
        return {number: found(said(answer, meaning), number)}

    return read


def each(elements: Iterable[tuple[str, Said]], found: Callable[[Said, str], Found]) -> dict[str, Found | Failed]:
    """Every element of a batch by itself, so that one that cannot be read does not take the others with it."""
    return {number: _attempt(element, number, found) for number, element in elements}


def _attempt(element: Said, number: str, found: Callable[[Said, str], Found]) -> Found | Failed:
    try:
        return found(element, number)
    except Refused as no:
        return Failed(number, no.error, no.detail, no.retry_after)
    except CANNOT_READ as error:
        return Failed(number, "malformed", why(error))


def about(number: str, told: object) -> None:
    """Raises Unreadable where the answer names another number than the one that was asked."""
    named = (text(told) or "").removeprefix("+")
    if named.isdigit() and named != number.removeprefix("+"):
        raise Unreadable("the answer is about another number")


# What is sent -------------------------------------------------------------------------------------------------------


def quoted(value: object) -> str:
    """As a part of a path: a plus sign in a path is a plus sign to some servers, a blank to others."""
    return quote(str(value), safe="")


def now(options: Options) -> datetime:
    """The present, which whoever calls passes in, for requests that sign it."""
    at_ = options.get("now")
    if isinstance(at_, datetime) and at_.tzinfo:
        return at_
    raise ValueError("the request signs its time: pass `now`, with a zone, in the options")
