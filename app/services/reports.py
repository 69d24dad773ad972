"""What lists look like, and why people left them: from roll-ups, never by scanning the history or the subscribers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services.connection import Rows, read, transaction
from app.services.store import hour_of

HOUR = timedelta(hours=1)

LISTS_WITHIN = 60.0
"""Seconds for the sizes of all lists: where a million numbers cannot be texted, it takes several."""

# Who is opted in stands in the roll-up. Of those only few cannot be texted: they are found from the numbers that are
# not active, that have died once, or that a sender does not reach, and judged as the view `sendable` judges them.
# Materialised: joined as they are, numbers and subscribers may be read in the order of their keys, which on a table
# whose rows lie in another one takes minutes.
_LISTS = """
WITH away AS MATERIALIZED (
    SELECT number, n.state, own.dead_since FROM numbers own JOIN published.number_status n USING (number)
    WHERE own.noted_by IS NULL AND (own.state NOT IN ('active', 'unseen') OR own.dead_since IS NOT NULL)),
stopped AS (
    SELECT s.sender, s.list, count(*) AS total, count(*) FILTER (WHERE away.state = 'suspended') AS suspended,
           count(*) FILTER (WHERE away.state = 'held') AS held
    FROM (SELECT number FROM away UNION SELECT number FROM sender_blocks) AS few
    JOIN subscriptions s USING (number) LEFT JOIN away USING (number) LEFT JOIN sender_blocks b USING (number, sender)
    WHERE s.consent = 'opted_in' AND ($1::text IS NULL OR s.sender = $1)
      AND (away.state <> 'active' OR away.dead_since >= s.opted_in_at OR b.number IS NOT NULL)
    GROUP BY 1, 2)
SELECT l.sender, l.list, l.opted_in AS subscribers, l.opted_in - coalesce(stopped.total, 0) AS sendable,
       coalesce(stopped.suspended, 0) AS suspended, coalesce(stopped.held, 0) AS held, l.opted_out
FROM list_sizes l LEFT JOIN stopped USING (sender, list)
WHERE ($1::text IS NULL OR l.sender = $1) AND l.opted_in + l.opted_out > 0
ORDER BY l.sender, l.list
"""


async def lists(engine: AsyncEngine, sender: str | None) -> list[dict[str, Any]]:
    """Every list with its sizes at this instant: what has lapsed counts as lapsed."""
    async with transaction(engine) as db:
        return [dict(row) for row in await db.fetch(_LISTS, sender, timeout=LISTS_WITHIN)]


class Frame(NamedTuple):
    """From an instant on, until before another one."""

    start: datetime
    end: datetime


_OPT_OUTS = """
SELECT sender, list, reason, sum(total)::bigint AS total FROM (
    SELECT sender, list, reason, total FROM opt_out_hours WHERE hour >= :whole AND hour < :rest {filters}
    UNION ALL
    SELECT sender, list, coalesce(reason, ''), CASE kind WHEN 'list.opted_out' THEN 1 ELSE -1 END FROM changes
    WHERE (kind = 'list.opted_out' AND before = 'opted_in' OR kind = 'list.opted_in' AND reason IS NOT NULL) {filters}
      AND (occurred_at >= :start AND occurred_at < :whole OR occurred_at >= :rest AND occurred_at < :end)
) AS gone
GROUP BY 1, 2, 3 HAVING sum(total) > 0 ORDER BY 1, 2, 4 DESC, 3
"""


async def opt_outs(engine: AsyncEngine, frame: Frame, sender: str | None, list_: str | None) -> Rows:
    """How many subscribers left each list, by reason. Whole hours come from the roll-up, the edges from the history. An
    opt-in that names a reason takes an opt-out of that reason and date back: the breaker's.
    """
    wanted = {name: value for name, value in (("sender", sender), ("list", list_)) if value is not None}
    statement = _OPT_OUTS.format(filters="".join(f" AND {name} = :{name}" for name in wanted))
    return await read(engine, text(statement), {**wanted, **_parts(frame)})


def _parts(frame: Frame) -> dict[str, datetime]:
    """Where the whole hours of a frame begin (`whole`) and what is left of it (`rest`)."""
    whole = min(hour_of(frame.start + HOUR - timedelta(microseconds=1)), frame.end)
    return {**frame._asdict(), "whole": whole, "rest": max(hour_of(frame.end), whole)}
