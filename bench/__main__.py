"""`make bench`, or `python -m bench [--quick] [--only NAME]`: the benchmark, its peers and ceilings, in one run."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

import structlog
import uvloop
from rich.console import Console

from bench.ground import data_dir, ground, machine, subscribe, told, withheld
from bench.load import CannotMeasure, wrk
from bench.plan import FULL, QUICK, Plan
from bench.report import Report
from bench.servers import sendable
from bench.stages import STAGES, Run
from bench.traffic import write_for_wrk

_console = Console(stderr=True)


async def run(plan: Plan, names: Sequence[str], command: str) -> Report:
    """Measure what is named, in the order of STAGES. Raises CannotMeasure."""
    wrk()
    async with ground() as here:
        traffic = here.folder / "traffic.lua"
        write_for_wrk(traffic, plan.population)
        facts = await machine(here)
        async with sendable(data_dir(here.folder), here.folder / "sendable.log") as ours:
            one = Run(plan, here, traffic, ours, ours.memory())
            _tell(f"opting {plan.population:,} subscribers in")
            await subscribe(here.ours, plan.population)
            await one.take(seconds=1)
            lines, taken_away = [], {}
            withheld()
            for name in (name for name in STAGES if name in names):
                _tell(name)
                lines += await STAGES[name](one)
                taken_away[name] = withheld()
            return Report(lines, one.truths(), [*facts, *told(taken_away)], command, one.costs)


def _tell(what: str) -> None:
    if _console.is_terminal:
        _console.print(f"[dim]{what} …[/dim]")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds: the figures are rough")
    parser.add_argument("--only", action="append", choices=STAGES, metavar="NAME", help=f"one of {', '.join(STAGES)}")
    parser.add_argument("--soak", type=int, metavar="SECONDS", help="how long memory is watched under load")
    return parser


def main() -> int:
    """Print the table; a whole run at full length also renews docs/benchmarks.md."""
    given = _arguments().parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    plan = QUICK if given.quick else FULL
    plan = replace(plan, soak=given.soak) if given.soak else plan
    command = " ".join(["python -m bench", *sys.argv[1:]]) if sys.argv[1:] else "make bench"
    try:
        report = uvloop.run(run(plan, given.only or [*STAGES], command))
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report.text())
    if not (given.quick or given.only):
        report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
