"""What people watch, decide and bring in."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal

from pydantic import BaseModel, Field

from app.models.api.fields import Long, Next, NextPlace, Number, Sender, When
from app.models.number import Waiting


class Alive(BaseModel):
    alive: Literal[True]


class Ready(BaseModel):
    """Requests may be sent here. `schema`: the version of the database's."""

    ready: Literal[True]
    schema_: str = Field(alias="schema", examples=["0001"])


class Alarm(BaseModel):
    """What a person should look at."""

    kind: str = Field(examples=["unknown_code"])
    key: str = Field(description="What it is about", examples=["openmarket/openmarket/9999"])
    since: When
    last_at: When
    count: int
    cleared: When | None = Field(description="When it ended; null while it stands")


class Alarms(BaseModel):
    """Those that stand first, newest first."""

    items: list[Alarm]


class HeldNumber(BaseModel):
    """A number that waits, and for what."""

    number: Number
    reason: str | None = Field(examples=["carrier_unknown"])
    waiting_for: Waiting | None
    until: When | None
    since: When | None
    gateway: str | None
    code_space: str | None = Field(examples=["openmarket"])
    code: str | None = Field(examples=["345"])


class HeldPage(BaseModel):
    """Held numbers in order of number."""

    items: list[HeldNumber]
    next: Next


class Decided(BaseModel):
    """How many numbers a person's decision let go."""

    numbers: int


class Quarantine(BaseModel):
    """A mass event. `seen`: distinct numbers when it was noticed, of `allowed` ones; `waiting`: how many wait now."""

    id: Long
    gateway: str = Field(examples=["openmarket"])
    code_space: str = Field(examples=["openmarket"])
    code: str = Field(examples=["561"])
    reason: str = Field(examples=["content_blocked_for_subscriber"])
    sender: str = Field(examples=["12345"])
    carrier: str = Field(examples=["T-Mobile"])
    opened_at: When
    seen: int
    allowed: int
    waiting: int
    decision: Literal["release", "discard"] | None
    decided_at: When | None
    decided_by: str | None


class QuarantinePage(BaseModel):
    """Mass events, newest first."""

    items: list[Quarantine]
    next: NextPlace


_DAY = datetime(2026, 11, 20, tzinfo=UTC).date()


class BrokenLine(BaseModel):
    """A line of a deactivation file that is no record, and why. It repeats nothing that the line holds."""

    line: int = Field(examples=[7])
    error: str = Field(examples=["not a possible phone number"])


class AffectedList(BaseModel):
    """How many subscribers of a list a deactivation file takes."""

    sender: Sender
    list: str = Field(examples=["spring"])
    subscribers: int = Field(examples=[900])
    affected: int = Field(examples=[4])


class DeactivationOutcome(BaseModel):
    """What has come of a deactivation file, or would. `held`: its records about numbers that anything but such a file
    has spoken of; `remembered`: other numbers, kept so that an older opt-in does not opt them in; `lists`: how many
    subscribers it takes from each list; `already`: the same file had been taken in before, and nothing happened now;
    `cut`: it ended before it should have.
    """

    feed: str = Field(examples=["twilio"])
    day: date | None = Field(examples=[_DAY])
    records: int
    broken: int
    errors: list[BrokenLine] = Field(description="The first hundred broken lines")
    held: int
    remembered: int
    changes: int
    opted_out: int
    lists: list[AffectedList]
    cut: bool
    already: bool
    dry_run: bool
