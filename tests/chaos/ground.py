"""What is killed: `sendable serve` as its own command starts it, and a PostgreSQL of our own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import httpx
import psutil
from sqlalchemy import make_url

from app.services.database import serving
from app.services.embedded import cluster
from app.services.embedded.home import ROLE, Home, locate
from tests.chaos.load import until, until_so

STARTS = 60.0
"""Seconds for a start on a busy machine, the recovery of its database included."""
_numbers = count(1)
_NUMBER = re.compile(rb"\b1?555555\d{4}\b")
_REPOSITORY = Path(__file__).parents[2]
_CALM = _REPOSITORY / "tests" / "calm.toml"


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder which root's stand-in can pass through, so that PostgreSQL stays in it. Nothing logged in it may
    hold a phone number, whatever was killed.
    """
    path = Path(tempfile.mkdtemp(prefix="sendable-chaos-"))
    path.chmod(0o711)
    try:
        yield path
        logs = [*path.glob("*.log"), *locate(path / "data").log.rglob("*")]
        assert [one.name for one in logs if one.is_file() and _NUMBER.search(one.read_bytes())] == []
    finally:
        shutil.rmtree(locate(path / "data").path, ignore_errors=True)
        shutil.rmtree(path)


class Postgres:
    """A server that can be killed, stopped, frozen and told things. It comes back by itself, as a supervisor's does."""

    def __init__(self, data_dir: Path) -> None:
        self.home: Home = locate(data_dir)
        self.url = self.home.url(ROLE, ROLE, "postgresql")

    async def database(self) -> str:
        """A new, empty database; its URL as settings and asyncpg take it."""
        name = f"chaos_{next(_numbers)}"
        await self.tell(f"CREATE DATABASE {name}")
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    async def tell(self, command: str, role: str = ROLE) -> None:
        await self.ask(command, self.home.url(role, ROLE, "postgresql"))

    async def ask(self, question: str, url: str | None = None) -> Any:
        """The first value of the first row."""
        session = await asyncpg.connect(url or self.url)
        try:
            return await session.fetchval(question)
        finally:
            await session.close()

    async def recover_quickly(self) -> None:
        """A recovery begins with an fsync of each of 1,000 files, which takes seconds: this is one call for all."""
        if sys.platform == "linux":
            await self.tell("ALTER SYSTEM SET recovery_init_sync_method = 'syncfs'", role="postgres")

    async def restarted_with(self, setting: str) -> None:
        """A setting that only a start reads."""
        await self.tell(f"ALTER SYSTEM SET {setting}", role="postgres")
        before = self.process_id()
        self.stop()
        await until(lambda: self.process_id() not in {None, before}, STARTS)
        await until_so(self.answers, STARTS)

    def process_id(self) -> int | None:
        """The postmaster's; None while there is none."""
        try:
            return int((self.home.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return None

    def kill(self) -> None:
        """As a power cut: the postmaster at once, and with it every session."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """A fast stop: sessions are told that an administrator ends them (57P01)."""
        self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        found = self.process_id()
        assert found, "there is no server to tell"
        os.kill(found, number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing of it moves and no connection breaks: a machine that hangs."""
        still = cluster.survivors(self.home)
        for process in still:
            process.suspend()
        try:
            yield
        finally:
            for process in still:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    async def answers(self) -> bool:
        try:
            await self.tell("SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError):
            return False
        return True


@asynccontextmanager
async def postgres(path: Path) -> AsyncIterator[Postgres]:
    async with serving(path / "data"):
        server = Postgres(path / "data")
        await server.recover_quickly()
        yield server


class Served:
    """One `sendable serve`, in a session and process group of its own, as a terminal would have it."""

    def __init__(self, path: Path, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = int(one.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = path / f"serve-{self.port}.log"
        self._config = path / "sendable.toml"
        self._config.write_text("[lookup]\nproviders = []\n")
        self._settings = {f"SENDABLE_{name.upper()}": value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it has not been started"
        return self._process

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SENDABLE_")}
        given = {"SENDABLE_AUTH": "off", "SENDABLE_PORT": str(self.port), "SENDABLE_CONFIG": str(self._config),
                 "SENDABLE_POLICY": str(_CALM)}  # fmt: skip
        command = [str(Path(sys.executable).with_name("sendable")), "serve", "--quiet"]
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(
                command, env=kept | given | self._settings, cwd=_REPOSITORY, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True,
            )  # fmt: skip

    async def ready(self) -> None:
        """Until it says that requests may be sent. Raises TimeoutError, or AssertionError when it has ended instead."""
        async with asyncio.timeout(STARTS), httpx.AsyncClient(trust_env=False) as http:
            while True:
                assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.last_words()}"
                with suppress(httpx.TransportError):
                    if (await http.get(f"{self.url}/readyz")).is_success:
                        return
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """At once, and nobody is told."""
        self.process.kill()
        await until(lambda: self.process.poll() is not None, 10)

    async def ended(self, number: signal.Signals, within: float, *, group: bool = False) -> float:
        """Send a signal and wait until the process has gone; the seconds it took. Raises TimeoutError."""
        began = monotonic()
        (os.killpg if group else os.kill)(self.process.pid, number)
        await until(lambda: self.process.poll() is not None, within)
        return monotonic() - began

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def told(self, words: str) -> int:
        """How often its log says so."""
        return self.log.read_text(errors="replace").count(words)


@asynccontextmanager
async def served(path: Path, processes: int = 1, **settings: str) -> AsyncIterator[list[Served]]:
    """Services that answer. At the end they are stopped, and killed if they do not stop."""
    many = [Served(path, **settings) for _ in range(processes)]
    try:
        for one in many:
            one.start()
        for one in many:
            await one.ready()
        yield many
    finally:
        for one in many:
            if one._process is not None and one.process.poll() is None:
                one.process.terminate()
        for one in many:
            if one._process is not None:
                await _gone(one.process)


async def _gone(process: subprocess.Popen[bytes]) -> None:
    try:
        await until(lambda: process.poll() is not None, 30)
    except TimeoutError:
        process.kill()
        process.wait()
