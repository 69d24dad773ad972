"""The deactivation feeds. The folder is the registry: every module here that does not start with `_` is one of them.

`read` turns the lines of a file into records. Pure: lines in, values out. It is the one boundary: readers are written
in a straight line, and whatever they trip over becomes a broken line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

from app.feeds._fetch import refused
from app.feeds._fields import CANNOT_READ, COLUMNS, Unreadable, moment, numbers, why
from app.models.feed import Deactivated, Feed, Layout, Line
from app.models.phone import e164

__all__ = ["CANNOT_READ", "COLUMNS", "FEEDS", "known_by", "read", "refused", "why"]


def _found() -> dict[str, Feed]:
    modules = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    return {name.replace("_", "-"): import_module(f"{__name__}.{name}").feed for name in modules}


FEEDS: dict[str, Feed] = _found()

_TEN = re.compile(r"1?([2-9][0-9]{9})", re.ASCII)
_IN_FULL = len("+15555551234")
_AMERICAN = frozenset({"US", "CA"})
_slowly = e164.__wrapped__  # a file's numbers come once: keeping them would only push out others'


def read(feed: Feed, lines: Iterable[str | None], layout: Layout) -> Iterator[Line]:
    """Every record with the number of its line, and every line that is none with the reason. None stands for a line
    that was too long to be kept.
    """
    row, ten, carrier = feed.reader(layout), _TEN.fullmatch, layout.carrier
    region = feed.region or layout.region
    listed = feed.reader is numbers and region in _AMERICAN
    place, quick = 0, False
    for place, line in enumerate(lines, 1):
        if quick and line and (found := ten(line)):  # a list in full flow: a seventh of the time of what follows
            yield place, Deactivated("+1" + found[1], "DEACT", None, carrier)
            continue
        if line is None:
            yield place, "longer than a line may be"
            continue
        try:
            records = row(line)
        except CANNOT_READ as error:
            yield place, why(error)
            continue
        quick = quick or (listed and bool(records))
        for record in records:
            yield place, _finished(record, region)
    for left in row(None):
        yield place, _finished(left, region)


def _finished(record: Deactivated | str, region: str) -> Deactivated | str:
    if isinstance(record, str):
        return record
    try:
        number = _number(record.number, region)
        new = record.new_number and _number(record.new_number, region)
        return Deactivated(number, record.kind, record.at, record.carrier, new, record.new_carrier)
    except ValueError:
        return "not a possible phone number"


def _number(text: str, region: str) -> str:
    """Ten digits, or a 1 and ten digits, of the North American plan need no library: those are almost all there are."""
    if region in _AMERICAN and (found := _TEN.fullmatch(text)):
        return "+1" + found[1]
    number = _slowly(text, region)
    if number.startswith("+1") and len(number) != _IN_FULL:  # the library takes seven digits for a local number
        raise ValueError
    return number


class Known(NamedTuple):
    """What a file's name tells."""

    feed: Feed
    day: date | None = None
    carrier: str | None = None


def known_by(name: str) -> Known | None:
    """The feed whose files have such names; the first one in the order of their names where several have."""
    for feed in FEEDS.values():
        if feed.names and (found := feed.names.search(name)):
            told = found.groupdict()
            return Known(feed, _day(told.get("day")), told.get("carrier"))
    return None


def _day(text: str | None) -> date | None:
    try:
        return moment(text) if text else None
    except Unreadable:
        return None
