"""What another process wrote of a lookup, for those who waited here for it."""

from __future__ import annotations

from datetime import datetime

from app.services import store
from app.services.connection import Connection
from app.services.lookup.budget import NOTHING
from app.services.lookup.outcome import Outcome

_ANSWERS = """
SELECT provider, outcome, price FROM lookup_answers
WHERE number = $1 AND asked_at > $2::timestamptz - interval '2 minutes' ORDER BY asked_at
"""
_CHANGES = """
SELECT number, kind, before, after, reason, cause, occurred_at, sender, list FROM changes
WHERE number = $1 AND cause ->> 'kind' = 'lookup' AND committed_at > $2::timestamptz - interval '2 minutes' ORDER BY seq
"""


async def written(db: Connection, number: str, began: datetime) -> Outcome | None:
    rows = await db.fetch(_ANSWERS, number, began)
    if not rows:
        return None
    good = [row for row in rows if row["outcome"] == "ok"]
    errors = [(row["provider"], row["outcome"]) for row in rows if row["outcome"] != "ok"]
    changes = [store.change_of(row) for row in await db.fetch(_CHANGES, number, began)]
    word = "ok" if good else errors[-1][1] if errors else "provider_error"
    provider: str | None = good[-1]["provider"] if good else errors[-1][0] if errors else None
    return Outcome(number, word, provider, errors, sum((row["price"] for row in rows), NOTHING), changes)
