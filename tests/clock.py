"""A database whose clock is another than ours."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

_TOLD = ("clock_timestamp", "statement_timestamp", "now")


async def set_clock(database_url: str, apart: str) -> None:
    """Whatever asks for the time in this database hears one that lies `apart`; `DEFAULT now()` and views do not ask."""
    engine = create_async_engine(database_url)
    async with engine.begin() as db:
        for name in _TOLD:
            await db.execute(
                text(f"""CREATE FUNCTION public.{name}() RETURNS timestamptz LANGUAGE sql STABLE
                RETURN pg_catalog.{name}() + interval '{apart}'""")
            )
        database = (await db.execute(text("SELECT current_database()"))).scalar_one()
        await db.execute(text(f"ALTER DATABASE {database} SET search_path = public, pg_catalog"))
    await engine.dispose()
