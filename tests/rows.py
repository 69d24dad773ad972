"""All that a database holds, so that a test can say that nothing in it has changed."""

from __future__ import annotations

from tests.conftest import Service


async def contents(service: Service) -> dict[str, tuple[int, str]]:
    """Every row of every table, the catalogue's own included."""
    tables = await service.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
                               "AND table_type = 'BASE TABLE' ORDER BY 1")  # fmt: skip
    found = {}
    for (table,) in tables:
        statement = f"SELECT count(*), md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"  # noqa: S608
        ((many, digest),) = await service.sql(statement)
        found[table] = (many, digest)
    assert len(found) > 25
    return found
