"""A person's opt-in as it is given: by one call, or as a line of a file."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)


def clean(text: str) -> str:
    """Words that say something, and that PostgreSQL can keep. Raises ValueError."""
    if "\0" in text or not text.strip():
        raise ValueError("must not be blank, nor hold NUL characters")
    return text


_A_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _written_out(value: object, read: ValidatorFunctionWrapHandler) -> datetime:
    """Pydantic would also take a number, as seconds since 1970: nobody means that by a time here. Its own words for a
    time without a zone do not say what to write.
    """
    try:
        if isinstance(value, str) and _A_DAY.match(value):
            at: datetime = read(value)
            return at
    except ValidationError:
        pass
    raise ValueError("give a time with its zone, for example 2026-11-21T18:42:07Z")


def _of_our_time(at: datetime) -> datetime:
    """In UTC. The driver takes the first day there is for minus infinity, and fails on what lies before it by UTC."""
    if not OLDEST <= at < NEWEST:
        raise ValueError("lies before 1900 or after 9998: give the moment at which it happened")
    return at.astimezone(UTC)


_LOST_PLUS = re.compile(r"(T\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (\d\d:?\d\d)", re.ASCII | re.IGNORECASE)


def _plus_again(value: object) -> object:
    return _LOST_PLUS.sub(r"\1+\2", value) if isinstance(value, str) else value


OLDEST, NEWEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
Moment = Annotated[AwareDatetime, WrapValidator(_written_out), AfterValidator(_of_our_time)]
InQuery = BeforeValidator(_plus_again)
"""For a moment in a query: a `+` that is not encoded arrives as a blank."""
Words = Annotated[str, Field(max_length=1024), AfterValidator(clean)]


class Place(NamedTuple):
    """Whose consent, and where: number and sender in their one form."""

    number: str
    sender: str
    list: str


class OptInCall(BaseModel):
    """The person's consent: when it was given, where, and what proves it."""

    consented_at: Moment
    source: Words = Field(examples=["web form"])
    evidence: Words | None = Field(None, examples=["form 7f3a, address kept with it"])


class SubscriberLine(OptInCall):
    """One line of a file of subscribers. `sender`, `list`: where the call or command does not say so."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    number: str = Field(examples=["+15555551234"])
    sender: str | None = Field(None, examples=["12345"])
    list: str | None = Field(None, examples=["spring"])
