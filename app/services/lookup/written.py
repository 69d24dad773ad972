"""What another process wrote of a lookup, for those who waited here for it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from app.services import store
from app.services.connection import Connection
from app.services.lookup.budget import NOTHING
from app.services.lookup.outcome import Outcome


class Before(NamedTuple):
    """What there was of a number: of which moments its answers are, and its last change."""

    answers: Collection[datetime]
    seq: int


_BEFORE = """
SELECT ARRAY (SELECT asked_at FROM lookup_answers WHERE number = $1),
       coalesce((SELECT max(seq) FROM changes WHERE number = $1), 0)
"""


async def there(db: Connection, number: str) -> Before:
    return Before(*await db.fetchrow(_BEFORE, number))


# Not by time: answers are dated by the clock of who asked, which may be behind ours, and an earlier lookup is another.
_ANSWERS = """
SELECT provider, outcome, price FROM lookup_answers
WHERE number = $1 AND asked_at <> ALL($2::timestamptz[]) ORDER BY asked_at
"""
_CHANGES = """
SELECT number, kind, before, after, reason, cause, occurred_at, sender, list FROM changes
WHERE number = $1 AND cause ->> 'kind' = 'lookup' AND seq > $2 ORDER BY seq
"""


async def written(db: Connection, number: str, before: Before) -> Outcome | None:
    """What has been written since. None if nothing was."""
    rows = await db.fetch(_ANSWERS, number, before.answers)
    if not rows:
        return None
    good = [row for row in rows if row["outcome"] == "ok"]
    errors = [(row["provider"], row["outcome"]) for row in rows if row["outcome"] != "ok"]
    changes = [store.change_of(row) for row in await db.fetch(_CHANGES, number, before.seq)]
    word = "ok" if good else errors[-1][1] if errors else "provider_error"
    provider: str | None = good[-1]["provider"] if good else errors[-1][0] if errors else None
    return Outcome(number, word, provider, errors, sum((row["price"] for row in rows), NOTHING), changes)
