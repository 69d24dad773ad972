"""`sendable import deactivations` as people run it: killed in the middle, with millions of lines, asked and refused."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service
from tests.running import environment, peak, sendable

DAY = "2026-11-20"
HELD, LISTED = 2_000, 600


@pytest.fixture
def database(database_url: str) -> dict[str, str]:
    return {"database_url": database_url}


@pytest.fixture
async def people(service: Service) -> list[str]:
    """Subscribers, more than any test's file takes of them unasked."""
    numbers = [f"+1555556{place:04}" for place in range(HELD)]
    await service.sql(
        """WITH n AS (INSERT INTO numbers (number, facts, state)
               SELECT n, json_build_object('number', n, 'seen', true, 'opted_in', '2026-01-02T03:04:05Z'), 'active'
               FROM unnest(CAST(:numbers AS text[])) n RETURNING number)
        INSERT INTO subscriptions (number, sender, list, facts, consent, opted_in_at, at)
        SELECT number, '12345', 'spring', '[{"at": "2026-01-02T03:04:05Z", "source": "form"}, null]', 'opted_in',
               '2026-01-02T03:04:05Z', '2026-01-02T03:04:05Z' FROM n RETURNING 1""",
        numbers=numbers,
    )
    await service.sql("INSERT INTO list_sizes VALUES ('12345', 'spring', :held, 0)", held=len(numbers))
    return numbers


