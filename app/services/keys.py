"""Keys of internal services: 256 random bits, shown once. Only a digest is kept, and the id is cut from it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services.connection import heard, is_lost, read

SCOPES = {
    "numbers:read": "status, history, receipts, lists, the feed, alarms",
    "consent:write": "opt-in and opt-out",
    "messages:write": "the sent-message register",
    "lookups:write": "ask for carrier lookups",
    "deactivations:write": "carriers' deactivation files",
    "metrics:read": "/metrics alone, for a scraper",
    "admin": "everything, held numbers included",
}
KNOWN_FOR = 5.0
"""Seconds for which a key that was read is good: a revoked one is refused after at most this long."""
AGAIN_WITHIN = 1.0
"""Seconds that a known key waits to be read again. A database that has not answered by then counts as away."""


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    name: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    first: bool = False

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def live(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class UnknownScope(ValueError):
    """One line: which scope, and those there are."""


def new_token() -> str:
    """A prefix that secret scanners can look for, and 256 random bits."""
    return f"sendable_{secrets.token_hex(32)}"


def digest_of(token: str) -> bytes:
    """No salt and no slow hash: what is hashed is random, so nothing can be tried."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def id_of(token: str) -> str:
    """What a key is called in lists and logs. It tells nothing of the key."""
    return digest_of(token).hex()[:12]


# In the database ---------------------------------------------------------------------------------------------------

_COLUMNS = "id, name, scopes, created_at, expires_at, revoked_at, first"
_CREATE = text(f"""
INSERT INTO api_keys (id, name, digest, scopes, expires_at)
VALUES (:id, :name, :digest, :scopes, clock_timestamp() + CAST(:lasts AS interval)) RETURNING {_COLUMNS}
""")  # noqa: S608 - a constant of this file


async def create(
    engine: AsyncEngine, name: str, scopes: Iterable[str], lasts: timedelta | None = None
) -> tuple[Key, str]:
    """A new key and its token, which nobody can read again. Raises UnknownScope."""
    wanted = sorted(set(scopes))
    if extra := [scope for scope in wanted if scope not in SCOPES]:
        raise UnknownScope(f"{extra[0]!r} is no scope; there are {', '.join(SCOPES)}")
    token = new_token()
    ask = {"id": id_of(token), "name": name, "digest": digest_of(token), "scopes": wanted, "lasts": lasts}
    async with engine.begin() as db:
        return _key((await db.execute(_CREATE, ask)).one()), token


_LIST = text(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id")  # noqa: S608 - a constant of this file


async def list_all(engine: AsyncEngine) -> list[Key]:
    """All keys, those that have ended too, oldest first."""
    return [_key(row) for row in await read(engine, _LIST)]


_REVOKE = text(f"""
UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :id RETURNING {_COLUMNS}
""")  # noqa: S608 - a constant of this file


async def revoke(engine: AsyncEngine, id_: str) -> Key | None:
    """End a key for good. None when there is none of this id; a second time changes nothing."""
    async with engine.begin() as db:
        row = (await db.execute(_REVOKE, {"id": id_})).one_or_none()
        return _key(row) if row else None


# A former first key is deleted, so that it may be the first again; one that a person revoked stays revoked.
_REPLACE_FIRST = text("DELETE FROM api_keys WHERE first AND id <> :id AND revoked_at IS NULL")
_KEEP_FIRST = text("""
INSERT INTO api_keys (id, name, digest, scopes, first) VALUES (:id, 'first key', :digest, '{admin}', true)
ON CONFLICT (id) DO NOTHING
""")


async def keep_first(engine: AsyncEngine, token: str) -> None:
    """The key that a container is given by its environment: there, with the scope admin, and no former one."""
    async with engine.begin() as db:
        await db.execute(_REPLACE_FIRST, {"id": id_of(token)})
        await db.execute(_KEEP_FIRST, {"id": id_of(token), "digest": digest_of(token)})


def _key(row: Row[Any]) -> Key:
    return Key(row.id, row.name, frozenset(row.scopes), row.created_at, row.expires_at, row.revoked_at, row.first)


# In memory ---------------------------------------------------------------------------------------------------------

_LIVE = text(f"""
SELECT {_COLUMNS}, digest FROM api_keys
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
""")  # noqa: S608 - a constant of this file


class Keyring:
    """The live keys as this process last read them, so that a request with a known one costs no query.

    A token that is not among them is looked for at once, so a new key works from its first use; however many
    strangers ask at the same moment, one query answers them all, or fails for them all.
    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._live: dict[str, tuple[bytes, Key]] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._begun = self._ended = 0  # which query was begun last, and which has ended last, counted from 1

    async def find(self, token: str) -> Key | None:
        """The live key that this token is."""
        digest = digest_of(token)
        key = self._known(digest)
        if key is None:
            await self._read(self._begun + 1)
        elif self._clock() - self._read_at > KNOWN_FOR:
            await self._again()
        else:
            return key
        return self._known(digest)

    def _known(self, digest: bytes) -> Key | None:
        kept, key = self._live.get(digest.hex()[:12], (b"", None))
        return key if key and hmac.compare_digest(kept, digest) and key.live(datetime.now(UTC)) else None

    async def _again(self) -> None:
        """While the database is away a key that was good stays good: nothing behind it but `/metrics` answers then."""
        try:
            async with asyncio.timeout(AGAIN_WITHIN):
                await self._read(self._begun if self._reading else self._begun + 1)
        except Exception as error:
            if not is_lost(error):
                raise

    async def _read(self, query: int) -> None:
        """Wait until this query, or a later one, has read the keys. Where the one before fails, so does this one: who
        has waited for it has no time left to wait for another.
        """
        while self._ended < query:
            if self._reading is None:
                self._begun += 1
                self._reading = asyncio.create_task(self._query(self._begun))
                self._reading.add_done_callback(heard)
            await asyncio.shield(self._reading)

    async def _query(self, query: int) -> None:
        began = self._clock()
        try:
            rows = await read(self._engine, _LIVE)
        finally:
            self._reading = None
        self._live = {row.id: (row.digest, _key(row)) for row in rows}
        self._read_at, self._ended = began, query
