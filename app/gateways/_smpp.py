"""The text of an SMPP 3.4 receipt (Appendix B), which centres write as they like, and the status words of SMPP."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from app.models.receipt import FAILED, Status

STAT = {
    "ENROUTE": Status.SENT,
    "ACCEPTD": Status.SENT,
    "BUFFRED": Status.SENT,
    "BUFFERD": Status.SENT,
    "SENT": Status.SENT,
    "ACKED": Status.SENT,
    "DELIVRD": Status.DELIVERED,
    "EXPIRED": Status.EXPIRED,
    "DELETED": Status.UNDELIVERABLE,
    "UNDELIV": Status.UNDELIVERABLE,
    "FAILED": Status.UNDELIVERABLE,
    "REJECTD": Status.REJECTED,
    "UNKNOWN": Status.UNKNOWN,
}
"""Seven of the specification, and what vendors add (Jasmin's and vumi's tests)."""

CAUSES = frozenset({"EXPIRED", "DELETED", "UNDELIV", "REJECTD", "UNKNOWN"})
"""Words that say why, when no `err` does: codes of the space `smpp_stat`."""

STAT_SPACE = "smpp_stat"
COMMAND_SPACE = "smpp_command_status"

_TEXT = re.compile(r"(?:^|\s)text:", re.IGNORECASE)
_FIELD = re.compile(r"(?:^|\s)(id|stat|err|submit date|done date):(\S*)", re.IGNORECASE)
_NOTHING = frozenset({"", "null", "nd", "..."})


@dataclass(frozen=True, slots=True)
class Report:
    """What the receipt text says, `done` as it is written there. Its `text:`, the first words of our own message, is
    never looked at.
    """

    id: str | None
    stat: str | None
    err: str | None
    submitted: datetime | None
    done: str | None

    def ended(self, became: Status | None) -> datetime | None:
        """When the centre had done with it."""
        return local_time(self.done, became)


def report(text: str) -> Report:
    """Read from the front: of a repeated field the first counts, and behind `text:` nothing does."""
    front = _TEXT.split(text, maxsplit=1)[0][:1000]
    said: dict[str, str] = {}
    for name, value in _FIELD.findall(front):
        said.setdefault(name.lower(), value)
    stat = some(said.get("stat"))
    return Report(
        id=some(said.get("id")),
        stat=stat and stat.upper(),
        err=error(said.get("err")),
        submitted=local_time(said.get("submit date")),
        done=said.get("done date"),
    )


def some(value: str | None) -> str | None:
    """A field's value; what centres and Jasmin write for a missing one is None."""
    return None if value is None or value.strip().lower() in _NOTHING else value.strip()


def error(value: str | None) -> str | None:
    """The network's error as received; `000` says that there is none."""
    value = some(value)
    return value if value and value.strip("0") else None


def cause(status: Status, stat: str | None, err: str | None) -> tuple[str | None, str | None]:
    """The most specific code of a receipt and its space: `err` in the link's space, else the word for a failure."""
    if err:
        return err, None
    if stat in CAUSES and status not in (Status.DELIVERED, Status.SENT):
        return stat, STAT_SPACE
    return None, None


def command_status(number: int) -> str:
    """An answer to submit_sm as its code table writes it."""
    return f"0x{number:08X}"


_FORMS = {10: ("%y%m%d%H%M",), 12: ("%y%m%d%H%M%S", "%Y%m%d%H%M"), 14: ("%Y%m%d%H%M%S",)}


def local_time(value: str | None, became: Status | None = None) -> datetime | None:
    """The centre's own clock: no receipt names its zone. Naive. `became`: what then became of the message.

    Ten digits tell the minute alone. Of a failure its end counts: nobody who agreed during it may be texted on the
    supposition that it was later. Twelve digits have two forms. Only one of them makes a date from 2013 on; where both
    do, neither is believed.
    """
    if value is None or not value.isdecimal():
        return None
    read = {_at_last(at, form, became) for form in _FORMS.get(len(value), ()) if (at := _strptime(value, form))}
    return read.pop() if len(read) == 1 else None


def _at_last(at: datetime, form: str, became: Status | None) -> datetime:
    return at if became not in FAILED or "%S" in form else at.replace(second=59, microsecond=999_999)


def _strptime(value: str, form: str) -> datetime | None:
    with suppress(ValueError):
        at = datetime.strptime(value, form)  # noqa: DTZ007 - the centre names no zone
        if 2000 <= at.year < 2100:  # noqa: PLR2004
            return at
    return None
