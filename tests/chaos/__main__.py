"""`make chaos`, or `python -m tests.chaos [--kills N] [--seed N] [--only WHAT]`: chaos for as long as you like."""

# ruff: noqa: T201 - a program that prints

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from random import SystemRandom

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.chaos.ground import Postgres, folder, postgres, served
from tests.chaos.storm import Outcome, Tell, kill_postgres, kill_services, stop_service

SHOWN = 20
"""Lines of what is wrong that are printed."""


async def services(kills: int, seed: int, tell: Tell) -> Outcome:
    """Two services on a PostgreSQL of our own, killed with -9."""
    with folder() as path:
        async with postgres(path) as server:
            url = await server.database()
            async with served(path, 2, database_url=url) as two:
                return await kill_services(two, url, kills, seed, tell=tell)


async def embedded(kills: int, seed: int, tell: Tell) -> Outcome:
    """The embedded PostgreSQL, killed with -9 under its service."""
    with folder() as path:
        async with served(path, data_dir=str(path / "data")) as one:
            server = Postgres(path / "data")
            await server.recover_quickly()
            return await kill_postgres(server, one, server.url, kills, seed, tell=tell)


async def owner(kills: int, seed: int, tell: Tell) -> Outcome:
    """A service killed with -9, and with it the embedded PostgreSQL that it owns."""
    with folder() as path:
        async with served(path, data_dir=str(path / "data")) as one:
            server = Postgres(path / "data")
            await server.recover_quickly()
            return await kill_services(one, server.url, kills, seed, tell=tell)


async def beside(kills: int, seed: int, tell: Tell) -> Outcome:
    """A PostgreSQL of our own, killed with -9 under three services."""
    with folder() as path:
        async with postgres(path) as server:
            url = await server.database()
            async with served(path, 3, database_url=url) as three:
                return await kill_postgres(server, three, url, kills, seed, tell=tell)


async def stops(kills: int, seed: int, tell: Tell) -> Outcome:
    """A service told to stop by SIGTERM."""
    with folder() as path:
        async with postgres(path) as server:
            url = await server.database()
            async with served(path, database_url=url) as (one,):
                return await stop_service(one, url, kills, seed, tell=tell)


STORMS: dict[str, Callable[[int, int, Tell], Awaitable[Outcome]]] = {
    one.__name__: one for one in (services, embedded, owner, beside, stops)
}


async def run(names: list[str], kills: int, seed: int) -> dict[str, Outcome]:
    """One storm after the other, each with so many kills."""
    outcomes = {}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[words]}"))  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for name in names:
            task = progress.add_task(str(STORMS[name].__doc__), total=kills, words="")

            def tell(times: int, words: str, task: object = task) -> None:
                progress.update(task, completed=times, words=words)  # type: ignore[arg-type]

            outcomes[name] = await STORMS[name](kills, seed, tell)
    return outcomes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kills at random moments under load.")
    parser.add_argument("--kills", type=int, default=200, help="of each kind [200]")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10_000), help="of facts and moments")
    parser.add_argument("--only", action="append", choices=STORMS, metavar="WHAT", help=f"one of {', '.join(STORMS)}")
    return parser.parse_args()


def main() -> int:
    """Print what each storm did and found; 1 when anything is wrong."""
    given = _arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    names = given.only or [*STORMS]
    only = "".join(f" --only {name}" for name in given.only or ())
    print(f"python -m tests.chaos --kills {given.kills} --seed {given.seed}{only}", flush=True)
    try:
        outcomes = asyncio.run(run(names, given.kills, given.seed))
    except KeyboardInterrupt:
        return 130
    for name, outcome in outcomes.items():
        print(f"{STORMS[name].__doc__} {outcome.figures()}")
        for line in outcome.wrong[:SHOWN]:
            print(f"  WRONG: {line}")
    return 1 if any(one.wrong for one in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
