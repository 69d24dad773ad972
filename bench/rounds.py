"""Ours and a peer by turns, A B A B: whatever else the machine does meets both, and the ratio of neighbours stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Generic, Protocol, TypeVar


class Figure(Protocol):
    @property
    def rate(self) -> float: ...


O = TypeVar("O", bound=Figure)  # noqa: E741 - ours
T = TypeVar("T", bound=Figure)


@dataclass(frozen=True, slots=True)
class Turns(Generic[O, T]):
    """The rounds of both, in the order in which they were run."""

    ours: Sequence[O]
    theirs: Sequence[T]

    def ratio(self, of: Callable[[O | T], float] = lambda one: one.rate) -> float:
        return median(of(a) / of(b) for a, b in zip(self.ours, self.theirs, strict=True))


async def turns(rounds: int, ours: Callable[[], Awaitable[O]], theirs: Callable[[], Awaitable[T]]) -> Turns[O, T]:
    pairs = [(await ours(), await theirs()) for _ in range(rounds)]
    return Turns([a for a, _ in pairs], [b for _, b in pairs])
