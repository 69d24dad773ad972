"""Reading what lookup providers write: names, codes of networks, line types, days, prices, all of it possibly wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TypeAlias, TypedDict

from app.models.lookup import LineType

Said: TypeAlias = Mapping[str, object]
"""An answer, or a part of one, as the provider wrote it: names and values, of any type until they are read."""


class Unreadable(ValueError):
    """An answer that is none. Its words never repeat what was received."""


CANNOT_READ = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What a reader may trip over."""


def why(error: Exception) -> str:
    """Our own words, or the kind of error alone: other messages may repeat a number."""
    return str(error) if isinstance(error, Unreadable) else f"unexpected shape ({type(error).__name__})"


def text(value: object) -> str | None:
    """A string without the blanks around it, a whole number as its digits. Nothing, "" and "null" are None."""
    if value is None:
        return None
    if isinstance(value, str):
        value = value.strip()
        return value if value and value.lower() != "null" else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unreadable("neither text nor a whole number where one of them belongs")


NOBODY = frozenset({"unknown", "none", "n/a", "na", "-", "not available", "undefined"})


def name(value: object) -> str | None:
    """A carrier's name as it was sent. "Unknown" is no carrier: it would look like another one than yesterday's."""
    found = text(value)
    return None if found is None or found.lower() in NOBODY else found


def part(said: Said, key: str) -> Said:
    """The object under this name; empty where there is none, null, or something else (Vonage writes "unknown")."""
    found = said.get(key)
    return found if isinstance(found, dict) else {}


def word(value: object) -> str:
    """A word by which tables are read: without case, blanks, `-` and `_`."""
    return re.sub(r"[\s_-]+", "", text(value) or "").lower()


TRUE, FALSE = frozenset({"y", "yes", "true", "1", "ported"}), frozenset({"n", "no", "false", "0", "notported"})


def flag(value: object) -> bool | None:
    """Yes, no, or not told. A guess ("assumed_ported") is not told."""
    if isinstance(value, bool):
        return value
    return True if word(value) in TRUE else False if word(value) in FALSE else None


# Every word of the providers' own lists; libphonenumber's "fixed line or mobile" cannot tell.
LINES: dict[str, LineType] = {
    **dict.fromkeys(("mobile", "wireless", "cellular", "cell"), "mobile"),
    **dict.fromkeys(("landline", "fixed", "fixedline", "wireline"), "landline"),
    **dict.fromkeys(("voip", "fixedvoip", "nonfixedvoip", "voipfixed", "virtual"), "voip"),
    **dict.fromkeys(("tollfree", "freephone", "landlinetollfree"), "toll_free"),
    **dict.fromkeys(("premium", "premiumrate", "landlinepremium"), "premium"),
    "sharedcost": "shared_cost",
    **dict.fromkeys(("personal", "personalnumber"), "personal"),
    "pager": "pager",
    "uan": "uan",
    "voicemail": "voicemail",
    "satellite": "satellite",
    **dict.fromkeys(("other", "special"), "other"),
}


def line_type(value: object) -> LineType | None:
    """One of our line types; `unknown` for a word that no table has: it must not decide what a line can do."""
    return LINES.get(word(value), "unknown") if text(value) else None


_MCC, _MNC = re.compile(r"\d{3}", re.ASCII), re.compile(r"\d{2,3}", re.ASCII)
_LEAST_MNC = 100


class Codes(TypedDict, total=False):
    """The network's codes, as fields of a record."""

    mcc: str
    mnc: str


def network(mcc: object, mnc: object) -> Codes:
    """`mcc` and `mnc` of a record, as far as they can be codes at all: Telnyx's samples have "US" and 866, lists occur.

    A small integer has lost its leading zeros (3 is 03 or 003), so it is not told.
    """
    if isinstance(mnc, int) and mnc < _LEAST_MNC:
        mnc = None
    country, own = (value if isinstance(value, str) else str(value) for value in (mcc, mnc))
    if not _MCC.fullmatch(country):
        return {}
    return {"mcc": country, "mnc": own} if _MNC.fullmatch(own) else {"mcc": country}


def joined(code: object) -> Codes:
    """As `network`, of both codes in one: "310090". A number has lost no zero: no country's code begins with one."""
    both = str(code) if isinstance(code, str | int) else ""
    return network(both[:3], both[3:])


YEARS = range(1990, 2100)
"""Numbers can be ported since 1997; 0001-01-01 is how some systems write that there is no date."""


def day(value: object) -> datetime | None:
    """An ISO 8601 day or time, in UTC. One without a zone is read as UTC: what is asked of it is days.

    Of a deactivation that is the careful side, too: American local time is later than it reads, and an earlier
    deactivation ends fewer opt-ins. What cannot be read is None.
    """
    try:
        at = datetime.fromisoformat(text(value) or "")
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return at if at.year in YEARS else None


def price(value: object) -> Decimal | None:
    """What a call cost, as the provider says it, in its currency."""
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and 0 <= found < 1000 else None  # noqa: PLR2004


_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}|\d{1,6}|[A-Z]{1,4}\d{1,9}", re.ASCII)


def label(code: object) -> str:
    """A provider's error code for a person to read, if it looks like one; nothing else of an answer is ever shown."""
    found = code if isinstance(code, str) else str(code) if isinstance(code, int) else ""
    return f"code {found}" if _CODE.fullmatch(found) and not re.search(r"\d{10}", found) else "no code"
