"""What could not be read is kept as it came, and tried again once we can read it: as if it had been read at once."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import unquote_plus
from uuid import UUID

import orjson
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from app.gateways import cut, read
from app.models.receipt import Broken, Callback, Gateway, Link, Links, Receipt
from app.services import metrics, partitions, store
from app.services.arrival import arrival
from app.services.connection import transaction
from app.services.decide import believed
from app.services.intake import GROUP_MOST
from app.services.keep import keep
from app.services.meaning import Meaning
from app.services.store import Kept

_SECRET = ("authorization", "cookie", "token", "signature", "secret", "key")
AT_ONCE = 200
BYTES_AT_ONCE = 8 * 1024 * 1024
"""Of the bodies that are held at once; a single one may be as long."""


class Replayed(NamedTuple):
    """`read`: callbacks that are read now; `receipts` of them that are new; `left`: those still unread."""

    read: int = 0
    receipts: int = 0
    left: int = 0


class Which(NamedTuple):
    """Some ids, those of one gateway, or (neither) all."""

    ids: Sequence[int] | None = None
    gateway: str | None = None


HEADERS_MOST = 64 * 1024
"""Bytes of names and values together that are kept."""


def as_kept(callback: Callback, link: Link, broken: Broken, gateway: Gateway) -> Kept:
    """What could not be read, byte for byte, without what would prove an origin once more and the words of messages."""
    hides, asked = gateway.hides, callback.query.split("&")
    query = "&".join(part for part in asked if not _is_secret(part.partition("=")[0], hides))
    query = cut(query.encode("latin-1", "replace"), gateway.words).decode("latin-1")
    headers = {
        name: value
        for name, value in callback.headers.items()
        if not _is_secret(name, hides) and not tells_a_query(value)
    }
    body = cut(broken.raw, gateway.words) if callback.body else b""
    known = b"\x1f".join((link.gateway.encode(), link.account.encode(), broken.reason.encode(), query.encode(), body))
    digest = UUID(bytes=hashlib.blake2b(known, digest_size=16).digest())
    told = orjson.dumps(dict(_first(headers))).decode()
    return Kept(digest, link.gateway, link.account, broken.reason, callback.method, told, query, body)


def _first(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The first headers, up to the limit: a server other than ours may let more of them through."""
    size = 0
    for name, value in headers.items():
        size += len(name) + len(value)
        if size <= HEADERS_MOST:
            yield name, value


def _is_secret(name: str, hides: frozenset[str]) -> bool:
    name = unquote_plus(name).lower()
    return name in hides or any(part in name for part in _SECRET)


def tells_a_query(value: str) -> bool:
    """Whether a header repeats the address that was called, as some proxies do, and with it the token in it."""
    return "?" in value and "=" in value


# Tried again -------------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A row of `unread`."""

    id: int
    digest: UUID
    gateway: str
    account: str
    method: str
    headers: str
    query: str
    body: bytes
    first_at: datetime


_WHERE = "($2::bigint[] IS NULL OR id = ANY($2)) AND ($3::text IS NULL OR gateway = $3)"
_LAST = f"SELECT max(id) FROM unread WHERE id > $1 AND {_WHERE}"  # noqa: S608 - a constant of this file
_NEXT = f"""
SELECT id, digest, gateway, account, method, headers, query, body, first_at
FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY id) - octet_length(body) AS before
      FROM (SELECT * FROM unread WHERE id > $1 AND id <= $4 AND {_WHERE} ORDER BY id LIMIT {AT_ONCE}) AS part) AS summed
WHERE before < {BYTES_AT_ONCE} ORDER BY id
"""  # noqa: S608


async def replay(engine: AsyncEngine, meaning: Meaning, links: Links, which: Which,
                 told: Callable[[int], None] = lambda _: None) -> Replayed:  # fmt: skip
    """Read them again, oldest first. `told` hears how many are done.

    A receipt and the end of what it was read from are one transaction: a kill loses nothing, and of two replays at once
    the second finds the receipts' keys taken. What has no time is dated by its own arrival: a later opt-in stands.
    """
    total = Replayed()
    async for rows in _in_parts(engine, which):
        done = await _replay(engine, meaning, links, rows)
        total = Replayed(*(a + b for a, b in zip(total, done, strict=True)))
        told(total.read + total.left)
    return total


async def _in_parts(engine: AsyncEngine, which: Which) -> AsyncIterator[list[Stored]]:
    """All that are there now; what cannot be read comes back under a new id, and is not tried twice."""
    after, last = 0, None
    while True:
        async with transaction(engine) as db:
            last = last or await db.fetchval(_LAST, after, which.ids, which.gateway)
            rows = [Stored(*row) for row in await db.fetch(_NEXT, after, which.ids, which.gateway, last)]
        if not rows:
            return
        yield rows
        after = rows[-1].id


