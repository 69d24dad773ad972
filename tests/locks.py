"""Who waits for a lock, as PostgreSQL tells it."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conftest import Service

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def waiting(service: Service, many: int, *tasks: asyncio.Task[Any]) -> None:
    """Return when so many sessions wait for others. None of these tasks may end before that."""
    while (await service.sql(_WAITING))[0][0] < many:
        assert not any(task.done() for task in tasks)
