"""The feed: what truly changed, in the order of commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.models.number import Change
from app.services.connection import Connection
from app.services.store.rows import cause_of, objects

FEED_LOCK = 7_316_002
CHANNEL = "sendable_changes"

# The lock comes before the first sequence value is taken and goes with the commit: so the feed's order is the order of
# commits, and a reader of "seq > cursor" passes nothing that is still in flight.
_PUBLISH = f"""
WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({FEED_LOCK})),
added AS (
    INSERT INTO changes (number, sender, list, kind, before, after, reason, cause, occurred_at, committed_at)
    SELECT v.*, clock_timestamp() FROM turn, json_to_recordset($1::json) AS v (number text, sender text, list text,
        kind text, before text, after text, reason text, cause jsonb, occurred_at timestamptz)
    RETURNING sender, list, kind, before, after, reason, occurred_at){{roll_ups}}
SELECT pg_notify('{CHANNEL}', '') FROM (SELECT count(*) FROM added) AS _
"""  # noqa: S608 - two constants of this file

# The roll-ups' rows are locked under the feed's lock, so in no order of their own. Only changes of consent have them.
_ROLL_UPS = """,
left_by_hour AS (
    INSERT INTO opt_out_hours AS o (sender, list, hour, reason, total)
    SELECT sender, list, date_trunc('hour', occurred_at, 'UTC'), coalesce(reason, ''),
        sum(CASE kind WHEN 'list.opted_out' THEN 1 ELSE -1 END)
    FROM added
    WHERE kind = 'list.opted_out' AND before = 'opted_in' OR kind = 'list.opted_in' AND reason IS NOT NULL
    GROUP BY 1, 2, 3, 4
    ON CONFLICT (sender, list, hour, reason) DO UPDATE SET total = o.total + excluded.total),
sized AS (
    INSERT INTO list_sizes AS l (sender, list, opted_in, opted_out)
    SELECT sender, list, sum((after = 'opted_in')::int - (before IS NOT DISTINCT FROM 'opted_in')::int),
        sum((after = 'opted_out')::int - (before IS NOT DISTINCT FROM 'opted_out')::int)
    FROM added WHERE list IS NOT NULL GROUP BY 1, 2
    ON CONFLICT (sender, list) DO UPDATE
    SET opted_in = l.opted_in + excluded.opted_in, opted_out = l.opted_out + excluded.opted_out)"""
_PUBLISH_ALONE, _PUBLISH_COUNTED = _PUBLISH.format(roll_ups=""), _PUBLISH.format(roll_ups=_ROLL_UPS)


def change_of(row: Mapping[str, Any]) -> Change:
    """A row of the feed, as it was published."""
    return Change(
        row["number"], row["kind"], row["before"], row["after"], row["reason"], cause_of(row["cause"]),
        row["occurred_at"], row["sender"], row["list"],
    )  # fmt: skip


async def publish(db: Connection, changes: Sequence[Change]) -> None:
    """The last statement of a transaction, and only when something truly changed."""
    if changes:
        counted = any(c.list is not None for c in changes)
        await db.fetch(_PUBLISH_COUNTED if counted else _PUBLISH_ALONE, objects(changes))
