"""A connection that has ended between two uses is nobody's 503."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from app.services.connection import connect, driver_of, read, transaction


async def test_a_connection_that_ended_while_nobody_used_it_is_replaced_unseen(database_url: str) -> None:
    """After a restart of the database, hours ago, the first receipt was refused, which some gateways never repeat."""
    engine, other = connect(database_url, pool=1), connect(database_url, pool=1)
    async with engine.connect() as db:
        idle = await driver_of(db)
    await read(other, text("SELECT pg_terminate_backend(:pid)"), {"pid": idle.get_server_pid()})
    async with asyncio.timeout(30):
        while not idle.is_closed():
            await asyncio.sleep(0)
    async with transaction(engine) as raw:
        assert await raw.fetchval("SELECT pg_backend_pid()") != idle.get_server_pid()
    await engine.dispose()
    await other.dispose()


async def test_the_server_keeps_a_quiet_connection_alive(database_url: str) -> None:
    """For what forgets one on the way. On a socket of the machine itself it has no value, but whose it is."""
    engine = connect(database_url, pool=1)
    [(source,)] = await read(engine, text("SELECT source FROM pg_settings WHERE name = 'tcp_keepalives_idle'"))
    assert source == "session"
    await engine.dispose()


async def test_what_is_in_use_while_its_pool_is_given_up_is_closed_when_its_user_is_done(database_url: str) -> None:
    """A lost server costs the pool; the connections that others have just then would come back to a pool of nobody's,
    and hold a session of the server until they are collected.
    """
    engine = connect(database_url)
    async with engine.connect() as db:
        kept = await driver_of(db)
        with pytest.raises(ConnectionResetError):
            async with transaction(engine):
                raise ConnectionResetError
        assert await kept.fetchval("SELECT 1") == 1
    assert kept.is_closed()
    await engine.dispose()
