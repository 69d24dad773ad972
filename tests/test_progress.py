"""Long work shows on a terminal how far it is, and nowhere else: a pipe, a log and a job of cron get no bars."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import sys
from pathlib import Path

import pytest

from tests.conftest import Service
from tests.provider import Reply, answering, telnyx
from tests.running import environment, sendable

NUMBERS = [f"1555555{place:04}" for place in range(300)]
ESCAPE = "\x1b"


async def on_a_terminal(*args: str, stream: str = "stderr", columns: int = 120, **settings: str) -> tuple[int, str]:
    """The exit code, and all that was written to a terminal as standard error. Standard output is none, so that what is
    asked for goes on to other programs; or the other way round.
    """
    ours, theirs = pty.openpty()
    streams = {name: theirs if name == stream else asyncio.subprocess.DEVNULL for name in ("stdout", "stderr")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", *args, **streams,
        env=environment(**settings) | {"TERM": "xterm", "COLUMNS": str(columns)},
    )  # fmt: skip
    os.close(theirs)
    shown = await asyncio.to_thread(everything, ours)
    return await process.wait(), shown


def everything(terminal: int) -> str:
    """What is written to a terminal until nobody has it open any more: Linux tells that by an error."""
    shown = b""
    with open(terminal, "rb", buffering=0) as file, contextlib.suppress(OSError):
        while part := file.read(1 << 16):
            shown += part
    return shown.decode()


FILES = {
    "deactivations": ("\n".join(NUMBERS), ("--feed", "twilio", "--yes"), ("acting", "100%")),
    "subscribers": (
        "number,consented_at,source\n" + "".join(f"+{one},2026-03-02T09:15:00Z,form\n" for one in NUMBERS),
        ("--sender", "12345", "--list", "spring"),
        ("bytes read", "lines applied", "300"),
    ),
}


@pytest.mark.parametrize("what", FILES)
async def test_a_file_on_its_way_in(what: str, database_url: str, tmp_path: Path) -> None:
    content, options, words = FILES[what]
    (tmp_path / "file.txt").write_text(content)
    args = ("import", what, str(tmp_path / "file.txt"), *options)
    code, shown = await on_a_terminal(*args, database_url=database_url)
    assert (code, [word for word in words if word not in shown]) == (0, [])
    said = await sendable(*args, "--json", database_url=database_url)
    assert (said.code, said.err) == (0, "")
    assert isinstance(json.loads(said.out), dict)


async def test_a_file_of_lookups_shows_how_far_it_is_on_a_terminal_alone(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("number\n" + "\n".join(NUMBERS[:40]))
    async with answering(lambda number: Reply(telnyx(number, "T-Mobile USA, Inc."))) as provider:
        config = tmp_path / "sendable.toml"
        config.write_text(f'[lookup]\nproviders = ["telnyx"]\n[lookup.telnyx]\napi_key = "KEY"\n'
                          f'base_url = "{provider.url}"\nprice = "0.01"\nper_second = 1000\n')  # fmt: skip
        args = ("lookup", "import", str(tmp_path / "numbers.csv"), "--max-cost", "1")
        settings = {"database_url": database_url, "config": str(config)}
        code, shown = await on_a_terminal(*args, **settings)
        assert (code, provider.calls.total()) == (0, 40)
        assert "lookups" in shown
        assert "40/40" in shown
        said = await sendable(*args, "--again-after", "0s", "--json", **settings)
    assert (said.code, json.loads(said.out)["asked"], provider.calls.total()) == (0, 40, 80)
    assert said.err.splitlines() == ["40 of 40 numbers to ask, for about 0.40; at most 1 is spent"]


@pytest.mark.parametrize("command", ["replay", "simulate"])
async def test_what_is_derived_again_shows_how_far_it_is_on_a_terminal_alone(
    service: Service, command: str, database_url: str, tmp_path: Path
) -> None:
    for number in NUMBERS[:3]:
        receipt = {"message_id": number, "number": f"+{number}", "sender": "12345", "status": "delivered"}
        await service.client.post("/v1/receipts/native", json=receipt)
    (tmp_path / "new.toml").write_text("")
    args = ("replay",) if command == "replay" else ("policy", "simulate", "--policy", str(tmp_path / "new.toml"))
    code, shown = await on_a_terminal(*args, database_url=database_url)
    assert code == 0, shown
    assert "3/3" in shown
    said = await sendable(*args, database_url=database_url)
    assert (said.code, ESCAPE in said.err + said.out, "3/3" in said.err) == (0, False, False)


@pytest.mark.parametrize("columns", [80, 40])
async def test_a_table_is_whole_on_a_narrow_terminal(service: Service, database_url: str, columns: int) -> None:
    """Who reads it there types from it: an id that is cut names nothing."""
    receipt = {"message_id": "0126B-2118A-42070-7C1QZ", "number": "+15555550001", "sender": "12345",
               "status": "UNDELIVERED-FOR-NOW"}  # fmt: skip
    await service.client.post("/v1/receipts/native", json=receipt)
    code, shown = await on_a_terminal("codes", "unknown", stream="stdout", columns=columns, database_url=database_url)
    assert (code, "…" in shown, "01" in shown) == (0, False, True)
