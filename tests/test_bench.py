"""The benchmark runs, and believes no figure without proof. How fast anything is, `make bench` asks, not this page."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.gateways import GATEWAYS
from bench.__main__ import run
from bench.ground import told
from bench.load import CannotMeasure, Round, wrk
from bench.plan import Plan
from bench.report import Cost, Line, Report, Target
from bench.rounds import Turns
from bench.stages import STAGES, Run

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="the load generator wrk is not installed")
TINY = Plan(rounds=1, seconds=1, population=200, soak=1, connections=4, lines=2_000)


def seen(done: int, *, seconds: float = 1.0, refused: int = 0, p99: float = 1.0) -> Round:
    return Round(done, refused, 0, seconds, 0.5, p99)


@needs_wrk
async def test_a_tiny_run_of_everything_fills_the_table_and_finds_every_answered_receipt():
    report = await run(TINY, [*STAGES], "make bench")
    assert len(report.lines) == 13
    assert all(line.ratio > 0 for line in report.lines)
    assert [cost.gateway for cost in report.costs] == sorted(GATEWAYS)
    assert all(cost.verify > 0 and cost.read > 0 for cost in report.costs)
    ours, *_ = (truth for truth in report.truths if truth.startswith("Sendable"))
    assert "all found" in ours
    assert "fsync on" in "".join(report.machine)
    if sys.platform == "linux":
        shares = dict(one.split(maxsplit=1) for one in report.machine[-1].partition(": ")[2].split(", "))
        assert list(shares) == [*STAGES]
        assert all(0 <= float(share.removesuffix(" %")) <= 100 for share in shares.values())


def test_what_the_hypervisor_withheld_is_told_by_stage_and_not_where_nobody_knows():
    assert told({"tutorial": 45.6, "status": 0.0}) == [
        "of the processors' time the hypervisor withheld (steal): tutorial 46 %, status 0 %"
    ]
    assert told({"tutorial": None, "status": None}) == []


def test_without_wrk_it_ends_at_once_and_says_how_to_install_it(tmp_path: Path):
    command = [sys.executable, "-m", "bench", "--quick"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apt-get install wrk" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotMeasure, match="apt-get install wrk"):
        wrk()


@pytest.mark.parametrize(
    ("found", "refused"),
    [(99, 0), (105, 0), (100, 1)],
    ids=["one is missing", "more than were under way", "one refused"],
)
def test_a_round_whose_receipts_are_not_all_there_ends_the_run(found: int, refused: int):
    with pytest.raises(CannotMeasure):
        a_run().check("a cheat", seen(100, refused=refused), found, 1)


def test_receipts_whose_answers_wrk_did_not_wait_for_are_no_fault():
    one = a_run()
    one.check("ours", seen(100), 104, 1)
    assert one.truths() == ["ours: 100 receipts answered, all found, and 4 whose answer wrk did not wait for"]


def test_receipts_that_were_answered_and_lost_are_told():
    one = a_run()
    one.tell("answers first", 100, 60)
    assert one.truths() == ["answers first: 100 receipts answered, **40 of them lost**"]


def test_a_ratio_is_the_median_of_the_ratios_of_neighbours():
    taken = Turns([seen(10), seen(40), seen(90)], [seen(10), seen(20), seen(30)])
    assert taken.ratio() == 2.0


@pytest.mark.parametrize(
    ("target", "met"),
    [(Target("≥", 12), "yes"), (Target("≤", 1.5), "**no**"), (Target("<", 12), "**no**"), (Target(), "")],
)
def test_a_line_says_whether_its_target_is_met(target: Target, met: str):
    assert Line("singles", "the tutorial's way", 12.0, target, "12/s", "1/s").cells()[:3] == ("12.00", str(target), met)


def test_the_page_keeps_its_words_and_changes_its_table(tmp_path: Path):
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- written by make bench -->\nold\n<!-- end -->\nafter\n", "utf-8")
    line = Line("singles", "the tutorial's way", 12.0, Target("≥", 12), "12/s", "1/s")
    Report([line], ["all found"], ["a machine"], "make bench", [Cost("kannel", 3.25, 6.5)]).write(page)
    text = page.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| 12.00 | ≥ 12" in text
    assert "| kannel  | 3.2    | 6.5  | 9.8      |" in text


def a_run() -> Run:
    return Run(TINY, ground=None, traffic=None, ours=None, fresh=0.0)  # type: ignore[arg-type]
