"""Consent, list by list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from app.models.number import Cause, Consent, Number, Subscription
from app.services.connection import Connection
from app.services.settle import Held
from app.services.shown import consent
from app.services.store.rows import ListFacts, list_of, objects

_LISTS = "SELECT number, sender, list, facts FROM subscriptions WHERE number = ANY($1::text[])"


async def lists(db: Connection, numbers: list[str]) -> dict[str, dict[tuple[str, str], Subscription]]:
    found: dict[str, dict[tuple[str, str], Subscription]] = {}
    if numbers:
        for number, sender, name, facts in await db.fetch(_LISTS, numbers):
            held = Subscription(number, sender, name, *list_of(facts))
            found.setdefault(number, {})[sender, name] = held
    return found


_SAVE_LISTS = """
INSERT INTO subscriptions AS s (number, sender, list, facts, consent, opted_in_at, reason, code_space, code, at)
SELECT * FROM json_to_recordset($1::json) AS v (number text, sender text, list text, facts json, consent text,
    opted_in_at timestamptz, reason text, code_space text, code text, at timestamptz)
ON CONFLICT (number, sender, list) DO UPDATE SET facts = excluded.facts, consent = excluded.consent,
    opted_in_at = excluded.opted_in_at, reason = excluded.reason, code_space = excluded.code_space,
    code = excluded.code, at = excluded.at
"""


class ListRow(Struct, frozen=True, gc=False):
    """One list of one number, as it is stored."""

    number: str
    sender: str
    list: str
    facts: ListFacts
    consent: Consent
    opted_in_at: datetime | None
    reason: str | None
    code_space: str | None
    code: str | None
    at: datetime | None


async def save_lists(db: Connection, before: Mapping[str, Held], after: Mapping[str, Held]) -> None:
    """Write consent back: for every list whose facts changed, or that a wider opt-out reached."""
    rows = []
    for number, held in after.items():
        was = before[number]
        for key, subscription in held.lists.items():
            known = was.lists.get(key)
            if known != subscription or consent(was.acting, known) != consent(held.acting, subscription):
                rows.append(list_row(held.acting, subscription))
    if rows:
        await db.execute(_SAVE_LISTS, objects(rows))


def list_row(number: Number, held: Subscription) -> ListRow:
    now, out = consent(number, held)
    facts = ListFacts(held.opted_in, held.out)
    opted_in_at = held.opted_in.at if held.opted_in else None
    at = out.at if out else opted_in_at
    cause = out.cause if out else Cause("call")
    reason = out.reason if out else None
    return ListRow(
        number.number, held.sender, held.list, facts, now, opted_in_at, reason, cause.code_space, cause.code, at
    )
