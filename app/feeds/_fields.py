"""Reading what feeds write: cells, kinds, days, and tables whose columns go by many names."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache

from app.models.feed import Deactivated, Kind, Layout, RowReader


class Unreadable(ValueError):
    """A line that is no record. Its words never repeat what was received."""


CANNOT_READ = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, csv.Error)
"""What a reader may trip over."""


def why(error: Exception) -> str:
    """Our own words, or the kind of error alone: other messages may repeat a number."""
    return str(error) if isinstance(error, Unreadable) else f"unexpected shape ({type(error).__name__})"


KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("deact", "deactivation", "deactivated", "deactivate", "disconnect", "disconnected", "d"), "DEACT"),
    **dict.fromkeys(("transfer", "transferred", "numberchange", "numberchanged"), "TRANSFER"),
    **dict.fromkeys(("suspend", "suspended", "suspension", "s"), "SUSPEND"),
    **dict.fromkeys(("resume", "resumed", "reactivation", "reactivated", "r"), "RESUME"),
    **dict.fromkeys(("activation", "activated", "activate"), "ACTIVATION"),
    **dict.fromkeys(("port", "ported", "portout", "portedout", "portin"), "PORT"),
}  # fmt: skip


@lru_cache(maxsize=1_024)
def kind_of(word: str) -> Kind:
    """What happened, in the words of any feed: without case, blanks, `-` and `_`."""
    kind = KINDS.get(re.sub(r"[\s_-]+", "", word).lower())
    if kind is None:
        raise Unreadable("an unknown kind of record: DEACT, TRANSFER, SUSPEND, RESUME, ACTIVATION and PORT are known")
    return kind


_DAY = re.compile(r"(\d{4})[-_/]?(\d\d)[-_/]?(\d\d)", re.ASCII)
_AMERICAN = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)


@lru_cache(maxsize=4_096)
def moment(text: str) -> date | datetime | None:
    """A moment with its zone, else the day alone: a time whose zone nobody tells is not trusted."""
    text = text.strip()
    if not text:
        return None
    if found := _AMERICAN.match(text):
        month, day, year = map(int, found.groups())
        return _day(year, month, day)
    if len(text) > len("2026-11-20") and (at := _moment(text)) and at.tzinfo:
        return at
    if found := _DAY.match(text):
        return _day(*map(int, found.groups()))
    raise Unreadable("not a date: write it as 2026-11-20, or with a time and its zone")


def _moment(text: str) -> datetime | None:
    zone = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text)
    try:
        return datetime.fromisoformat(zone)
    except ValueError:
        return None


def _day(year: int, month: int, day: int) -> date:
    try:
        return date(year, month, day)
    except ValueError as error:
        raise Unreadable("not a date: write it as 2026-11-20, or with a time and its zone") from error


# One number a line ---------------------------------------------------------------------------------------------------


def numbers(layout: Layout) -> RowReader:
    """One number a line. A first line without digits is a heading."""
    carrier = layout.carrier
    first = True

    def read(line: str | None) -> Sequence[Deactivated]:
        nonlocal first
        text = (line or "").strip(' \t\r\n",;')
        heading, first = first, False
        if not text or (heading and not any(map(str.isdecimal, text))):
            return ()
        return (Deactivated(text, carrier=carrier),)

    return read


# Tables --------------------------------------------------------------------------------------------------------------

ALIASES: Mapping[str, str] = {
    **dict.fromkeys(("number", "mdn", "msisdn", "phone", "phonenumber", "destination", "destinationphonenumber", "tn",
                     "telephonenumber", "mobile", "mobilenumber", "phonenumbers", "deactivatednumber", "ctn"), "number"),
    **dict.fromkeys(("kind", "type", "event", "eventtype", "recordtype", "state", "status", "action", "reason"), "kind"),
    **dict.fromkeys(("date", "at", "effectivedate", "effectiveat", "deactivationdate", "eventdate", "timestamp",
                     "deactivatedat", "disconnectdate"), "date"),
    **dict.fromkeys(("carrier", "carriername", "carriercode", "operator", "operatorid", "network"), "carrier"),
    **dict.fromkeys(("newnumber", "newmdn", "newmsisdn", "newdestination"), "new_number"),
    **dict.fromkeys(("newcarrier", "newoperator", "newnetwork"), "new_carrier"),
}  # fmt: skip
"""The names under which feeds have these columns, without case, blanks and signs."""
COLUMNS = ("number", "kind", "date", "carrier", "new_number", "new_carrier")
_DELIMITERS = ("\t", ";", "|", ",")


def table(layout: Layout) -> RowReader:
    """A table, its columns in any order, by the names in its first line or by those of the call. A first line that
    holds a number is none of names: then the number stands first, unless the call says otherwise.
    """
    places: dict[str, int] = {}
    delimiter = ","

    def read(line: str | None) -> Sequence[Deactivated]:
        nonlocal delimiter
        if not line or line.isspace():
            return ()
        if not places:
            delimiter = next((sign for sign in _DELIMITERS if sign in line), ",")
            cells = _cells(line, delimiter)
            heading = not any(map(_looks_like_a_number, cells))
            places.update(_places(cells if heading else None, layout.columns))
            if heading:
                return ()
        return (_record(_cells(line, delimiter), places, layout),)

    return read


def _cells(line: str, delimiter: str) -> list[str]:
    """A line by itself: a quotation mark that never ends must not swallow the lines behind it."""
    if '"' in line:
        return next(csv.reader([line], delimiter=delimiter))
    return line.rstrip("\r\n").split(delimiter)


def _looks_like_a_number(cell: str) -> bool:
    return len(re.sub(r"\D", "", cell)) >= 10 and not re.search(r"[A-Za-z]", cell)  # noqa: PLR2004 - digits in full


def _places(names: Sequence[str] | None, wanted: Mapping[str, str]) -> dict[str, int]:
    plain = {_plain(name): place for place, name in reversed([*enumerate(names or ())])}
    found: dict[str, int] = {}
    for column, name in wanted.items():
        if name.isdecimal():
            found[column] = int(name) - 1
        elif _plain(name) in plain:
            found[column] = plain[_plain(name)]
        else:
            raise Unreadable("the first line has no column of a name that the call gives")
    if not wanted:
        found = {ALIASES[name]: place for name, place in reversed([*plain.items()]) if name in ALIASES}
    if names is None and not wanted:
        return {"number": 0}
    if "number" not in found:
        if names is not None and len(names) == 1:
            return found | {"number": 0}
        raise Unreadable("no column is known to hold the number: name it in the call, as `number=…`")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower().removeprefix("\ufeff"))


def _record(cells: Sequence[str], places: Mapping[str, int], layout: Layout) -> Deactivated:
    def cell(column: str) -> str:
        place = places.get(column)
        return cells[place].strip() if place is not None and place < len(cells) else ""

    number = cell("number")
    if not number:
        raise Unreadable("no number in its column")
    kind = kind_of(cell("kind")) if "kind" in places else "DEACT"
    return Deactivated(
        number, kind, moment(cell("date")), cell("carrier") or layout.carrier, cell("new_number") or None,
        cell("new_carrier") or None,
    )  # fmt: skip
