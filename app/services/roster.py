"""Reads files of subscribers, purely: bytes in, opt-ins and wrong lines out. CSV with a heading, or NDJSON.

A line is a record: of a file that breaks in the middle of one, every line before it has been read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from app.models.number import OptIn
from app.models.opt_in import Place, SubscriberLine
from app.models.phone import e164, list_name, sender_id
from app.services.decide import AHEAD

LINE_MOST = 8 * 1024
"""Bytes of one line: a number and a kilobyte each of source and evidence, in any script."""
NEEDED = ("number", "consented_at")
EXAMPLE = "number,consented_at,source,evidence"


class NotARoster(ValueError):
    """Nothing of the file can be read. One line: why, and how to mend it."""


class Given(NamedTuple):
    """One line that is an opt-in."""

    line: int
    place: Place
    opt_in: OptIn


class Wrong(NamedTuple):
    """One line that is none: what to mend. It repeats nothing that the line holds."""

    line: int
    detail: str


@dataclass(frozen=True, slots=True)
class Usual:
    """What holds where a line says nothing. `only`: a line that names another sender or list is wrong."""

    sender: str | None = None
    list: str | None = None
    source: str | None = None
    region: str = "US"
    only: bool = False


@dataclass(slots=True)
class Roster:
    """A file that is being read. `line`: the last one that was complete."""

    usual: Usual
    now: datetime
    line: int = 0
    columns: list[str] | None = None
    delimiter: str = ","
    is_json: bool | None = None
    _rest: bytes = b""
    _too_long: bool = False

    def read(self, part: bytes) -> Iterator[Given | Wrong]:
        """What the lines say that this part of the file completes. Raises NotARoster for a heading that is none."""
        *whole, rest = (self._rest + part).split(b"\n")
        for line in whole:
            yield from self._line(line)
        self._rest = rest
        if len(rest) > LINE_MOST:
            self._rest, self._too_long = b"", True

    def end(self) -> Iterator[Given | Wrong]:
        """What the last line says, when nothing ends it."""
        if self._rest or self._too_long:
            last, self._rest = self._rest, b""
            yield from self._line(last)

    def _line(self, raw: bytes) -> Iterator[Given | Wrong]:
        self.line += 1
        too_long, self._too_long = self._too_long or len(raw) > LINE_MOST, False
        if too_long:
            yield Wrong(self.line, f"the line is longer than {LINE_MOST} bytes: shorten its evidence")
            return
        if self.line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw.strip():
            return
        try:
            said = self._said(raw)
            if said is not None:
                yield self._given(said)
        except (ValueError, csv.Error) as error:
            if isinstance(error, NotARoster):
                raise
            yield Wrong(self.line, _why(error))

    def _said(self, raw: bytes) -> Mapping[str, Any] | None:
        """A line as names and values; None for the heading."""
        if self.is_json is None:
            self.is_json = raw.lstrip().startswith(b"{")
        if self.is_json:
            return _object(raw)
        text = _text(raw)
        if self.columns is None:
            self.delimiter, self.columns = _heading(text)
            return None
        cells = next(csv.reader([text], delimiter=self.delimiter, strict=True))
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells where the heading has {len(self.columns)}: quote what holds a comma")
        return {name: cell for name, cell in zip(self.columns, map(str.strip, cells), strict=True) if cell}

    def _given(self, said: Mapping[str, Any]) -> Given:
        read = SubscriberLine.model_validate({"source": self.usual.source, **said} if self.usual.source else said)
        if read.consented_at > self.now + AHEAD:
            raise ValueError("consented_at: lies ahead; give the moment at which the person agreed")
        number = e164(read.number, self.usual.region)
        sender = self._one_of("sender", read.sender and sender_id(read.sender, self.usual.region))
        list_ = list_name(self._one_of("list", read.list))
        at = read.consented_at.astimezone(UTC)
        return Given(self.line, Place(number, sender, list_), OptIn(at, read.source, read.evidence))

    def _one_of(self, what: str, said: str | None) -> str:
        usual: str | None = getattr(self.usual, what)
        if said is None and usual is None:
            raise ValueError(f"{what}: missing; name it in the line, or one for all lines with --{what}")
        if self.usual.only and said is not None and said != usual:
            raise ValueError(f"{what}: another one than this call is for; send these lines to their own")
        return said if said is not None else str(usual)


def _heading(text: str) -> tuple[str, list[str]]:
    delimiter = max(",;\t", key=text.count)
    columns = [cell.strip().lower() for cell in next(csv.reader([text], delimiter=delimiter))]
    if missing := [name for name in NEEDED if name not in columns]:
        raise NotARoster(
            f"the first line names no column `{missing[0]}`: begin the file with a heading such as {EXAMPLE}"
        )
    if len({*columns}) < len(columns):
        raise NotARoster("the first line names a column twice: name each once")
    return delimiter, columns


def _object(raw: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError("not JSON: write one object a line") from error
    if not isinstance(said, dict):
        raise ValueError("not a JSON object: write one a line")  # noqa: TRY004 - one kind of wrong line
    return said


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8: save the file as UTF-8") from error


def _why(error: Exception) -> str:
    if isinstance(error, csv.Error):
        return "a quote is not closed on this line: keep each record on one line"
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"
