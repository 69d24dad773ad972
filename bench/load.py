"""The load generator, `wrk`: a program of its own, so that making the load costs no server time of its own thread."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

Kind = Literal["receipts", "status", "bulk"]
SCRIPT = Path(__file__).with_name("load.lua")


class CannotMeasure(RuntimeError):
    """The benchmark cannot run, or its figures would not be true. One line: why, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Round:
    """What wrk saw. `done` counts items (receipts, questions) that got a 2xx; times are in milliseconds."""

    done: int
    refused: int
    broken: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.done / self.seconds


def wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise CannotMeasure("the load generator wrk is not installed: apt-get install wrk (macOS: brew install wrk)")
    return found


async def load(url: str, kind: Kind, traffic: Path, *, seconds: int, connections: int, size: int = 1) -> Round:
    """Load `url` for so long, as fast as it answers. `size`: receipts, or numbers, in one request."""
    said = await _run(
        wrk(), "--latency", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
        "--timeout", "10s", "--script", str(SCRIPT), url, "--", kind, str(traffic), uuid4().hex[:12], str(size),
    )  # fmt: skip
    seen = json.loads(said.splitlines()[-1])
    each = size if kind == "receipts" else 1
    return Round(
        (seen["requests"] - seen["refused"]) * each, seen["refused"], seen["broken"], seen["duration"] / 1e6,
        seen["p50"] / 1e3, seen["p99"] / 1e3,
    )  # fmt: skip


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise CannotMeasure(f"{Path(command[0]).name} ended with status {process.returncode}")
    return said.decode()
