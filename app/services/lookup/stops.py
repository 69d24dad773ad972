"""Providers that refuse our account: no process asks them again until a person or a restart. Kept in the database.

A stop holds for the settings under which it came: another key is another account.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.lookup import Failure
from app.services import store
from app.services.connection import Connection, is_lost, transaction
from app.services.logs import error_fields

log = structlog.get_logger(__name__)

ALARM = "lookup_stopped"
"""Kind of the alarm; its key is the provider."""


class Stop(NamedTuple):
    """`error` is `auth` or `quota`; `config` marks the settings."""

    provider: str
    config: str
    error: Failure
    since: datetime


_READ = "SELECT provider, config, error FROM lookup_stops"


async def read(db: Connection) -> Mapping[tuple[str, str], Failure]:
    """Why a provider is stopped, by its name and settings."""
    return {(row["provider"], row["config"]): row["error"] for row in await db.fetch(_READ)}


_STOP = """
INSERT INTO lookup_stops (provider, config, error, since) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
RETURNING provider
"""


async def stop(engine: AsyncEngine, provider: str, config: str, error: Failure) -> None:
    """For all processes, with an alarm. Never raises: what cannot be written now is heard again at the next call."""
    now = datetime.now(UTC)
    try:
        async with transaction(engine) as db:
            if await db.fetchval(_STOP, provider, config, error, now):
                await store.alarm(db, {(ALARM, provider): 1}, now)
    except Exception as lost:  # noqa: BLE001 - see above
        log.warning("a provider's stop was not kept", provider=provider, lost=is_lost(lost), **error_fields(lost))
    else:
        log.warning("a lookup provider refuses our account", provider=provider, refused=error)


_LIFT = "DELETE FROM lookup_stops WHERE provider = ANY($1::text[]) RETURNING provider, config, error, since"
_WAKE = """
UPDATE lookups SET due_at = clock_timestamp()
WHERE number IN (SELECT number FROM lookups WHERE waiting_for = 'lookup' AND lease_until IS NULL
                 ORDER BY number FOR UPDATE SKIP LOCKED)
"""


async def lift(engine: AsyncEngine, *providers: str) -> list[Stop]:
    """Let all processes ask these again, at once about what nobody has answered. Returns what was stopped."""
    async with transaction(engine) as db:
        lifted = [Stop(*row) for row in await db.fetch(_LIFT, [*providers])]
        if lifted:
            await db.execute(_WAKE)
            await store.clear_alarms(db, [ALARM], datetime.now(UTC), providers)
    return lifted
