"""What others read: a number's history, stored receipts, the subscribers of a list, alarms, what could not be read.

Pages go by the key of their last row, never by OFFSET: what arrives meanwhile shifts nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.catalogue import Catalogue
from app.models.receipt import Link, Links
from app.services.connection import Rows, read

# History -----------------------------------------------------------------------------------------------------------

_HISTORY = text("""
SELECT seq, number, sender, list, kind, before, after, reason, cause, occurred_at, committed_at
FROM changes WHERE number = :number AND seq < :before ORDER BY seq DESC LIMIT :limit
""")
NEWEST = 2**63 - 1
"""Behind every id and place in the feed: where pages that begin with the newest begin."""


async def history(engine: AsyncEngine, number: str, before: int, limit: int) -> Rows:
    """A number's changes, newest first, from the one before the cursor."""
    return await read(engine, _HISTORY, {"number": number, "before": before, "limit": limit})


# Lookups -----------------------------------------------------------------------------------------------------------

_LOOKUPS = text("""
SELECT number, provider, asked_at, outcome, detail, price, kept_until, found FROM lookup_answers
WHERE number = :number AND asked_at < coalesce(CAST(:before AS timestamptz), 'infinity')
ORDER BY asked_at DESC, provider LIMIT :limit
""")


async def lookup_answers(engine: AsyncEngine, number: str, before: datetime | None, limit: int) -> Rows:
    """What providers said of a number, newest first."""
    return await read(engine, _LOOKUPS, {"number": number, "before": before, "limit": limit})


_LOOKED_UP = text("""
SELECT DISTINCT number FROM lookup_answers
WHERE number = ANY(:numbers) AND asked_at > :since AND outcome IN ('ok', 'not_found', 'invalid_number')
""")


async def looked_up(engine: AsyncEngine, numbers: Sequence[str], since: datetime) -> set[str]:
    """Of these numbers those that a provider has answered for since then."""
    return {row.number for row in await read(engine, _LOOKED_UP, {"numbers": [*numbers], "since": since})}


# Receipts ----------------------------------------------------------------------------------------------------------

_RECEIPTS = """
SELECT key, gateway, nullif(account, '') AS account, message_id, number, sender, status, code_space, code, reason,
       carrier, mcc, mnc, segment, occurred_at, received_at
FROM receipts
WHERE received_at > :since AND (received_at, key) < (:received_at, CAST(:key AS uuid)) {filters}
ORDER BY received_at DESC, key DESC LIMIT :limit
"""
_NAMES = ("message_id", "number", "gateway")
_BACK = (timedelta(minutes=5), timedelta(hours=2), timedelta(days=2))
"""How far back the newest are looked for, step by step, where no index finds them: a page rarely needs more."""
EVER = datetime(2000, 1, 1, tzinfo=UTC)
_LAST_KEY = UUID(int=2**128 - 1)


class Place(NamedTuple):
    """The last receipt of a page."""

    received_at: datetime
    key: UUID


def now() -> Place:
    """Before the very newest: arrivals of other processes may be dated by a clock that runs ahead of ours."""
    return Place(datetime.now(UTC) + timedelta(hours=1), _LAST_KEY)


async def receipts(engine: AsyncEngine, wanted: Mapping[str, str], before: Place, limit: int) -> Rows:
    """Stored receipts, newest first. `wanted` filters by message_id, number or gateway."""
    statement = _RECEIPTS.format(filters="".join(f" AND {name} = :{name}" for name in _NAMES if name in wanted))
    steps = () if wanted.keys() & {"message_id", "number"} else tuple(before.received_at - back for back in _BACK)
    rows: Rows = ()
    for since in (*steps, EVER):
        rows = await read(engine, text(statement), {**wanted, **before._asdict(), "since": since, "limit": limit})
        if len(rows) == limit:
            break
    return rows


# Subscribers -------------------------------------------------------------------------------------------------------

_SUBSCRIBERS = """
SELECT number, consent, state, reason IS NULL AS sendable, reason, at
FROM (
    SELECT s.number, s.consent, n.state, s.at,
           CASE WHEN {gone} THEN s.reason WHEN NOT n.sendable THEN n.reason WHEN b.reason IS NOT NULL THEN b.reason
                WHEN s.consent = 'opted_out' THEN s.reason
                WHEN s.opted_in_at <= held.dead_since THEN 'deactivated' END AS reason
    FROM subscriptions s
    JOIN numbers held USING (number)
    JOIN published.number_status n USING (number)
    LEFT JOIN sender_blocks b ON b.number = s.number AND b.sender = s.sender
    WHERE s.sender = :sender AND s.list = :list AND s.number > :after {stored}
    ) AS subscribers
WHERE true {filters}
ORDER BY number LIMIT :limit
"""
_FILTERS = {"state": " AND state = :state", "sendable": " AND (reason IS NULL) = CAST(:sendable AS boolean)"}
# What is stored is what is shown, until it lapses: the few of a state are found without judging a whole list. Whoever
# is on one has been spoken of, and is not merely noted.
_STORED = " AND held.noted_by IS NULL AND (held.state = :state OR held.until <= statement_timestamp())"


