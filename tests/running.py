"""The real command in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from app.cli import main

WITHIN = 120
"""Seconds that anything here may take, on a machine that does much else."""


class Said(NamedTuple):
    code: int
    out: str
    err: str


async def until(true: Callable[[], object]) -> None:
    """Wait for what another process does; nothing tells us when."""
    async with asyncio.timeout(WITHIN):
        while not true():
            await asyncio.sleep(0.02)


# Settings of ours and of PostgreSQL's clients, ways around loopback, and what makes Python say more or a full disk look
# harmless. GITHUB_ACTIONS puts colours into what is no terminal, as FORCE_COLOR does.
_OF_THE_MACHINE = re.compile(
    r"SENDABLE_|PG|PYTHON(?!PATH$|HASHSEED$)|\w+_PROXY$|\w+_COLORS?$|TTY_|COLUMNS$|LINES$|GITHUB_ACTIONS$",
    re.IGNORECASE,
)


def environment(**given: str) -> dict[str, str]:
    """Ours without what this machine says to other programs, then what is given: `database_url=…` is
    SENDABLE_DATABASE_URL.
    """
    clean = {name: value for name, value in os.environ.items() if not _OF_THE_MACHINE.match(name)}
    return clean | {f"SENDABLE_{name.upper()}": str(value) for name, value in given.items()}


async def sendable(*args: str, **settings: str) -> Said:
    """One command to its end, in a fork of a process that has imported it already: that takes longest of all."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKS.Process(target=_command, args=(args, environment(**settings), out, err))
        process.start()
        await asyncio.to_thread(process.join, WITHIN)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"sendable {' '.join(args)}: {err.read_text()}")
        return Said(process.exitcode, out.read_text(), err.read_text())


async def peak(process: asyncio.subprocess.Process) -> float:
    """The most MiB that a process has had resident, until it ends."""
    most, watched = 0.0, psutil.Process(process.pid)
    ending = asyncio.create_task(process.wait())
    while not ending.done():
        try:
            most = max(most, watched.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            break
        await asyncio.wait([ending], timeout=0.02)
    await ending
    return most


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["app.cli"])


def _command(args: tuple[str, ...], settings: dict[str, str], out: Path, err: Path) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(settings)
    sys.argv = ["sendable", *args]
    main()


@dataclass
class Served:
    """A service in a process of its own. `said` is its standard output so far, `log` the file of its standard error."""

    process: asyncio.subprocess.Process
    log: Path
    url: str = ""
    said: list[str] = field(default_factory=list)

    async def end(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), WITHIN)

    def family(self) -> list[psutil.Process]:
        """The process and all that it has started."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]


CALM = str(Path(__file__).with_name("calm.toml"))
"""A policy for tests in which many numbers fail at once on purpose: no mass event is meant."""


@asynccontextmanager
async def launched(log: Path, *args: str, **settings: str) -> AsyncIterator[Served]:
    """`sendable serve` on a free port, not yet waited for."""
    with log.open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "serve", "--port", "0", *args, env=environment(**settings),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=err,
        )  # fmt: skip
    served = Served(process, log)
    try:
        yield served
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), WITHIN)
        if process.stdout:
            served.said += (await process.stdout.read()).decode().splitlines()


@asynccontextmanager
async def serving(log: Path, *args: str, **settings: str) -> AsyncIterator[Served]:
    """`sendable serve` on a free port, once it listens."""
    async with launched(log, *args, **settings) as served:
        await asyncio.wait_for(_listening(served), WITHIN)
        yield served


async def _listening(served: Served) -> None:
    stream = served.process.stdout
    while stream and (line := (await stream.readline()).decode()):
        served.said.append(line.rstrip())
        if found := re.search(r"listens on (http://\S+),", line):
            served.url = found[1]
        if line.startswith("Every call:"):
            return
    why = served.log.read_text() if served.log.is_file() else "its log went nowhere"
    raise AssertionError(f"it ended before it listened: {why}")