def write(path: Path, people: list[str], strangers: int) -> Path:
    """A file of a seed: the people spread among strangers, with a broken line."""
    some = random.Random(7)  # noqa: S311 - no secret
    lines = [f"1{some.randrange(2_000_000_000, 10_000_000_000)}" for _ in range(strangers)]
    for place, one in enumerate(people):
        lines.insert(place * strangers // len(people), one)
    lines.insert(100, "rubbish")
    path.write_text("\n".join(lines))
    return path


async def told(service: Service) -> dict[str, Any]:
    """Everything that a reader can see, in a few figures."""
    [row] = await service.sql("""
    SELECT (SELECT count(*) FROM numbers WHERE state = 'deactivated' AND facts IS NULL) AS noted,
           (SELECT count(*) FROM numbers WHERE state = 'deactivated' AND facts IS NOT NULL) AS held,
           (SELECT count(*) FROM subscriptions WHERE consent = 'opted_out') AS opted_out,
           (SELECT count(*) FROM changes) AS changes,
           (SELECT count(DISTINCT (number, kind)) FROM changes) AS different,
           (SELECT count(*) FROM pg_class WHERE relname LIKE 'feed_lines%') AS tables""")
    return dict(zip(("noted", "held", "opted_out", "changes", "different", "tables"), row, strict=True))


PROGRESS = "SELECT staged, acted, finished_at IS NOT NULL FROM feed_files"
Seen = Callable[[int, int], bool]
WHILE: dict[str, Seen] = {
    "it reads": lambda staged, _acted: staged > 0,
    "it acts": lambda _staged, acted: acted > 0,
}


async def killed(service: Service, database: dict[str, str], file: Path, when: Seen) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "import", "deactivations", str(file), "--feed", "twilio", "--date", DAY,
        "--yes", env=environment(**database), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(120):
        while not any(when(staged, acted) for staged, acted, _ in await service.sql(PROGRESS)):
            assert process.returncode is None
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_killed_at_any_moment_it_goes_on_and_ends_as_if_it_had_not_been(
    service: Service, database: dict[str, str], people: list[str], tmp_path: Path
) -> None:
    file = write(tmp_path / "deact.txt", people[:LISTED], 120_000)
    for when in WHILE.values():
        await killed(service, database, file, when)
        assert [finished for *_, finished in await service.sql(PROGRESS)] == [False]
    [(staged, acted, _)] = await service.sql(PROGRESS)
    assert (staged, acted > 0) == (120_000 + LISTED + 1, True)
    said = await sendable(
        "import", "deactivations", str(file), "--feed", "twilio", "--date", DAY, "--yes", "--json", **database
    )
    assert said.code == 0, said.err
    outcome = json.loads(said.out)
    assert (outcome["records"], outcome["broken"], outcome["held"], outcome["opted_out"]) == (
        120_000 + LISTED, 1, LISTED, LISTED,
    )  # fmt: skip
    assert outcome["errors"] == [{"line": 101, "error": "not a possible phone number"}]
    distinct = len({*file.read_text().splitlines()} - {*people, "rubbish"})
    assert await told(service) == {
        "noted": distinct, "held": LISTED, "opted_out": LISTED, "changes": 2 * LISTED, "different": 2 * LISTED,
        "tables": 0,
    }  # fmt: skip
    assert outcome["remembered"] == distinct


async def test_the_length_of_a_file_costs_no_memory(
    service: Service, database: dict[str, str], people: list[str], tmp_path: Path
) -> None:
    peaks = []
    for lines in (2_000, 200_000):
        file = write(tmp_path / f"{lines}.txt", people[:LISTED], lines)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "import", "deactivations", str(file), "--feed", "twilio", "--yes",
            env=environment(**database), stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        peaks.append(await peak(process))
        assert process.returncode == 0
    assert peaks[1] < 150
    assert peaks[1] < peaks[0] + 30
    assert (await told(service))["held"] == LISTED


async def test_it_asks_before_it_takes_much_and_a_dry_run_says_how_much(
    service: Service, database: dict[str, str], people: list[str], tmp_path: Path
) -> None:
    file = write(tmp_path / "att-deacts_20261120.csv", people[:LISTED], 50)
    said = await sendable("import", "deactivations", str(file), "--dry-run", "--json", **database)
    outcome = json.loads(said.out)
    assert (said.code, outcome["feed"], outcome["day"], outcome["dry_run"]) == (0, "carrier", DAY, True)
    assert outcome["lists"] == [{"sender": "12345", "list": "spring", "subscribers": HELD, "affected": LISTED}]
    said = await sendable("import", "deactivations", str(file), **database)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("sendable: the file would take 600 of the 2,000 subscribers of list spring of 12345")
    assert "--yes" in said.err
    assert (await told(service))["opted_out"] == 0
    said = await sendable("import", "deactivations", str(file), "--yes", **database)
    assert (said.code, "line 101: not a possible phone number" in said.err) == (0, True)
    assert (await told(service))["opted_out"] == LISTED
    said = await sendable("import", "deactivations", str(file), **database)
    assert (said.code, "nothing changed" in said.err) == (0, True)


WRONG = {
    "numbers.txt": "numbers.txt does not tell which feed wrote it: add --feed, one of ",
    "numbers.txt --feed nobody": "'nobody' is no feed; there are ",
    "numbers.txt --feed twilio --date soon": "--date 'soon' is no day: write it as 2026-11-20",
    "numbers.txt --feed generic": "--columns: generic needs `number`",
    "numbers.txt --feed generic --columns colour=1": "--columns: write them as number=MDN,date=3",
}


@pytest.mark.parametrize(("given", "line"), WRONG.items(), ids=WRONG)
async def test_wrong_input_ends_with_2_and_one_line(
    given: str, line: str, database: dict[str, str], tmp_path: Path
) -> None:
    file, *more = given.split()
    (tmp_path / file).write_text("15555551234\n")
    said = await sendable("import", "deactivations", str(tmp_path / file), *more, **database)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"sendable: {line}")
    assert said.err.count("\n") == 1


async def test_without_a_feed_in_the_settings_there_is_nothing_to_fetch(database: dict[str, str]) -> None:
    said = await sendable("fetch", "deactivations", **database)
    assert said.code == 2
    assert said.err.startswith("sendable: no such feed is in the settings: write a table [feeds.NAME] for one of ")
