"""Programs of others, started in a folder of their own and stopped again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.running import WITHIN


def installed(name: str, package: str) -> str:
    """Where a program is. Whoever runs these tests wants them run: without it they fail, and say how to mend it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is not installed: apt-get install {package}"
    return found


def environment(name: str) -> Path:
    """The Python of an environment that `make real` keeps beside the running one, since their pins clash."""
    found = Path(sys.prefix, name, "bin", "python")
    assert found.exists(), f"the environment {name} is missing: make .venv/{name}/.made"
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def running(log: Path, *command: str, given: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """A program, until the block ends: then it and all that it has started are gone, whatever happened."""
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=log.parent, env=os.environ | dict(given or {}), stdin=asyncio.subprocess.DEVNULL,
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        _signal(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), WITHIN)
        finally:
            _signal(process.pid, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


async def answers(port: int) -> None:
    """Wait until something listens there."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
