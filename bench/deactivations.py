"""A deactivation file through the command, beside a bare COPY of the same file: time, and the most memory it took."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

from bench.ground import connected
from bench.load import CannotMeasure
from bench.traffic import number
from tests.running import peak

HELD = 100
"""One line in so many is about a subscriber."""
AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Taken:
    """`peak` is resident MiB, of our process alone; 0 where nobody looked."""

    lines: int
    seconds: float
    peak: float = 0.0

    @property
    def rate(self) -> float:
        return self.lines / self.seconds


def write(path: Path, lines: int, population: int) -> Path:
    """Random numbers of the North American plan in no order, as a carrier's day has them; some are subscribers."""
    some = Random(20)  # noqa: S311 - no secret
    with path.open("w") as file:
        for first in range(0, lines, AT_ONCE):
            file.writelines(
                f"{number(place // HELD % population)}\n" if place % HELD == 0
                else f"1{some.randrange(2_000_000_000, 10_000_000_000)}\n"
                for place in range(first, min(first + AT_ONCE, lines))
            )  # fmt: skip
    return path


async def whole(url: str, file: Path, lines: int) -> Taken:
    """The command, in a process of its own. What it says is believed only if the database says the same."""
    given = ["import", "deactivations", str(file), "--feed", "twilio", "--yes", "--json"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SENDABLE_")}
    began = perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", *given, env=clean | {"SENDABLE_DATABASE_URL": url},
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    most = await peak(process)
    seconds = perf_counter() - began
    if process.returncode:
        raise CannotMeasure(f"the import of a deactivation file ended with status {process.returncode}")
    session = await connected(url)
    found = await session.fetchval("SELECT records FROM feed_files WHERE finished_at IS NOT NULL")
    sendable = await session.fetchval(_SENDABLE, number(0))
    await session.close()
    if found != lines or sendable:
        raise CannotMeasure(f"of {lines} lines {found} were taken in, and its first is sendable {sendable} times")
    return Taken(lines, seconds, most)


_SENDABLE = "SELECT count(*) FROM published.sendable WHERE number = $1"


async def bare(url: str, file: Path, lines: int) -> Taken:
    """The file as it is into a table of one column, without an index."""
    session = await connected(url)
    await session.execute("CREATE TABLE bare (number text)")
    began = perf_counter()
    await session.copy_to_table("bare", source=file)
    seconds = perf_counter() - began
    await session.execute("DROP TABLE bare")
    await session.close()
    return Taken(lines, seconds)
