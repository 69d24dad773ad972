"""Vonage's US Number Deactivation File: a zip a day, ready after 02:00 UTC of the next day, kept for 31 days."""

from __future__ import annotations

from datetime import date

from app.feeds._fields import table
from app.models.feed import Download, Feed, Listing, Save, Source, Wanted
from app.models.http import Call, Options, address

BASE = "https://api.nexmo.com"


def listing(day: date, _: Options) -> Listing:
    yield from ()
    return [Wanted(day.isoformat(), day, f"deactivations-{day}.zip")]


def download(wanted: Wanted, options: Options) -> Download:
    yield Save(Call(
        "GET", address(options, BASE, "/v1/numbers/deactivations"), params=(("date", wanted.day.isoformat()),),
        basic=(options["api_key"], options["api_secret"]),
    ))  # fmt: skip


feed = Feed(
    name="vonage",
    docs="https://developer.vonage.com/en/messaging/sms/guides/us-numbers-deactivation",
    reader=table,  # what is inside the zip is not documented: a list and a table are read
    source=Source(BASE, ("api_key", "api_secret"), kept=31, listing=listing, download=download),
)
