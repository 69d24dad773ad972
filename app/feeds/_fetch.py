"""What the fetching of every feed has in common: addresses, and what an error's status means."""

from __future__ import annotations

import base64

from app.models.feed import NotYet, Refused
from app.models.http import HttpAnswer

OK = 200
_UNREADY = frozenset({404, 202, 204})
_KEY = frozenset({401, 403})
CREDENTIALS = "look at the feed's credentials in the settings"
LINK = "the link to the file is good no more, another one is asked for at the next look"


def refused(answer: HttpAnswer, code: str | None = None, *, keyed: bool = True) -> None:
    """Raises for every answer but a good one. `keyed`: it was asked for with our key, and not by a signed link."""
    if answer.status == OK and not answer.cut:
        return
    detail = f"HTTP {answer.status}" + (f", {code}" if code else "")
    if answer.status in _KEY:
        raise Refused(f"{detail}: {CREDENTIALS if keyed else LINK}")
    if answer.status in _UNREADY:
        raise NotYet
    raise Refused(f"{detail}: longer than an answer may be" if answer.cut else detail)


def basic(user: str, password: str) -> dict[str, str]:
    """The header itself, for those that are asked with others beside it."""
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
