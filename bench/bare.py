"""The bare statements, fed straight from memory: what PostgreSQL and its driver take by themselves, without any HTTP.

A process of its own, as a server is: `python -m bench.bare receipts|status …` says what it did as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from time import perf_counter

import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import status
from app.services.connection import connect
from app.services.intake import Batch, take
from bench.load import CannotMeasure
from bench.traffic import meaning, receipts, some_numbers

DATABASE = "SENDABLE_TEST_BARE_DATABASE"


@dataclass(frozen=True, slots=True)
class Bare:
    """`stored` receipts in all. Of them, or of the questions, `timed` in `seconds`: not the first, which prepares."""

    stored: int
    timed: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.timed / self.seconds


async def bare(url: str, what: str, *, seconds: int, size: int, population: int) -> Bare:
    """Run one of them in a process of its own."""
    given = [what, str(seconds), str(size), str(population)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bare", *given, env=os.environ | {DATABASE: url}, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise CannotMeasure(f"the bare statements ended with status {process.returncode}")
    return Bare(**json.loads(said.splitlines()[-1]))


async def commit(engine: AsyncEngine, seconds: int, size: int, population: int) -> Bare:
    """Ready-made receipts through the write path's transaction, one group after the other."""
    known, made = meaning(), receipts(population, f"bare-{os.getpid()}-{perf_counter()}")

    async def group() -> float:
        done = asyncio.get_running_loop().create_future()
        batch = Batch([*islice(made, size)], (), datetime.now(UTC), done)
        started = perf_counter()
        await take(engine, [batch], known)
        return perf_counter() - started

    times, spent = await _timed(group, seconds)
    return Bare(size * (times + 1), size * times, spent)


async def ask(engine: AsyncEngine, seconds: int, numbers: Sequence[str]) -> Bare:
    """The query of the bulk call, in the call's own portions; its rows are fetched and left unread."""
    reads = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def question() -> float:
        started = perf_counter()
        for first in range(0, len(numbers), status.AT_ONCE):
            await status.read_many(reads, numbers[first : first + status.AT_ONCE])
        return perf_counter() - started

    return Bare(0, *await _timed(question, seconds))


async def _timed(once: Callable[[], Awaitable[float]], seconds: int) -> tuple[int, float]:
    await once()
    times, spent = 0, 0.0
    while spent < seconds:
        spent += await once()
        times += 1
    return times, spent


async def _main(what: str, seconds: int, size: int, population: int) -> None:
    engine = connect(os.environ[DATABASE])
    if what == "receipts":
        done = await commit(engine, seconds, size, population)
    else:
        done = await ask(engine, seconds, some_numbers(population, size))
    print(json.dumps({"stored": done.stored, "timed": done.timed, "seconds": done.seconds}))
    await engine.dispose()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m bench.bare")
    arguments.add_argument("what", choices=("receipts", "status"))
    for figure in ("seconds", "size", "population"):
        arguments.add_argument(figure, type=int)
    uvloop.run(_main(**vars(arguments.parse_args())))
