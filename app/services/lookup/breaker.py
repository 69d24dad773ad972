"""When a provider may be asked: not while it fails, not faster than it allows, not at all once our account is refused.

The clock is passed in, in seconds; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from app.models.lookup import STOPPING, Failure

FAILS = 5
"""Failures in a row after which a provider is left alone."""
RESTS, RESTS_MOST = 15.0, 300.0
"""Seconds that it is left alone, doubled by each trial that fails."""
FAULTS: frozenset[Failure] = frozenset({"provider_error", "malformed"})

Clock = Callable[[], float]


@dataclass(slots=True)
class Breaker:
    """Closed, open until a moment, then open for one trial; or stopped, until a person or a restart."""

    clock: Clock = monotonic
    stopped: Failure | None = None
    failures: int = 0
    rests: float = RESTS
    open_until: float = 0.0
    trying: bool = False

    def lets(self) -> bool:
        """Whether a call may be made now. An open breaker lets one trial through when its time is over."""
        if not self.ready():
            return False
        self.trying = self.failures >= FAILS
        return True

    def ready(self) -> bool:
        """The same without taking the trial."""
        return not (self.stopped or self.is_open() or self.trying)

    def is_open(self) -> bool:
        return self.left() > 0

    def left(self) -> float:
        """Seconds for which it is still left alone."""
        return max(self.open_until - self.clock(), 0.0)

    def rests_now(self) -> bool:
        return self.failures >= FAILS

    def heard(self, error: Failure | None) -> None:
        """What a call came to; None for an answer. Answers about a number, and rate limits, are no faults."""
        was_trial, self.trying = self.trying, False
        if error in STOPPING:
            self.stopped = error
        elif error not in FAULTS:
            self.failures, self.rests = 0, RESTS
        else:
            self.failures += 1
            if self.failures >= FAILS:
                self.rests = min(self.rests * 2, RESTS_MOST) if was_trial else self.rests
                self.open_until = self.clock() + self.rests


@dataclass(slots=True)
class Pace:
    """At most so many calls a second, evenly spread, and none while the provider asks us to wait."""

    per_second: float
    clock: Clock = monotonic
    _next: float = field(default=0.0)
    _rests_until: float = field(default=0.0)

    def waits(self) -> float:
        """Seconds until the next turn, which is not taken with this."""
        return max(self._next - self.clock(), 0.0)

    def soon(self, within: float) -> int:
        """How many turns are still to be had that begin within so many seconds."""
        left = within - self.waits()
        return int(left * self.per_second) + 1 if left >= 0 else 0

    def turn(self) -> float:
        """Seconds to wait for one's turn, which is taken with this."""
        now = self.clock()
        mine = max(now, self._next)
        self._next = mine + 1 / self.per_second
        return mine - now

    def rest(self, seconds: float) -> None:
        self._rests_until = self.clock() + seconds
        self._next = max(self._next, self._rests_until)

    def rests(self) -> float:
        """Seconds for which the provider still asks us to wait."""
        return max(self._rests_until - self.clock(), 0.0)
