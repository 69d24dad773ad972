"""Reading what feeds write: cells, kinds, days, and tables whose columns go by many names."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
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

_WORDS = re.compile(r"[A-Za-z_ .-]{1,40}", re.ASCII)
NO_HEADING = "a first line that names no column that is known, and nothing behind it"
"""`null`, a page that says that there is none: only records behind it would make it a heading. Known names by
themselves are a quiet day.
"""


def numbers(layout: Layout) -> RowReader:
    """One number a line. A first line that is a few words is a heading."""
    carrier = layout.carrier
    first, doubtful = True, False

    def read(line: str | None) -> Sequence[Deactivated | str]:
        nonlocal first, doubtful
        if line is None:
            return (NO_HEADING,) if doubtful else ()
        text = line.strip(' \t\r\n",;')
        if not text:
            return ()
        heading, first = first, False
        doubtful = heading and _WORDS.fullmatch(text) is not None
        if doubtful:
            doubtful = _plain(text) not in ALIASES
            return ()
        return (Deactivated(text, carrier=carrier),)

    return read


# Tables --------------------------------------------------------------------------------------------------------------

_NAMES = {
    "number": (
        "number", "mdn", "msisdn", "phone", "phone number", "destination", "destination phone number", "tn", "ctn",
        "telephone number", "mobile", "mobile number", "phone numbers", "deactivated number",
    ),
    "kind": ("kind", "type", "event", "event type", "record type"),
    "date": (
        "date", "at", "effective", "effective date", "effective at", "deactivation date", "event date", "timestamp",
        "deactivated at", "disconnect date",
    ),
    "carrier": ("carrier", "carrier name", "carrier code", "operator", "operator id", "network"),
    "new_number": ("new number", "new mdn", "new msisdn", "new destination"),
    "new_carrier": ("new carrier", "new operator", "new network"),
}  # fmt: skip
"""The names under which feeds have these columns, without case and signs."""
COLUMNS = tuple(_NAMES)
Names = Mapping[str, str]
ALIASES: Names = {name.replace(" ", ""): column for column, names in _NAMES.items() for name in names}
TYPED: Names = {**ALIASES, **dict.fromkeys(("state", "status", "action"), "kind")}
_DELIMITERS = ("\t", ";", "|", ",")
_HOLDS_ONE = re.compile(r"\d{10}", re.ASCII)
_FULL, _LEAST = 10, 7
"""Digits of a number of the North American plan, and the fewest of those that people have elsewhere."""


def table(layout: Layout) -> RowReader:
    """A table, its columns in any order, by the names in its first line or by those of the call."""
    return _table(layout, ALIASES)


def typed(layout: Layout) -> RowReader:
    """The same of records that say what happened: each must have its kind."""
    return _table(layout, TYPED, needs=("kind",))


def _table(layout: Layout, aliases: Names, needs: Sequence[str] = ()) -> RowReader:
    """A first line that holds a number is none of names: what stands where is then seen by what it looks like. One of
    names may come again, where several tables lie in a zip.
    """
    places: dict[str, int] = {}
    delimiter, doubtful, names = ",", False, ""
    least = _FULL if layout.region in {"US", "CA"} else _LEAST

    def read(line: str | None) -> Sequence[Deactivated | str]:
        nonlocal delimiter, doubtful, names
        if line is None:
            return (NO_HEADING,) if doubtful else ()
        if line in ("", names) or line.isspace():
            return ()
        doubtful = False
        if not places:
            delimiter = next((sign for sign in _DELIMITERS if sign in line), ",")
            cells = _cells(line, delimiter)
            heading = not any(_is_number(cell, least) or _HOLDS_ONE.search(cell) for cell in cells)
            found = _named(cells, layout.columns, aliases) if heading else _seen(cells, layout.columns)
            if lacking := [column for column in ("number", *needs) if column not in found]:
                raise Unreadable(f"no column is known to hold the {lacking[0]}: name it, as `{lacking[0]}=…`")
            places.update(found)
            if heading:
                names = line
                doubtful = not {*map(_plain, cells)} & {*aliases, *map(_plain, layout.columns.values())}
                return ()
        return (_record(_cells(line, delimiter), places, layout),)

    return read


def _cells(line: str, delimiter: str) -> list[str]:
    """A line by itself: a quotation mark that never ends must not swallow the lines behind it."""
    if '"' in line:
        return next(csv.reader([line], delimiter=delimiter))
    return line.split(delimiter)


def _is_number(cell: str, least: int = _FULL) -> bool:
    return len(re.sub(r"\D", "", cell)) >= least and re.fullmatch(r"[\d\s+().-]+", cell) is not None


def _named(names: Sequence[str], wanted: Mapping[str, str], aliases: Names) -> dict[str, int]:
    """Columns by a first line of names; of two with one meaning the first."""
    plain = {_plain(name): place for place, name in reversed([*enumerate(names)])}
    if wanted:
        return {column: _place(name, plain) for column, name in wanted.items()}
    known = sorted(((place, aliases[name]) for name, place in plain.items() if name in aliases), reverse=True)
    return {column: place for place, column in known} or ({"number": 0} if len(names) == 1 else {})


def _place(name: str, plain: Mapping[str, int]) -> int:
    if name.isdecimal():
        return int(name) - 1
    if _plain(name) not in plain:
        raise Unreadable("the first line has no column of a name that `columns` gives")
    return plain[_plain(name)]


def _seen(cells: Sequence[str], wanted: Mapping[str, str]) -> dict[str, int]:
    """Columns of a table without names: by place, or by what the first record looks like."""
    if wanted:
        return {column: _place(name, {}) for column, name in wanted.items()}
    if len(cells) == 1:
        return {"number": 0}
    looks: Mapping[str, Callable[[str], bool]] = {"number": _is_number, "kind": _is_kind, "date": _is_day}
    found: dict[str, int] = {}
    for column, looks_like in looks.items():
        place = next((p for p, cell in enumerate(cells) if p not in found.values() and looks_like(cell.strip())), None)
        if place is not None:
            found[column] = place
    return found


def _is_kind(cell: str) -> bool:
    return re.sub(r"[\s_-]+", "", cell).lower() in KINDS


def _is_day(cell: str) -> bool:
    return bool(_DAY.match(cell) or _AMERICAN.match(cell))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


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
