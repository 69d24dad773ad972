"""The schema: what the migrations build is what the code says, whoever runs them and however many at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.models.tables import metadata
from app.services import migrate
from app.services.migrate import SchemaError, upgrade
from tests.conftest import Start, drop


def difference(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    ours = ("alembic_version", "receipts_2")  # Alembic's own table, and the partitions, which are made by day
    return [found for found in compare_metadata(context, metadata) if not any(name in str(found) for name in ours)]


async def test_the_migrations_build_exactly_the_tables_that_the_code_knows(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.connect() as db:
        assert await db.run_sync(difference) == []
    await engine.dispose()


async def empty(url: str, name: str) -> str:
    await drop(url, name)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as db:
        await db.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return make_url(url).set(database=name).render_as_string(hide_password=False)


async def test_many_processes_may_migrate_an_empty_database_at_once(database_url: str) -> None:
    url = await empty(database_url, "sendable_together")
    try:
        assert await asyncio.gather(*(upgrade(url) for _ in range(6))) == [migrate.head()] * 6
    finally:
        await drop(database_url, "sendable_together")


async def test_a_database_newer_than_the_code_is_refused_in_one_line(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    with pytest.raises(SchemaError, match=r"version 9999, newer than this code .*: start a newer Sendable"):
        await upgrade(database_url)


@pytest.mark.parametrize(("theirs", "says"), [
    ("CREATE TABLE numbers (id int)", 'relation "numbers" already exists; give Sendable a database of its own'),
    ("CREATE SCHEMA published", 'schema "published" already exists; give Sendable a database of its own'),
    ("CREATE TABLE alembic_version AS SELECT 'ae1027a6acf' AS version_num",
     "its schema is at 'ae1027a6acf'; give Sendable a database of its own"),
])  # fmt: skip
async def test_the_database_of_another_program_is_left_alone_and_named(
    database_url: str, theirs: str, says: str
) -> None:
    url = await empty(database_url, "sendable_theirs")
    engine = create_async_engine(url)
    tables = text(
        "SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r'"
    )
    try:
        async with engine.begin() as db:
            await db.execute(text(theirs))
            before = {*(await db.execute(tables)).all()}
        with pytest.raises(SchemaError) as refused:
            await upgrade(url)
        assert str(refused.value) == f"the database is another program's: {says}"
        async with engine.connect() as db:
            assert {*(await db.execute(tables)).all()} == before
    finally:
        await engine.dispose()
        await drop(database_url, "sendable_theirs")


async def test_a_migration_waits_for_a_busy_table_without_blocking_those_behind_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "50ms")
    engine = create_async_engine(database_url)
    async with engine.begin() as db:
        await db.execute(text("DELETE FROM alembic_version"))
        await db.execute(text("DROP SCHEMA published CASCADE"))
        for table in reversed(metadata.sorted_tables):
            await db.execute(text(f"DROP TABLE {table.name}"))
        await db.execute(text("CREATE TABLE alembic_version_lock (x int)"))
    async with engine.connect() as holder:
        await holder.execute(text("BEGIN"))
        await holder.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
        migrating = asyncio.create_task(upgrade(database_url))
        done, _ = await asyncio.wait([migrating], timeout=0.5)
        assert not done
        await holder.rollback()
    assert await migrating == migrate.head()
    await engine.dispose()


async def test_a_search_path_without_any_schema_is_told_with_what_mends_it(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as db:
        await db.execute(text(f"ALTER DATABASE {make_url(database_url).database} SET search_path = ''"))
    await engine.dispose()
    with pytest.raises(SchemaError, match=r"no schema of the search_path .*: let an administrator run CREATE SCHEMA"):
        await upgrade(database_url)


@asynccontextmanager
async def of_an_earlier_release(url: str, name: str) -> AsyncIterator[AsyncEngine]:
    """A database whose upgrade changes tables that hold something."""

    def build(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")

    engine = create_async_engine(await empty(url, name))
    try:
        async with engine.begin() as db:
            await db.run_sync(build)
        yield engine
    finally:
        await engine.dispose()
        await drop(url, name)


async def test_a_migration_that_waits_in_a_ring_with_a_writer_is_tried_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "1min")
    async with of_an_earlier_release(database_url, "sendable_ring") as engine, engine.connect() as writer:
        await writer.execute(text("LOCK TABLE numbers IN ROW EXCLUSIVE MODE"))
        migrating = asyncio.create_task(upgrade(engine.url.render_as_string(hide_password=False)))
        async with asyncio.timeout(60):
            while not (await writer.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted"))).all():
                assert not migrating.done()
        with suppress(DBAPIError):  # who has waited for a second gives way: the migration, unless we are slow
            await writer.execute(text("LOCK TABLE changes IN ROW EXCLUSIVE MODE"))
        await writer.rollback()
        assert await migrating == migrate.head()


async def test_a_limit_for_statements_is_none_for_a_migration(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "1min")
    long = "SELECT 1 FROM pg_locks WHERE clock_timestamp() > waitstart + interval '1.2 s'"
    async with of_an_earlier_release(database_url, "sendable_limit") as engine, engine.connect() as reader:
        await reader.execute(text("ALTER DATABASE sendable_limit SET statement_timeout = '1s'"))
        await reader.commit()
        await reader.execute(text("LOCK TABLE numbers IN ACCESS SHARE MODE"))
        migrating = asyncio.create_task(upgrade(engine.url.render_as_string(hide_password=False)))
        async with asyncio.timeout(60):
            while not migrating.done() and not (await reader.execute(text(long))).all():
                pass
        await reader.rollback()
        assert await migrating == migrate.head()


async def test_a_table_that_others_keep_locked_is_told_in_words(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrate, "PATIENCE", 0)
    async with of_an_earlier_release(database_url, "sendable_read") as engine, engine.connect() as backup:
        await backup.execute(text("LOCK TABLE numbers IN ACCESS SHARE MODE"))
        with pytest.raises(SchemaError, match="are kept locked by others"):
            await upgrade(engine.url.render_as_string(hide_password=False))


async def test_an_owner_without_the_right_to_make_roles_can_migrate(database_url: str) -> None:
    engine = create_async_engine(await empty(database_url, "sendable_plain"))
    try:
        async with engine.begin() as db:
            await db.execute(text("CREATE ROLE plain_owner NOSUPERUSER NOCREATEROLE"))
            await db.execute(text("GRANT plain_owner TO CURRENT_USER"))
            await db.execute(text("ALTER DATABASE sendable_plain OWNER TO plain_owner"))
            await db.execute(text("ALTER SCHEMA public OWNER TO plain_owner"))
        async with engine.begin() as db:
            await db.execute(text("SET LOCAL ROLE plain_owner"))
            await db.run_sync(migrate._upgrade)
        async with engine.connect() as db:
            owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'numbers'"
            assert (await db.execute(text(owner))).scalar() == "plain_owner"
    finally:
        await engine.dispose()
        await drop(database_url, "sendable_plain")
        engine = create_async_engine(database_url)
        async with engine.begin() as db:
            await db.execute(text("DROP ROLE plain_owner"))
        await engine.dispose()


async def test_partitions_are_made_ahead_and_old_days_are_dropped(start: Start) -> None:
    async with start() as service:
        await service.sql("CREATE TABLE receipts_20200101 PARTITION OF receipts "
                          "FOR VALUES FROM ('2020-01-01Z') TO ('2020-01-02Z')")  # fmt: skip
    partitions = "SELECT relname FROM pg_class WHERE relname ~ '^receipts_[0-9]{8}$' ORDER BY 1"
    async with start() as service:
        names = [name for (name,) in await service.sql(partitions)]
        [(today,)] = await service.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
    assert f"receipts_{today}" in names
    assert sum(name > f"receipts_{today}" for name in names) == 7
    assert "receipts_20200101" not in names
