"""The real command in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

WITHIN = 120
"""Seconds that anything here may take, on a machine that does much else."""


class Said(NamedTuple):
    code: int
    out: str
    err: str


def environment(**given: str) -> dict[str, str]:
    """Ours without any of its settings, then those given: `database_url=…` is SENDABLE_DATABASE_URL."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SENDABLE_")}
    return clean | {f"SENDABLE_{name.upper()}": str(value) for name, value in given.items()}


async def sendable(*args: str, **settings: str) -> Said:
    """One command to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", *args, env=environment(**settings), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), WITHIN)
    return Said(process.returncode or 0, out.decode(), err.decode())


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
    raise AssertionError(f"it ended before it listened: {served.log.read_text()}")
