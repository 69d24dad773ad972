"""How values become rows, and rows values again. Nothing else in the house turns JSON of facts into ours and back.

Narrow rows go in as one array a column; `$1::text[]` and so on stand in the columns' order. Wide ones go in as one JSON
array of objects, named as their columns: an element of an array costs this side 0.3 µs, a member a tenth of it. A large
member stays out of it, as an array of texts beside the rows: PostgreSQL reads each member three times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.json import Decoder, Encoder
from pydantic import TypeAdapter

from app.models.feed import Event
from app.models.lookup import Found
from app.models.number import Carrier, Cause, Fact, Number, OptIn, Step

_FOUND = TypeAdapter(Found)
number_of = Decoder(Number).decode
event_of = Decoder(Event).decode
steps_of = Decoder(tuple[Step, ...]).decode
carrier_of = Decoder(Carrier).decode
cause_of = Decoder(Cause).decode
_encode = Encoder().encode


def encoded(value: object) -> str:
    """As JSON, as it is stored."""
    return _encode(value).decode()


class ListFacts(NamedTuple):
    """What is said of one list itself: its newest opt-in and its newest opt-out."""

    opted_in: OptIn | None = None
    out: Fact | None = None


list_of = Decoder(ListFacts).decode


def columns(rows: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    """Rows turned into one array a column, as `unnest` takes them."""
    return zip(*rows, strict=True)


def objects(rows: Sequence[Struct]) -> str:
    """Rows as one JSON array of objects, as `json_to_recordset` takes them. What is at its default may be left out."""
    return encoded(rows)


def cause_json(cause: Cause) -> str:
    return encoded(cause)


def found_json(found: Found) -> str:
    return _FOUND.dump_json(found, exclude_defaults=True).decode()


def found_of(json: str) -> Found:
    return _FOUND.validate_json(json)
