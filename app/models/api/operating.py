"""What people watch, decide and bring in."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, Field

from app.models.api.fields import NUMBER, WHEN, Long, Next, NextPlace, Number, Sender, When, shown
from app.models.number import Waiting


class Alive(BaseModel):
    alive: Literal[True]


class Ready(BaseModel):
    """Requests may be sent here. `schema`: the version of the database's."""

    ready: Literal[True]
    schema_: str = Field(alias="schema", examples=["0001"])


class Alarm(BaseModel):
    """What a person should look at."""

    model_config = shown({
        "kind": "unknown_code", "key": "native/openmarket/9999", "since": WHEN, "last_at": WHEN, "count": 1,
        "cleared": None,
    })  # fmt: skip

    kind: str
    key: str = Field(description="What it is about")
    since: When
    last_at: When
    count: int
    cleared: When | None = Field(description="When it ended; null while it stands")


class Alarms(BaseModel):
    """Those that stand first, newest first."""

    items: list[Alarm]


class HeldNumber(BaseModel):
    """A number that waits, and for what."""

    model_config = shown({
        "number": NUMBER, "reason": "carrier_unknown", "waiting_for": "no_lookup_provider", "until": None,
        "since": WHEN, "gateway": "native", "code_space": "openmarket", "code": "345",
    })  # fmt: skip

    number: Number
    reason: str | None
    waiting_for: Waiting | None
    until: When | None
    since: When | None
    gateway: str | None
    code_space: str | None
    code: str | None


class HeldPage(BaseModel):
    """Held numbers in order of number."""

    items: list[HeldNumber]
    next: Next


class Decided(BaseModel):
    """How many numbers a person's decision let go."""

    numbers: int = Field(examples=[1])


class Quarantine(BaseModel):
    """A mass event. `seen`: distinct numbers when it was noticed, of `allowed` ones; `waiting`: how many wait now."""

    model_config = shown({
        "id": 1, "gateway": "native", "code_space": "openmarket", "code": "561",
        "reason": "content_blocked_for_subscriber", "sender": "12345", "carrier": "T-Mobile", "opened_at": WHEN,
        "seen": 51, "allowed": 50, "waiting": 51, "decision": None, "decided_at": None, "decided_by": None,
    })  # fmt: skip

    id: Long
    gateway: str
    code_space: str
    code: str
    reason: str
    sender: str
    carrier: str
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


class BrokenLine(BaseModel):
    """A line of a deactivation file that is no record, and why. It repeats nothing that the line holds."""

    line: int
    error: str


class AffectedList(BaseModel):
    """How many subscribers of a list a deactivation file takes."""

    sender: Sender
    list: str
    subscribers: int
    affected: int


class DeactivationOutcome(BaseModel):
    """What has come of a deactivation file, or would. `held`: its records about numbers that anything but such a file
    has spoken of; `remembered`: other numbers, kept so that an older opt-in does not opt them in; `lists`: how many
    subscribers it takes from each list; `already`: the same file had been taken in before, and nothing happened now;
    `cut`: it ended before it should have.
    """

    model_config = shown({
        "feed": "twilio", "day": "2026-11-20", "records": 2, "broken": 1,
        "errors": [{"line": 3, "error": "not a possible phone number"}], "held": 1, "remembered": 1, "changes": 2,
        "opted_out": 1, "lists": [{"sender": "12345", "list": "spring", "subscribers": 1, "affected": 1}],
        "cut": False, "already": False, "dry_run": False,
    })  # fmt: skip

    feed: str
    day: date | None
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
