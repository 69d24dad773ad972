"""Twilio's Deactivations: the American numbers of a day, one a line, behind a link that is good for two minutes."""

from __future__ import annotations

from datetime import date
from urllib.parse import urljoin

import orjson

from app.feeds._fetch import refused
from app.feeds._fields import Unreadable, numbers
from app.models.feed import Ask, Download, Feed, Listing, NotYet, Save, Source, TooOld, Wanted
from app.models.http import Call, HttpAnswer, Options, address

BASE = "https://messaging.twilio.com"
KEPT = 365
"""Twilio has every day since 2020-08-27: a year of them is more than anybody is away."""
TOO_OLD, NOT_READY = "30113", "30114"
REDIRECTS = frozenset({301, 302, 303, 307, 308})


def listing(day: date, _: Options) -> Listing:
    yield from ()
    return [Wanted(day.isoformat(), day, f"deactivations-{day}.txt")]


def download(wanted: Wanted, options: Options) -> Download:
    call = Call(
        "GET", address(options, BASE, "/v1/Deactivations"), params=(("Date", wanted.day.isoformat()),),
        basic=(options["account_sid"], options["auth_token"]),
    )  # fmt: skip
    answer = yield Ask(call)
    yield Save(Call("GET", _link(answer, call.url)))  # signed by itself: our credentials stay here


def _link(answer: HttpAnswer, asked: str) -> str:
    """Where the file is: in the redirect's own header, else in its body."""
    if answer.status in REDIRECTS and (place := answer.headers.get("location")):
        return urljoin(asked, place)
    said = _said(answer.body)
    code = str(said.get("code"))
    if code == TOO_OLD:
        raise TooOld
    if code == NOT_READY:
        raise NotYet
    link = said.get("redirect_to")
    if (answer.status in REDIRECTS or answer.status == 200) and isinstance(link, str):  # noqa: PLR2004
        return urljoin(asked, link)
    refused(answer, code if said.get("code") else None)
    raise Unreadable("neither a link to the file nor an error")


def _said(body: bytes) -> dict[str, object]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


feed = Feed(
    name="twilio",
    docs="https://www.twilio.com/docs/messaging/api/deactivations-resource",
    reader=numbers,
    source=Source(BASE, ("account_sid", "auth_token"), kept=KEPT, listing=listing, download=download),
)
