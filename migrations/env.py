"""Runs the migrations on the connection that app/services/migrate.py hands over, or on SENDABLE_DATABASE_URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.models.tables import metadata


def ours(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:  # noqa: FBT001
    """The partitions of `receipts` are made by day, not by migrations."""
    return not (kind in {"table", "index"} and name and name.startswith("receipts_2"))


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, include_object=ours, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    engine = create_async_engine(os.environ["SENDABLE_DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if handed := context.config.attributes.get("connection"):
    run(handed)
else:
    asyncio.run(run_alone())
