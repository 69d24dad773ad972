"""What it takes to verify and to read a receipt of each gateway: those recorded in tests/gateways, time after time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from timeit import repeat

from app.gateways import prove, read
from app.models.receipt import Receipt
from bench.load import CannotMeasure
from bench.report import Cost
from tests.gateway_cases import CASES, PROOFS, Case

TIMES = 50
"""Calls in one round; the quickest round counts, since whatever else the machine does only adds to it."""
LONGEST = 1_000
"""Receipts of a case: what is longer asks how much a batch may hold, not how long a receipt takes."""


def costs(rounds: int) -> list[Cost]:
    """Each gateway by name, described ones as one. Raises CannotMeasure for a recorded proof that proves nothing."""
    read_in = by_gateway(CASES, lambda case: reading(case, rounds))
    verified_in = by_gateway(PROOFS, lambda case: verifying(case, rounds))
    return [Cost(name, max(verified_in[name]), median(read_in[name])) for name in sorted(read_in)]


def by_gateway(cases: Sequence[Case], cost: Callable[[Case], float | None]) -> dict[str, list[float]]:
    found = defaultdict(list)
    for case in cases:
        if (one := cost(case)) is not None:
            found[case.gateway.name.partition("/")[0]].append(one)
    return found


def verifying(case: Case, rounds: int) -> float:
    link = replace(case.link, secrets=(case.secret,))
    if not prove(case.gateway, case.callback, link):
        raise CannotMeasure(f"a recorded proof proves nothing: {case.name}")
    return quickest(lambda: prove(case.gateway, case.callback, link), rounds)


def reading(case: Case, rounds: int) -> float | None:
    """Microseconds a receipt; None for a case that says anything else."""
    if not 0 < len(case.receipts) <= LONGEST or not only_receipts(read(case.gateway, case.callback, case.link)):
        return None
    return quickest(lambda: read(case.gateway, case.callback, case.link), rounds) / len(case.receipts)


def only_receipts(said: Iterable[object]) -> bool:
    return all(isinstance(one, Receipt) for one in said)


def quickest(call: Callable[[], object], rounds: int) -> float:
    return min(repeat(call, number=TIMES, repeat=rounds)) / TIMES * 1e6
