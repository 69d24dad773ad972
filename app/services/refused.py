"""Requests that did not prove their origin, kept apart: when it was our secret that was wrong, nothing is lost.

Whoever forges requests must not slow receipts or fill the disk: they wait in memory of a bounded size, are written once
a second over a connection of their own, at most so many at a time, and only the newest stay. What they present as a
secret may be tomorrow's: it is kept as a salted digest, which is enough to find it again among the secrets we hold.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import orjson
import structlog
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from app.gateways import certificate_at, confirmation_at, prove, read
from app.models.receipt import Broken, Callback, Link, Links, Receipt
from app.services import metrics
from app.services.connection import Busy, is_lost, transaction
from app.services.errands import Errands
from app.services.logs import error_fields
from app.services.meaning import Meaning
from app.services.presented import masked_header, masked_parameter, restored, restored_header
from app.services.unread import Again, as_kept, commit, tells_a_query

log = structlog.get_logger(__name__)

Gained = TypeVar("Gained")

KEPT = 10_000
"""Of each gateway, the newest."""
BYTES_KEPT = 64 * 1024 * 1024
"""Of each gateway; what is older goes."""
LONGEST = 1024 * 1024
"""Bytes of a request that is kept. Authentic ones are batches of at most some hundred kilobytes."""
WAITING = 1_000
BYTES_WAITING = 8 * 1024 * 1024
"""Of each gateway in this process, until they are written; the newest stay."""
EVERY = 1.0
"""Seconds between two writes."""
AT_ONCE = 200
"""Requests of one gateway in one write, and of all that are proven again in one go."""
BYTES_AT_ONCE = 8 * 1024 * 1024
"""Of the bodies that are proven again in one go; a single one may be as long."""
_LOCK = 7_316_004


class Refused(NamedTuple):
    """A request that proved nothing; `presents` are names under which its gateway is given a secret itself."""

    link: Link
    callback: Callback
    presents: frozenset[str] = frozenset()


class Queue:
    """The newest refused requests of one gateway that are not written yet."""

    def __init__(self) -> None:
        self.waiting: deque[Refused] = deque()
        self.size = 0

    def add(self, refused: Refused) -> None:
        self.waiting.append(refused)
        self.size += _size(refused.callback)
        while len(self.waiting) > WAITING or self.size > BYTES_WAITING:
            self.take()

    def take(self) -> Refused:
        first = self.waiting.popleft()
        self.size -= _size(first.callback)
        return first

    def give_back(self, part: Sequence[Refused]) -> None:
        """What could not be written, before what has come since."""
        since = [self.take() for _ in range(len(self.waiting))]
        for refused in (*part, *since):
            self.add(refused)


class Refusals:
    """What was refused in this process, on its way to the table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._queues: dict[str, Queue] = {}

    def keep(self, link: Link, callback: Callback, presents: frozenset[str] = frozenset()) -> None:
        """Never waits, never fails; the answer to the request does not depend on it."""
        if _size(callback) <= LONGEST:
            self._queues.setdefault(link.gateway, Queue()).add(Refused(link, callback, presents))

    async def run(self) -> None:
        """Until cancelled. While the database is away the newest wait."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.write()
            except Exception as error:  # noqa: BLE001 - it is tried again; it must not end
                log.warning("refused requests are not kept yet", lost=is_lost(error), **error_fields(error))

    async def close(self) -> None:
        """Write what still waits, where the database takes it."""
        with suppress(Exception):
            while any(queue.waiting for queue in self._queues.values()):
                await self.write()

    async def write(self) -> None:
        """A part of what waits, of each gateway."""
        for gateway, queue in [*self._queues.items()]:  # another may come while these are written
            if part := [queue.take() for _ in range(min(len(queue.waiting), AT_ONCE))]:
                try:
                    await _write(self._engine, gateway, [*map(_row, part)])
                except BaseException:
                    queue.give_back(part)
                    raise


def _size(callback: Callback) -> int:
    return len(callback.body) + len(callback.url) + sum(len(name) + len(it) for name, it in callback.headers.items())


_ADD = """
INSERT INTO refused (gateway, account, arrived_at, method, url, headers, query, body, salt)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::jsonb[], $7::text[],
    $8::bytea[], $9::bytea[])
"""
_PRUNE = """
DELETE FROM refused WHERE gateway = $1 AND id <= (
    SELECT max(id) FROM (
        SELECT id, row_number() OVER newest AS place,
               sum(octet_length(body) + pg_column_size(headers) + octet_length(query)) OVER newest AS size
        FROM refused WHERE gateway = $1 WINDOW newest AS (ORDER BY id DESC)) AS kept
    WHERE place > $2 OR size > $3)