async def subscribers(engine: AsyncEngine, sender: str, list_: str, wanted: Mapping[str, Any], *,
                      after: str, limit: int) -> Rows:  # fmt: skip
    """Who is on a list, in order of number. `wanted` filters by consent, state or sendable. Of the opted out, asked for
    by that, the reason is what ended their consent; else it is what stands in the way first.
    """
    given = {**wanted, "sender": sender, "list": list_, "after": after, "limit": limit}
    return await read(engine, text(_subscribers(wanted)), given)


def _subscribers(wanted: Mapping[str, Any]) -> str:
    consent = " AND s.consent = :consent" if "consent" in wanted else ""
    return _SUBSCRIBERS.format(
        stored=consent + (_STORED if "state" in wanted else ""),
        gone="true" if wanted.get("consent") == "opted_out" else "false",
        filters="".join(clause for name, clause in _FILTERS.items() if name in wanted),
    )


AT_ONCE = 5_000


async def all_subscribers(engine: AsyncEngine, sender: str, list_: str, wanted: Mapping[str, Any],
                          after: str) -> AsyncIterator[Rows]:  # fmt: skip
    """A whole list in pages, however long it is; the first one even when it is empty."""
    while True:
        rows = await subscribers(engine, sender, list_, wanted, after=after, limit=AT_ONCE)
        yield rows
        if len(rows) < AT_ONCE:
            return
        after = rows[-1].number


# Unknown words ------------------------------------------------------------------------------------------------------

_UNKNOWN = text("""
SELECT gateway, nullif(account, '') AS account, kind, nullif(space, '') AS space, word, status, message_id, first_at,
       last_at, count
FROM unknown_words WHERE CAST(:gateway AS text) IS NULL OR gateway = :gateway
ORDER BY last_at DESC, gateway, account, kind, space, word
""")


class Known(NamedTuple):
    """What the tables know, and what the settings say of each link: whose codes it brings, and which of them it cuts or
    changes, and what those really are.
    """

    catalogue: Catalogue
    links: Links

    def has(self, code: Row[Any]) -> bool:
        """Whether a code that nobody knew when it came would be understood now."""
        link = self.links.get((code.gateway, code.account or "")) or Link(code.gateway)
        return self.catalogue.find(code.space or link.code_space, link.codes.get(code.word, code.word)) is not None


async def unknown_words(engine: AsyncEngine, known: Known, gateway: str | None, limit: int) -> list[Row[Any]]:
    """Codes and status words that no table knows, the last seen first. What is known by now is left out."""
    rows = await read(engine, _UNKNOWN, {"gateway": gateway})
    return [row for row in rows if row.kind == "status" or not known.has(row)][:limit]


_ALARMED = text("""
SELECT a.key, u.gateway, u.account, u.space, u.word FROM alarms a
JOIN unknown_words u ON u.kind = 'code'
    AND a.key = concat_ws('/', u.gateway, nullif(u.account, ''), nullif(u.space, ''), u.word)
WHERE a.kind = 'unknown_code' AND a.cleared_at IS NULL
""")


async def known_by_now(engine: AsyncEngine, known: Known) -> list[str]:
    """Keys of the alarms of unknown codes that stand for codes which are known by now."""
    return [row.key for row in await read(engine, _ALARMED) if known.has(row)]


# For people --------------------------------------------------------------------------------------------------------

_ALARMS = text("""
SELECT kind, key, since, last_at, count, cleared_at AS cleared FROM alarms
WHERE CAST(:cleared AS boolean) OR cleared_at IS NULL
ORDER BY cleared_at IS NOT NULL, last_at DESC, kind, key LIMIT :limit
""")


async def alarms(engine: AsyncEngine, limit: int, *, cleared: bool) -> Rows:
    """What a person should look at: what stands first, then what was cleared."""
    return await read(engine, _ALARMS, {"cleared": cleared, "limit": limit})


_UNREAD = text("""
SELECT id, gateway, nullif(account, '') AS account, reason, method, octet_length(body) AS size, first_at, last_at,
       times
FROM unread WHERE id < :before ORDER BY id DESC LIMIT :limit
""")


async def unread(engine: AsyncEngine, before: int, limit: int) -> Rows:
    """Callbacks that could not be read, newest first, without their bodies."""
    return await read(engine, _UNREAD, {"before": before, "limit": limit})


_ONE_UNREAD = text("""
SELECT id, gateway, nullif(account, '') AS account, reason, method, octet_length(body) AS size, first_at, last_at,
       times, headers, query, body
FROM unread WHERE id = :id
""")


async def one_unread(engine: AsyncEngine, id_: int) -> Row[Any] | None:
    """One of them as it came."""
    return next(iter(await read(engine, _ONE_UNREAD, {"id": id_})), None)
