"""Telesign's deactivated numbers: a zip a carrier and day, found in a list of files by name."""

from __future__ import annotations

import re
from datetime import date
from urllib.parse import quote

import orjson

from app.feeds._carriers import NAMES
from app.feeds._fetch import refused
from app.feeds._fields import Unreadable, table
from app.models.feed import Ask, Download, Feed, Listing, Save, Source, Wanted
from app.models.http import Call, Options, address

BASE = "https://deact-api.telesign.com"


def listing(day: date, options: Options) -> Listing:
    answer = yield Ask(Call("GET", address(options, BASE, "/files"), basic=_key(options)))
    refused(answer)
    names = sorted({*_names(orjson.loads(answer.body))})
    return [Wanted(name, day, name) for name in names if f"{day:%Y%m%d}" in name]


def download(wanted: Wanted, options: Options) -> Download:
    yield Save(Call("GET", address(options, BASE, f"/download/{quote(wanted.key, safe='')}"), basic=_key(options)))


def _key(options: Options) -> tuple[str, str]:
    return options["customer_id"], options["api_key"]


_NAME = re.compile(r"[\w.-]+-deacts?[\w.-]*_\d{8}[\w.-]*", re.ASCII)


def _names(said: object) -> list[str]:
    """File names wherever they stand: how the list is wrapped is told differently in different places."""
    if isinstance(said, str):
        return [said] if _NAME.fullmatch(said) else []
    if isinstance(said, dict):
        said = [*said.values()]
    if isinstance(said, list):
        return [name for one in said for name in _names(one)]
    if said is None or isinstance(said, int | float):
        return []
    raise Unreadable("no list of files")


feed = Feed(
    name="telesign",
    docs="https://developer.telesign.com/enterprise/docs/deactivated-numbers",
    reader=table,
    names=NAMES,
    source=Source(BASE, ("customer_id", "api_key"), kept=30, listing=listing, download=download),
)
