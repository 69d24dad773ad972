"""What carriers and aggregators tell of numbers by file: deactivated, given up, suspended, back again, moved."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, NamedTuple, TypeAlias

from app.models.http import Call, HttpAnswer, Options

Kind = Literal["DEACT", "TRANSFER", "SUSPEND", "RESUME", "ACTIVATION", "PORT"]
GONE: frozenset[Kind] = frozenset({"DEACT", "TRANSFER"})
"""Kinds that end a number for its subscriber: remembered also of numbers that nobody has spoken of."""
TAKES: frozenset[Kind] = GONE | {"ACTIVATION"}
"""Kinds that may end consent: what a file takes of a list."""
SPACE = "deactivation_feed"
"""The code space of the kinds; `PORT`, of which no feed has a word of its own, is ours."""


class Deactivated(NamedTuple):
    """One record of a file. `at`: a day, or a moment with its zone; None: the day of the file. A tuple, since a file
    has millions of them.

    `number`, `new_number` as the feed wrote them until `feeds.read` makes them E.164. `carrier` is who reports,
    `new_carrier` who serves the number now (of a PORT).
    """

    number: str
    kind: Kind = "DEACT"
    at: date | datetime | None = None
    carrier: str | None = None
    new_number: str | None = None
    new_carrier: str | None = None


Line: TypeAlias = tuple[int, Deactivated | str]
"""The number of a line and a record of it, or why it is none: words that repeat nothing of it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the lines of one file are to be read: what is known of the file beside its bytes.

    `columns`: which column (by its name, or its place from 1 on) holds what, as named in the call. `carrier`: who
    reports, where the file's name tells it. `region`: where national numbers belong.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    carrier: str | None = None
    region: str = "US"


RowReader = Callable[[str | None], Sequence[Deactivated | str]]
"""Reads line after line of one file, and may remember some; None says that the file has ended. What comes back are
records, or why one of them is none; nothing for a heading."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that can be fetched. `key` names it for ever among those of its feed: it is never processed twice.
    `carrier`: who reports, where the listing tells it and the file's name does not.
    """

    key: str
    day: date
    name: str | None = None
    carrier: str | None = None


class Ask(NamedTuple):
    """Send this; the answer comes back."""

    call: Call


class Save(NamedTuple):
    """Send this; the body, however long, is the file, or the next part of it."""

    call: Call


class Write(NamedTuple):
    """These bytes are the next part of the file."""

    body: bytes


class NotYet(Exception):
    """The file is not there yet: to be asked for again later."""


class TooOld(Exception):
    """The file is not there any more."""


class Refused(Exception):
    """The feed does not let us have it. One line: why."""


Listing: TypeAlias = Generator[Ask, HttpAnswer, Sequence[Wanted]]
Download: TypeAlias = Generator[Ask | Save | Write, HttpAnswer, None]


@dataclass(frozen=True, slots=True)
class Source:
    """How a feed's files are fetched. Pure: generators that yield requests and are sent the answers. They may raise
    NotYet, TooOld or Refused, and LookupError, ValueError, TypeError or AttributeError for an answer they cannot read.

    `listing` says what there is of a day, `download` gets one of them. `kept`: how many days back there are files;
    `secrets` are the settings without which it cannot be asked.
    """

    base_url: str
    secrets: tuple[str, ...]
    kept: int
    listing: Callable[[date, Options], Listing]
    download: Callable[[Wanted, Options], Download]


@dataclass(frozen=True, slots=True)
class Feed:
    """One feed: how the lines of its files read, by which names they are known, how they are fetched.

    `names` may have the groups `day` (eight digits, with `-` or `_` between them or not) and `carrier`.
    """

    name: str
    docs: str
    reader: Callable[[Layout], RowReader]
    names: re.Pattern[str] | None = None
    source: Source | None = None
    region: str | None = "US"
    columns: tuple[str, ...] = ()
    """What must be named in the call."""


@dataclass(frozen=True, slots=True)
class Event:
    """A record as it acts. `guard`: an opt-in that is newer is not ended by it; where only a day is told `at` lies at
    its end, so that nothing is sent on a doubt, and `guard` at its beginning, so that nobody is opted out on one.
    """

    number: str
    kind: Kind
    reason: str
    at: datetime
    guard: datetime
    feed: str
    day: date | None = None
    carrier: str | None = None
    new_number: str | None = None
    new_carrier: str | None = None
