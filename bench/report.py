"""What was found: one line a ratio, the ratios first, each beside what we ask of ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_START, _END = "<!-- written by make bench -->", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Target:
    """`≥ 12`; without a figure the ratio is shown for what it says, and nothing is asked of it."""

    how: Literal["≥", "≤", "<"] = "≥"
    figure: float | None = None

    def met(self, ratio: float) -> bool | None:
        if self.figure is None:
            return None
        return {"≥": ratio >= self.figure, "≤": ratio <= self.figure, "<": ratio < self.figure}[self.how]

    def __str__(self) -> str:
        return "" if self.figure is None else f"{self.how} {self.figure:g}"


@dataclass(frozen=True, slots=True)
class Line:
    """`ours` is `ratio` times what `beside` did."""

    what: str
    beside: str
    ratio: float
    target: Target
    ours: str
    theirs: str

    def cells(self) -> tuple[str, ...]:
        met = {True: "yes", False: "**no**", None: ""}[self.target.met(self.ratio)]
        return (f"{self.ratio:.2f}", str(self.target), met, self.what, self.ours, self.beside, self.theirs)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds that one gateway's receipts take within one process, before anything is stored."""

    gateway: str
    verify: float
    """A post, by the dearest of its recorded proofs."""
    read: float
    """A receipt, in the median of its recorded cases."""

    def cells(self) -> tuple[str, ...]:
        return (self.gateway, *(f"{one:.1f}" for one in (self.verify, self.read, self.verify + self.read)))


@dataclass(frozen=True, slots=True)
class Report:
    lines: Sequence[Line]
    truths: Sequence[str]
    machine: Sequence[str]
    command: str
    costs: Sequence[Cost] = ()

    def table(self) -> str:
        head = ("ratio", "target", "met", "Sendable", "median", "beside", "median")
        return _table(head, [line.cells() for line in self.lines])

    def text(self) -> str:
        facts = [f"- {fact}" for fact in (f"`{self.command}`, {datetime.now(UTC):%Y-%m-%d}", *self.machine)]
        truths = [f"- {truth}" for truth in self.truths]
        found = ["Answered, and found in the database afterwards:", "", *truths]
        return "\n".join([self.table(), "", *facts, "", *found, *self._costs()])

    def _costs(self) -> list[str]:
        head = ("gateway", "verify", "read", "together")
        said = "Microseconds a receipt, in one process, before anything is stored:"
        return ["", said, "", _table(head, [cost.cells() for cost in self.costs])] if self.costs else []

    def write(self, page: Path = PAGE) -> None:
        """Put it into the page, in place of the last one."""
        before, _, rest = page.read_text("utf-8").partition(_START)
        after = rest.partition(_END)[2]
        page.write_text(f"{before}{_START}\n\n{self.text()}\n\n{_END}{after}", "utf-8")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    written = [_row([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]) for row in (head, *rows)]
    return "\n".join([written[0], _row(["-" * width for width in widths]), *written[1:]])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
