"""The ground all stand on: one PostgreSQL in a folder of its own, durable, with the same subscribers for everyone."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import asyncpg
import psutil
from sqlalchemy import make_url

from app.models.number import Cause, OptIn, Verdict
from app.services import store
from app.services.apply import apply
from app.services.connection import connect, transaction
from app.services.database import serving
from app.services.embedded.home import locate
from app.services.migrate import upgrade
from bench.load import CannotMeasure
from bench.traffic import LIST, meaning, number, sender_of

AT_ONCE = 1_000
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True, slots=True)
class Ground:
    """`ours` and `tutorial` are databases of the same server; `folder` is for what a run leaves on its way."""

    folder: Path
    ours: str
    tutorial: str


@asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    folder = _folder()
    try:
        async with serving(data_dir(folder)) as url:
            await _tell(url, "CREATE DATABASE tutorial")
            yield Ground(folder, url, make_url(url).set(database="tutorial").render_as_string(hide_password=False))
    finally:
        shutil.rmtree(locate(data_dir(folder)).path, ignore_errors=True)
        shutil.rmtree(folder)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sendable-bench-"))
    folder.chmod(0o711)  # else root's stand-in could not enter, and PostgreSQL would move elsewhere
    return folder


def data_dir(folder: Path) -> Path:
    return folder / "data"


async def own_database(server: str, name: str) -> str:
    """A migrated database beside the others on the same server; its URL."""
    await _tell(server, f"CREATE DATABASE {name}")
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    await upgrade(url)
    return url


async def subscribe(url: str, population: int) -> None:
    """Opt everyone in to a list of the sender that writes to them, by the service's own way of keeping it."""
    engine, policy, now = connect(url), meaning().policy, datetime.now(UTC)
    given = OptIn(now, "bench")
    for first in range(0, population, AT_ONCE):
        verdicts = [
            Verdict(number(place), now, Cause("call"), sender=sender_of(place), list=LIST, opted_in=given)
            for place in range(first, min(first + AT_ONCE, population))
        ]
        async with transaction(engine) as db:
            applied = await apply(db, verdicts, policy, now)
            await store.publish(db, [change for changes in applied.changes for change in changes])
    await engine.dispose()
    await _tell(url, "VACUUM ANALYZE")


_KNOWN = """
INSERT INTO number_states (number, state, last_receipt_at)
SELECT '+1555' || lpad(place::text, 7, '0'), 'active', now() FROM generate_series(0, $1 - 1) AS place
ON CONFLICT DO NOTHING
"""


async def know(url: str, population: int) -> None:
    """The same numbers, for the tutorial's way: it updates as often as we do, and inserts as seldom."""
    session = await connected(url)
    await session.execute(_KNOWN, population)
    await session.close()
    await _tell(url, "VACUUM ANALYZE")


_STORED = """
SELECT (SELECT count(*) FROM receipts) AS receipts,
       EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type = 'client backend' AND state <> 'idle') AS busy
"""


QUIET_FOR = 1.5
"""Seconds without a new row after which a load has ended: a large group is decided on for a good part of one."""


async def stored(url: str) -> int:
    """Receipts in the table, once no more are coming: what was on its way when the load ended is waited for."""
    session, before = await connected(url), -1
    try:
        while True:
            now = await session.fetchrow(_STORED)
            if not now["busy"] and now["receipts"] == before:
                return before
            before = now["receipts"]
            await asyncio.sleep(QUIET_FOR)
    finally:
        await session.close()


async def machine(ground: Ground) -> list[str]:
    """What the figures rest on, a line each."""
    session = await connected(ground.ours)
    settings = {name: await session.fetchval(f"SHOW {name}") for name in (*_DURABLE, "server_version")}
    await session.close()
    if any(settings[name] != "on" for name in _DURABLE):
        raise CannotMeasure(f"commits are not durable here: {settings}")
    memory, system = psutil.virtual_memory().total / 2**30, f"{platform.system()} {platform.release()}"
    return [
        f"{_processor()}, {os.cpu_count()} cores shared by the server, PostgreSQL and the client, {memory:.0f} GiB",
        f"{system}, Python {platform.python_version()}, PostgreSQL {settings['server_version']}",
        f"durable commits ({' on, '.join(_DURABLE)} on); 8 KiB reach the disk in {_sync(ground.folder):.2f} ms here",
    ]


def withheld() -> float | None:
    """Percent of the processors' time that the hypervisor gave to others since the last call; None: nobody tells."""
    share: float | None = getattr(psutil.cpu_times_percent(), "steal", None)
    return share


def told(withheld: Mapping[str, float | None]) -> list[str]:
    """By stage, what of the processors was withheld: a ratio of rounds that had unequal shares of them says little."""
    shares = [f"{name} {share:.0f} %" for name, share in withheld.items() if share is not None]
    return [f"of the processors' time the hypervisor withheld (steal): {', '.join(shares)}"] if shares else []


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _sync(folder: Path) -> float:
    """Milliseconds that one durable write takes: without this figure no figure about commits says anything."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(100):
            started = perf_counter()
            file.write(bytes(8192))
            file.flush()
            os.fsync(file.fileno())
            times.append(perf_counter() - started)
    return median(times) * 1e3


async def _tell(url: str, command: str) -> None:
    session = await connected(url)
    await session.execute(command)
    await session.close()


async def connected(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