"""


async def _write(engine: AsyncEngine, gateway: str, rows: Sequence[Sequence[object]]) -> None:
    async with transaction(engine) as db:
        await db.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await db.execute(_ADD, *zip(*rows, strict=True))
        await db.execute(_PRUNE, gateway, KEPT, BYTES_KEPT)


# What is kept of a request ------------------------------------------------------------------------------------------


def _row(refused: Refused) -> tuple[object, ...]:
    link, callback, presents = refused
    salt = secrets.token_bytes(16)
    kept = {name: it for name, it in callback.headers.items() if "cookie" not in name and not tells_a_query(it)}
    headers = {name: masked_header(salt, name, it, presents) for name, it in kept.items()}
    query = "&".join(masked_parameter(salt, part, presents) for part in callback.query.split("&"))
    return (link.gateway, link.account, callback.at, callback.method, _text(_seen(link, callback)),
            orjson.dumps({_text(name): _text(it) for name, it in headers.items()}).decode(), _text(query),
            callback.body, salt)  # fmt: skip


def _seen(link: Link, callback: Callback) -> str:
    """The URL as it reached us, without its query: a `public_url` may be what is wrong."""
    url = callback.url.partition("?")[0]
    if not link.public_url:
        return url
    scheme = link.public_url.partition("://")[0]
    return f"{scheme}://{callback.header('host')}{url.removeprefix(link.public_url)}"


def _text(said: str) -> str:
    return said.replace("\0", "")


# Proven again ------------------------------------------------------------------------------------------------------


class Reverified(NamedTuple):
    """`proven`: requests that are authentic by the present secrets; `receipts` in them that are new; `left`: others."""

    proven: int = 0
    receipts: int = 0
    left: int = 0


class Stored(NamedTuple):
    """A row of `refused`."""

    id: int
    gateway: str
    account: str
    arrived_at: datetime
    method: str
    url: str
    headers: str
    query: str
    body: bytes
    salt: bytes


_COUNT = "SELECT count(*) FROM refused WHERE $1::text IS NULL OR gateway = $1"
_LAST = "SELECT max(id) FROM refused"
_NEXT = f"""
SELECT id, gateway, account, arrived_at, method, url, headers, query, body, salt
FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY id) - octet_length(body) AS before
      FROM (SELECT * FROM refused WHERE id > $1 AND id <= $3 AND ($2::text IS NULL OR gateway = $2)
            ORDER BY id LIMIT {AT_ONCE}) AS part) AS summed
WHERE before < {BYTES_AT_ONCE} ORDER BY id
"""  # noqa: S608


async def waiting(engine: AsyncEngine, gateway: str | None) -> int:
    async with transaction(engine) as db:
        return int(await db.fetchval(_COUNT, gateway))


async def reverify(engine: AsyncEngine, meaning: Meaning, links: Links, gateway: str | None, *, errands: Errands,
                   told: Callable[[int], None] = lambda _: None) -> Reverified:  # fmt: skip
    """Apply those that prove authentic now, oldest first, each once: as `unread.replay` does. A signed time is held
    against the moment of arrival. A link without a secret proves nothing. What a proof rests on is fetched again, and
    a handshake confirmed; what cannot be had now is left for the next time.
    """
    total, after, last, away = Reverified(), 0, None, set[str]()
    while True:
        async with transaction(engine) as db:
            last = last or await db.fetchval(_LAST)
            rows = [Stored(*row) for row in await db.fetch(_NEXT, after, gateway, last)]
        if not rows:
            return total
        after = rows[-1].id
        tried = [again for row in rows if (again := await _again(row, meaning, links, errands, away))]
        proven, receipts = await commit(engine, meaning, tried, proven=True)
        total = Reverified(total.proven + proven, total.receipts + receipts, total.left + len(rows) - len(tried))
        told(total.proven + total.left)


async def _again(row: Stored, meaning: Meaning, links: Links, errands: Errands, away: set[str]) -> Again | None:
    """None: it stays. `away` are addresses that did not answer in this run: each is waited for but once."""
    gateway, link = meaning.gateways.get(row.gateway), links.get((row.gateway, row.account))
    if gateway is None or link is None:
        return None
    callback = as_received(row, link)
    if address := certificate_at(gateway, callback, link):
        certificate = await _errand(errands.certificate(address), address, away) if address not in away else None
        callback = replace(callback, certificate=certificate or b"")
    if not prove(gateway, callback, link):
        return None
    address = confirmation_at(gateway, callback)
    if address and (address in away or not await _errand(_confirmed(errands, address), address, away)):
        return None
    said = read(gateway, callback, link)
    unread = [as_kept(callback, link, one, gateway) for one in said if isinstance(one, Broken)]
    metrics.UNREAD.labels(gateway.name).inc(len(unread))
    return Again(row.id, [one for one in said if isinstance(one, Receipt)], unread, row.arrived_at)


async def _confirmed(errands: Errands, address: str) -> bool:
    await errands.confirm(address)
    return True


async def _errand(errand: Awaitable[Gained], address: str, away: set[str]) -> Gained | None:
    try:
        return await errand
    except Busy:
        away.add(address)
        return None


def as_received(row: Stored, link: Link) -> Callback:
    """The request as it came, as far as our own secrets can tell; called at the public URL of now."""
    query = restored(row.query, row.salt, link.secrets, lambda secret: quote(secret, safe=""))
    headers = {
        name: restored_header(name, value, row.salt, link.secrets) for name, value in orjson.loads(row.headers).items()
    }
    scheme, _, rest = row.url.partition("://")
    host, slash, path = rest.partition("/")
    base = link.public_url or f"{scheme}://{host}"
    url = f"{base}{slash}{path}"
    return Callback(row.method, f"{url}?{query}" if query else url, headers, query, row.body, row.arrived_at)
