"""Whether the database can be worked with just now: it answers, takes writes, and has the schema of this code."""

from __future__ import annotations

import asyncio
from functools import cache

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import migrate
from app.services.connection import is_lost

ANSWERS_WITHIN = 2.0
"""Seconds that the database has to answer a probe."""
AWAY = "database: it does not answer"
head = cache(migrate.head)

_ASK = text("""
SELECT version_num AS schema, current_setting('transaction_read_only') = 'on' AS closed FROM alembic_version
""")


async def missing(engine: AsyncEngine) -> list[str]:
    """What is not as it should be."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN), engine.connect() as db:
            row = (await db.execute(_ASK)).one()
    except (SQLAlchemyError, TimeoutError, OSError) as error:
        return [AWAY if is_lost(error) else "schema: none that can be read"]
    wrong = []
    if row.closed:
        wrong.append("database: it takes no writes (a standby, or a demoted primary)")
    if row.schema != head():
        wrong.append(f"schema: the database is at version {row.schema}, this code at {head()}")
    return wrong
