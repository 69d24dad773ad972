"""`number=MDN,date=3`: which column of a table holds what, as a call names it."""

from __future__ import annotations

from app.feeds import COLUMNS
from app.models.feed import Feed


class WrongColumns(ValueError):
    """Columns that cannot be read, or are missing. One line: which, and how to mend it."""


def columns_of(feed: Feed, text: str | None) -> dict[str, str]:
    """Raises WrongColumns."""
    named = {}
    for pair in filter(None, (one.strip() for one in (text or "").split(","))):
        column, sign, name = pair.partition("=")
        if not sign or column.strip() not in COLUMNS or not name.strip():
            raise WrongColumns(f"columns: write them as number=MDN,date=3; the columns are {', '.join(COLUMNS)}")
        named[column.strip()] = name.strip()
    if lacking := [column for column in feed.columns if column not in named]:
        raise WrongColumns(f"columns: {feed.name} needs `{lacking[0]}`: name its column, as in {lacking[0]}=MDN")
    return named
