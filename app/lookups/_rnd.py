"""The FCC's Reassigned Numbers Database: was this number permanently disconnected since the date of its consent?

It names no carrier, so it is no provider as the others of this folder: it is asked for (number, date) pairs, and what
it says is evidence. The API was not documented in public when this was written; what stands here is how two programs
that use it speak (an id token for a refresh token, then up to a thousand pairs a call). The file has no heading: ten
digits and a date a line. What comes back is read by what its cells look like, with or without a heading.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

import orjson

from app.models.http import Call, HttpAnswer, Options, address
from app.models.phone import NANP

BASE = "https://api.reassigned.us"
AT_ONCE = 1_000
"""Pairs in one call."""
FILE_MOST = 250_000
"""Lines in one file."""
LINE_MOST = 10_000
"""Characters of a line that came back; of a longer one no more is looked at."""
OLDEST = date(2021, 1, 27)
"""Since when carriers have kept disconnections: for an older date a number that is not in it is `no_data`."""
OK = 200

Told = Literal["yes", "no", "no_data"]
_TOLD: Mapping[str, Told] = {
    "yes": "yes", "y": "yes", "true": "yes", "1": "yes", "no": "no", "n": "no", "false": "no", "0": "no",
    "no_data": "no_data", "nodata": "no_data", "no data": "no_data", "null": "no_data",
}  # fmt: skip


class Asked(NamedTuple):
    """A number in E.164 and the date of the consent that is in question."""

    number: str
    consented_on: date


class Unclear(ValueError):
    """The answer cannot be used: in words without a number and without a secret."""


def covers(number: str) -> bool:
    """Only numbers of the North American plan are in it."""
    return NANP.fullmatch(number) is not None


# The API -----------------------------------------------------------------------------------------------------------


def sign_in(options: Options) -> Call:
    url = address(options, BASE, "/b/public/api/idToken")
    return Call("POST", url, json={"refreshToken": options["refresh_token"]})


def id_token(answer: HttpAnswer) -> str:
    """The token that the next calls carry. Raises Unclear."""
    token = _said(answer, "signing in").get("idToken")
    if not isinstance(token, str) or not token:
        raise Unclear("signing in: the answer has no idToken")
    return token


def build(asked: Sequence[Asked], token: str, options: Options) -> Call:
    company = options["company_id"]
    pairs = [{"tn": one.number[2:], "date": one.consented_on.isoformat(), "companyId": company} for one in asked]
    return Call("POST", address(options, BASE, "/api/tn"), headers={"Authorization": token}, json={"tnList": pairs})


def read(answer: HttpAnswer, asked: Sequence[Asked]) -> dict[Asked, Told]:
    """What was said of each pair; one of which nothing was said, or nothing clear, is left out. Raises Unclear."""
    replies = _said(answer, "asking").get("replies")
    if not isinstance(replies, list):
        raise Unclear("asking: the answer has no replies")
    told: dict[Asked, set[Told]] = {}
    for reply in replies:
        if isinstance(reply, dict) and (word := _word(reply.get("disconnected"))):
            for one in _matching(reply, asked):
                told.setdefault(one, set()).add(word)
    return {one: words.pop() for one, words in told.items() if len(words) == 1}


def _matching(reply: Mapping[str, Any], asked: Sequence[Asked]) -> list[Asked]:
    """Which questions a reply is to: by number, and by the date where it repeats one."""
    digits, on = re.sub("[^0-9]", "", str(reply.get("tn", "")))[-10:], _day(str(reply.get("dateProvided") or ""))
    return [one for one in asked if one.number[2:] == digits and on in {None, one.consented_on}]


def _said(answer: HttpAnswer, what: str) -> dict[str, Any]:
    if answer.status != OK or answer.cut:
        raise Unclear(f"{what}: HTTP {answer.status}" + (", cut short" if answer.cut else ""))
    try:
        said = orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise Unclear(f"{what}: the answer is not JSON") from error
    if not isinstance(said, dict):
        raise Unclear(f"{what}: the answer is no object")
    return said


def _word(said: object) -> Told | None:
    return _TOLD.get(str(said).strip().lower())


# The file ----------------------------------------------------------------------------------------------------------


class Answered(NamedTuple):
    """One line of a file that came back."""

    line: int
    asked: Asked
    told: Told


class Unread(NamedTuple):
    """One that says nothing, and why."""

    line: int
    detail: str


def line_of(asked: Asked) -> str:
    """A line of the file that is handed in."""
    return f"{asked.number[2:]},{asked.consented_on.isoformat()}\n"


def answers(lines: Iterable[str]) -> Iterator[Answered | Unread]:
    """A file that came back: the number, the date and the answer are known by their looks, whatever the order. A first
    line without a number is a heading.
    """
    for place, line in enumerate(lines, 1):
        said = [cell.strip() for cell in _cells(line) if cell.strip()]
        number = next((found for cell in said if (found := _number(cell))), None)
        on = next((day for cell in said if (day := _day(cell))), None)
        word = next((told for cell in said if not cell.isdigit() and (told := _word(cell))), None)
        if number and on and word:
            yield Answered(place, Asked(number, on), word)
        elif said and (place > 1 or number):
            missing = "number of ten digits" if not number else "date" if not on else "answer (yes, no, no_data)"
            yield Unread(place, f"the line has no {missing}")


def _cells(line: str) -> list[str]:
    """A line by itself: a quotation mark that never ends must not swallow the lines behind it."""
    return next(csv.reader([line[:LINE_MOST]]), [])


def _number(cell: str) -> str | None:
    digits = re.sub(r"[\s().+-]", "", cell)
    return f"+1{digits[-10:]}" if re.fullmatch("1?[0-9]{10}", digits, re.ASCII) else None


def _day(text: str) -> date | None:
    for pattern, order in ((r"(\d{4})-(\d\d)-(\d\d)(?:T.*)?", (1, 2, 3)), (r"(\d{4})(\d\d)(\d\d)", (1, 2, 3)),
                           (r"(\d\d?)/(\d\d?)/(\d{4})", (3, 1, 2))):  # fmt: skip
        if found := re.fullmatch(pattern, text, re.ASCII):
            try:
                year, month, day = (int(found[place]) for place in order)
                return date(year, month, day)
            except ValueError:
                return None
    return None