class Again(NamedTuple):
    """One kept callback, read again. `id` None: it stays as it is. `ends`: it goes with these receipts, its last."""

    id: int | None
    receipts: Sequence[Receipt]
    unread: Sequence[Kept]
    arrived: datetime
    ends: bool = True


async def _replay(engine: AsyncEngine, meaning: Meaning, links: Links, rows: Sequence[Stored]) -> Replayed:
    tried = [_again(row, meaning.gateways, links.get((row.gateway, row.account))) for row in rows]
    some = [one for one in tried if one.id is not None]
    gone, receipts = await commit(engine, meaning, some, proven=False)
    return Replayed(gone, receipts, len(tried) - len(some))


def _again(row: Stored, gateways: Mapping[str, Gateway], link: Link | None) -> Again:
    stays = Again(None, (), (), row.first_at)
    gateway = gateways.get(row.gateway)
    if gateway is None or link is None:
        return stays
    url = f"{link.public_url or ''}/v1/receipts/{'/'.join(filter(None, (row.gateway, row.account)))}"
    callback = Callback(row.method, url, orjson.loads(row.headers), row.query, row.body, row.first_at)
    said = read(gateway, callback, link)
    unread = [as_kept(callback, link, one, gateway) for one in said if isinstance(one, Broken)]
    if (said and len(unread) == len(said)) or row.digest in {one.digest for one in unread}:
        return stays
    return Again(row.id, [one for one in said if isinstance(one, Receipt)], unread, row.first_at)


_THERE = "SELECT id FROM {} WHERE id = ANY($1::bigint[])"


async def commit(engine: AsyncEngine, meaning: Meaning, tried: Iterable[Again], *, proven: bool) -> tuple[int, int]:
    """Apply what kept callbacks say, and forget them: those that are still there, and were not erased meanwhile.
    Returns how many of them, and how many receipts were new.
    """
    gone = receipts = 0
    there = _THERE.format("refused" if proven else "unread")
    for part in _groups(tried):
        now = datetime.now(UTC)
        async with transaction(engine) as db:
            await store.hold_off_erasures(db)
            ids = {row[0] for row in await db.fetch(there, [one.id for one in part])}
            group = [one for one in part if one.id in ids]
            days = {*await partitions.days(db)}  # one that is gone takes no more
            arrivals = [
                arrival(receipt, one.arrived, meaning)
                if one.arrived.date() in days
                else arrival(_dated(receipt, one.arrived), now, meaning)
                for one in group
                for receipt in one.receipts
            ]
            ended = [one.id for one in group if one.id and one.ends]
            which = {"proven": ended} if proven else {"read": ended}
            unread = [kept for one in group for kept in one.unread]
            known = await store.stored(db, arrivals)
            fresh = [a for a in arrivals if a.key not in known]
            taken, dropped = await keep(db, fresh, unread, meaning, now, **which)
        metrics.taken(taken, len(arrivals) - len(taken))
        gone, receipts = gone + dropped, receipts + len(taken)
    return gone, receipts


def _dated(receipt: Receipt, came: datetime) -> Receipt:
    """With the times that counted when it came, for a receipt that is stored as one of today."""
    at = believed(receipt.occurred_at, came) or came
    return replace(receipt, occurred_at=at, sent_at=believed(receipt.sent_at, came))


def _groups(tried: Iterable[Again]) -> list[list[Again]]:
    """Transactions of at most GROUP_MOST receipts. A callback of more ends with its last part: until then it stays, and
    the receipts of the parts before are known by their keys.
    """
    groups: list[list[Again]] = []
    room = 0
    for one in tried:
        parts = [one.receipts[start : start + GROUP_MOST] for start in range(0, len(one.receipts), GROUP_MOST)] or [()]
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            if not groups or len(part) > room or len(groups[-1]) >= GROUP_MOST:
                groups.append([])
                room = GROUP_MOST
            groups[-1].append(Again(one.id, part, one.unread if last else (), one.arrived, last))
            room -= len(part)
    return groups


# Dropped -----------------------------------------------------------------------------------------------------------

_IDS = f"SELECT id FROM unread WHERE id > $1 AND {_WHERE} ORDER BY id LIMIT 5000"  # noqa: S608


async def drop(engine: AsyncEngine, which: Which) -> int:
    """Forget them unread. Returns how many."""
    total, after = 0, 0
    while True:
        async with transaction(engine) as db:
            ids = [row[0] for row in await db.fetch(_IDS, after, which.ids, which.gateway)]
            if not ids:
                return total
            total += await store.drop_unread(db, ids)
        after = ids[-1]


_WAITING = f"SELECT count(*) FROM unread WHERE id > $1 AND {_WHERE}"  # noqa: S608


async def waiting(engine: AsyncEngine, which: Which) -> int:
    async with transaction(engine) as db:
        return int(await db.fetchval(_WAITING, 0, which.ids, which.gateway))
