"""Time that passes: nobody waits for it, everything that is known of numbers is that much older."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from sqlalchemy import text

from tests.conftest import Service

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)")
_WRITE = """
INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{table}, :rows)
"""


async def passes(service: Service, span: timedelta) -> None:
    """Receipts, what they have made of numbers, and what the feed has told: each moment in them, wherever it stands."""

    def older(found: re.Match[str]) -> str:
        return (datetime.fromisoformat(found[0]) - span).isoformat()

    async with service.app.state.engine.begin() as db:
        for table in ("receipts", "numbers", "changes"):
            rows = await db.scalar(text(f"SELECT json_agg(t)::text FROM {table} t"))  # noqa: S608 - ours
            await db.execute(text(f"DELETE FROM {table}"))  # noqa: S608
            await db.execute(text(_WRITE.format(table=table)), {"rows": _MOMENT.sub(older, rows or "[]")})
