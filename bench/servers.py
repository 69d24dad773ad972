"""Servers under measurement: each one process, uvicorn with uvloop and httptools, no access log, pinned to nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench.load import CannotMeasure

START_WITHIN = 60.0
STOP_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]

    def memory(self) -> float:
        """Resident MiB of the server's own process."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def kill(self) -> None:
        """At once, as a power cut would."""
        self.process.kill()
        self.process.wait()


POLICY = Path(__file__).with_name("policy.toml")
"""What many numbers fail for at once is counted as everywhere, and never taken for a mass event."""


@asynccontextmanager
async def sendable(data_dir: Path, log: Path, more: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """Our own service by its own command, on the embedded PostgreSQL that lives in `data_dir`. `more`: settings."""
    port = _free_port()
    given = {"SENDABLE_DATA_DIR": str(data_dir), "SENDABLE_PORT": str(port), "SENDABLE_AUTH": "off",
             "SENDABLE_POLICY": str(POLICY)}  # fmt: skip
    given |= more or {}
    command = [str(Path(sys.executable).with_name("sendable")), "serve"]
    async with _running(command, port, "/readyz", given, log) as server:
        yield server


@asynccontextmanager
async def peer(factory: str, log: Path, given: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """A peer: `module:factory` of a FastAPI or Starlette app."""
    port = _free_port()
    command = [
        sys.executable, "-m", "uvicorn", factory, "--factory", "--host", "127.0.0.1", "--port", str(port),
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    async with _running(command, port, "/", given or {}, log) as server:
        yield server


@asynccontextmanager
async def _running(command: list[str], port: int, proof: str, given: Mapping[str, str],
                   log: Path) -> AsyncIterator[Server]:  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SENDABLE_")}
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=kept | dict(given), stdout=said, stderr=said)  # noqa: ASYNC220 - it is quick
    server = Server(f"http://127.0.0.1:{port}", process)
    try:
        await _until_it_answers(server, proof, log)
        yield server
    finally:
        process.terminate()
        await asyncio.to_thread(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _until_it_answers(server: Server, proof: str, log: Path) -> None:
    """Any answer below 500: a peer has no route at `/`."""
    async with httpx.AsyncClient(base_url=server.url) as client, asyncio.timeout(START_WITHIN):
        while True:
            if server.process.poll() is not None:
                raise CannotMeasure(f"a server did not start: {_last_line(log)}")
            try:
                if (await client.get(proof)).status_code < 500:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip() or "it said nothing").splitlines()[-1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
