"""The embedded PostgreSQL in use: started or joined, restarted when it dies, stopped when its owner goes.

One process owns the server, by the lock on the data folder. Any other (the CLI, a second `serve`) joins it and stands
in line for the lock: when the owner goes, the next one starts the server again, at the same URL.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO

import asyncpg
import structlog

from app.services.embedded import cluster, watcher
from app.services.embedded.home import ROLE, CannotStart, Home, locate

__all__ = ["OUR_WAY", "CannotStart", "serving", "url_for"]

log = structlog.get_logger()

_SQLALCHEMY = "postgresql+asyncpg"
OUR_WAY = "&sslmode=disable&target_session_attrs=any"
"""Behind the URL where our own driver reads it: what is left out it takes from PGSSLMODE and the like, which are set
for other databases, and asks for certificates where there is but a socket.
"""
_GLANCE = 0.05
"""Seconds between two looks at the lock or at the server's process."""
_PRUNE = 60.0
"""Seconds between two looks at the size of the server's log."""
STOP_WITHIN = 20.0
"""Seconds for a server to stop. One that hangs is left to its watcher, who holds the lock: the next start waits."""
_TELL = 5.0
"""Seconds between two lines of log while a recovery lasts."""

_NOT_YET = (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError, asyncpg.TooManyConnectionsError, asyncpg.InternalClientError)  # fmt: skip


@asynccontextmanager
async def serving(data_dir: Path) -> AsyncIterator[str]:
    """Yield a SQLAlchemy URL that answers now and stays valid across restarts. Raises CannotStart."""
    home = await asyncio.to_thread(locate, data_dir)
    ready = asyncio.Event()
    keeping = asyncio.create_task(_keep(home, ready))
    try:
        await _until_it_answers(home, keeping)
        ready.set()
        yield home.url(ROLE, ROLE, _SQLALCHEMY)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


def url_for(data_dir: Path, role: str = ROLE, *, driver: str = "postgresql") -> str:
    """Where root and the server's own user reach it, in the role of their choice, while it runs. As psql reads it."""
    return locate(data_dir).url(role, ROLE, driver)


async def _until_it_answers(home: Home, keeping: asyncio.Task[None]) -> None:
    """As long as a recovery takes. A real query is the proof: a pid or a socket may be a dead server's."""
    began = told = time.monotonic()
    while not await _answers(home):
        if keeping.done():
            keeping.result()
        if time.monotonic() - told > _TELL:
            told = time.monotonic()
            log.warning("postgres not ready yet", waited_seconds=round(told - began))
        await asyncio.sleep(_GLANCE)


async def _answers(home: Home) -> bool:
    try:
        session = await asyncpg.connect(home.url(ROLE, ROLE, "postgresql") + OUR_WAY, timeout=_TELL)
    except _NOT_YET:
        return False
    try:
        return bool(await session.fetchval("SELECT true"))
    except _NOT_YET:
        return False
    finally:
        session.terminate()


async def _keep(home: Home, ready: asyncio.Event) -> None:
    """Once the lock is ours, start the server and start it again whenever it ends; until cancelled."""
    async with _lock(home) as lock:
        try:
            await asyncio.to_thread(cluster.furnish, home, lock)
        except OSError as error:
            why = f"{home.path} cannot be used ({error.strerror}): make room there, or mend its rights"
            raise CannotStart(why) from error
        while True:
            began = time.monotonic()
            try:
                why = await _live(home, lock)
            except OSError as error:  # no room, no memory, no process left: not even its start comes off
                why = error.strerror or type(error).__name__
            if not ready.is_set():
                raise CannotStart(f"PostgreSQL did not start in {home.path}: {why}")
            log.error("postgres ended and is started again", why=why)
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))


@asynccontextmanager
async def _lock(home: Home) -> AsyncIterator[int]:
    held = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await _until(lambda: _taken(held))
        yield held
    finally:
        os.close(held)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holds(home: Home, lock: int) -> bool:
    """Whether the file that we have locked is still the one that others would lock."""
    try:
        return os.path.samestat(os.fstat(lock), home.lock.stat())
    except FileNotFoundError:
        return False


async def _live(home: Home, lock: int) -> str:
    """One life of the server; why it ended. When we are cancelled, it is stopped first."""
    if not _holds(home, lock):  # whoever made it anew owns what runs there now: it must not be taken for a survivor
        return f"{home.lock} is gone, or another one now: put the folder back, or restart Sendable"
    await _alone(home)
    with tempfile.TemporaryFile() as said:
        server = _start(home, lock, said)
        try:
            await _watch(server, home)
        finally:
            await _stop(server)
        said.seek(0)
        return _why(said.read().decode(errors="replace"), home)


def _why(said: str, home: Home) -> str:
    """Its last words before it logged elsewhere, of which a line at LOG tells; without any, where its log is."""
    lines = [line for line in said.strip().splitlines() if " LOG: " not in line]
    return lines[-1] if lines else f"see {home.log}"


async def _watch(server: subprocess.Popen[bytes], home: Home) -> None:
    """Until it ends; meanwhile its log keeps its size."""
    while server.poll() is None:
        cluster.prune_logs(home)
        with suppress(TimeoutError):
            await asyncio.wait_for(_until(lambda: server.poll() is not None), _PRUNE)


async def _alone(home: Home) -> None:
    """Wait until nothing of an earlier server is left. We hold the lock, so whatever is there has lost its owner."""
    while await asyncio.to_thread(cluster.survivors, home):
        cluster.dismiss(home)
        await asyncio.sleep(_GLANCE)


def _start(home: Home, lock: int, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """The watcher inherits the lock: it is free when the last server has gone, not when we have."""
    log.info("postgres starts", home=str(home.path), user=home.user)
    return subprocess.Popen(
        [sys.executable, "-I", watcher.__file__, str(home.uid), str(home.gid), *cluster.command(home)],
        stdin=subprocess.PIPE, stdout=said, stderr=said, cwd=home.path, env=cluster.environment(home),
        pass_fds=[lock], start_new_session=True,
    )  # fmt: skip


async def _stop(server: subprocess.Popen[bytes]) -> None:
    """Close the pipe that the watcher holds; it stops the server, fast, and ends."""
    if server.stdin:
        server.stdin.close()
    try:
        await asyncio.wait_for(_until(lambda: server.poll() is not None), STOP_WITHIN)
    except TimeoutError:
        log.warning("postgres has not stopped yet and is left to its watcher", waited_seconds=round(STOP_WITHIN))
        Thread(target=server.wait, daemon=True).start()  # while we still live, it must not become a zombie


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - it is about other processes, and those set no events
        await asyncio.sleep(_GLANCE)
