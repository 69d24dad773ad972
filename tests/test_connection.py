"""A connection that has ended between two uses is nobody's 503, and a host that died is not waited for."""

from __future__ import annotations

import asyncio
import socket

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import InternalError

from app.services.connection import Connection, connect, driver_of, is_lost, read, transaction
from app.services.past import looking


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


def beside(url: str, dead: socket.socket, asked: str) -> str:
    """The URL of a database with another host before its own."""
    ours = make_url(url)
    hosts, ports = f"127.0.0.1,{ours.query['host']}", f"{dead.getsockname()[1]},{ours.query['port']}"
    return ours.set(query={"host": hosts, "port": ports, "target_session_attrs": asked}).render_as_string(
        hide_password=False
    )


@pytest.mark.parametrize("asked", ["read-write", "any"])
async def test_a_host_that_says_nothing_keeps_nobody_from_the_next(database_url: str, asked: str) -> None:
    """As a machine does that has died, or was cut off: it refuses nothing. The standby was never asked."""
    with socket.create_server(("127.0.0.1", 0)) as dead:  # the kernel takes connections, and nobody answers
        engine = connect(beside(database_url, dead, asked))
        async with transaction(engine) as db:
            assert await db.fetchval("SELECT 1") == 1
        await engine.dispose()


async def test_where_no_host_will_do_the_one_that_does_not_answer_is_told_of(database_url: str) -> None:
    """What is still a standby may be the primary in a moment; what is not there has to be mended first."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = beside(database_url, closed, "standby")
    engine = connect(url)
    with pytest.raises(ConnectionRefusedError):
        await read(engine, text("SELECT 1"))
    await engine.dispose()


async def test_where_all_hosts_answer_and_none_is_as_asked_that_is_told(database_url: str) -> None:
    ours = make_url(database_url)
    twice = {name: f"{said},{said}" for name, said in ours.query.items()}
    engine = connect(ours.set(query=twice | {"target_session_attrs": "standby"}).render_as_string(hide_password=False))
    with pytest.raises(InternalError, match="None of the hosts match"):
        await read(engine, text("SELECT 1"))


async def limit(db: Connection) -> str:
    return str(await db.fetchval("SHOW idle_in_transaction_session_timeout"))


async def test_who_sleeps_in_a_transaction_loses_it_and_may_try_again(database_url: str) -> None:
    """A process, or a machine, that was suspended in the middle of one kept all others from writing until it woke."""
    engine, ended = connect(database_url, pool=1), asyncio.Event()
    async with transaction(engine) as db:
        assert await limit(db) == "30s"

    async def sleep() -> None:
        async with transaction(engine) as db:
            await db.execute("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
            db.add_termination_listener(lambda _: ended.set())
            await ended.wait()
            await db.fetchval("SELECT 1")

    (lost,) = await asyncio.gather(asyncio.wait_for(sleep(), 30), return_exceptions=True)
    assert isinstance(lost, Exception)
    assert is_lost(lost)
    assert not isinstance(lost, TimeoutError)
    async with transaction(engine) as db:
        assert await db.fetchval("SELECT 1") == 1
    await engine.dispose()


async def test_who_only_reads_the_past_keeps_nobody_waiting_and_may_sleep(database_url: str) -> None:
    engine = connect(database_url, pool=1)
    async with looking(engine) as db:
        assert await limit(db) == "0"
    await engine.dispose()
