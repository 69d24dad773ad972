"""How much is measured, and what we ask of ourselves."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 128
BATCH = 100
"""Receipts in one post, and in one group of the bare statements."""
BULK = 10_000
"""Numbers in one bulk question."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` is the length of one round; ours and a peer take turns for `rounds` of them each."""

    rounds: int = 5
    seconds: int = 3
    population: int = 50_000
    soak: int = 60
    """Seconds of unbroken load after which memory is looked at."""
    connections: int = CONNECTIONS
    lines: int = 10_000_000
    """Of a deactivation file."""


FULL = Plan()
QUICK = Plan(rounds=2, seconds=2, population=20_000, soak=10, lines=200_000)
