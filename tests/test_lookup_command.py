"""`sendable lookup`: a number, or a file within a price, from the command line; and settings that stop the start."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings, SettingsError
from app.services.connection import connect, transaction
from app.wiring import plan_of
from tests.conftest import Service
from tests.provider import Provider, Reply, answering, telnyx
from tests.running import WITHIN, environment, sendable

NUMBERS = [f"+1555555{n:04}" for n in range(30)]


def written(folder: Path, provider: Provider) -> str:
    config = folder / "sendable.toml"
    config.write_text(f'[lookup]\nproviders = ["telnyx"]\n[lookup.telnyx]\napi_key = "KEY"\n'
                      f'base_url = "{provider.url}"\n'
                      'price = "0.01"\nper_second = 1000\n')  # fmt: skip
    return str(config)


async def test_a_number_is_looked_up_by_command(tmp_path: Path, database_url: str) -> None:
    async with answering(lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", ported="Y"))) as provider:
        said = await sendable(
            "lookup", "(555) 555-1234", "--json", database_url=database_url, config=written(tmp_path, provider)
        )
        assert said.code == 0, said.err
        told = json.loads(said.out)
        assert (told["number"], told["outcome"], told["provider"], told["carrier"]["name"]) == (
            "+15555551234", "ok", "telnyx", "T-Mobile")  # fmt: skip
        shown = await sendable(
            "lookup", "number", "(555) 555-1234", database_url=database_url, config=written(tmp_path, provider)
        )
        assert (shown.code, shown.err) == (0, "")
        rows = dict(line.split(maxsplit=1) for line in shown.out.splitlines() if len(line.split(maxsplit=1)) > 1)
        assert (rows["number"].strip(), rows["state"].strip(), rows["carrier"].strip()) == (
            "+15555551234", "active", "T-Mobile")  # fmt: skip


async def test_an_answer_that_cannot_be_kept_is_told_in_one_line(tmp_path: Path, service: Service,
                                                                 database_url: str) -> None:  # fmt: skip
    await service.sql("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                         'BEGIN RAISE EXCEPTION ''refused''; END'""")
    await service.sql("CREATE TRIGGER refuse BEFORE INSERT ON lookup_answers FOR EACH ROW EXECUTE FUNCTION refuse()")
    async with answering(lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", ported="Y"))) as provider:
        said = await sendable("lookup", NUMBERS[0], database_url=database_url, config=written(tmp_path, provider))
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == "sendable: nothing can be written just now: run it again"


async def test_a_file_without_a_number_ends_with_1_and_asks_nobody(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "people.csv").write_text("name\nJosé\nJohn\n")
    async with answering(lambda number: Reply(telnyx(number, "AT&T Mobility"))) as provider:
        said = await sendable("lookup", "import", str(tmp_path / "people.csv"), "--max-cost", "1",
                              database_url=database_url, config=written(tmp_path, provider))  # fmt: skip
    assert (said.code, provider.calls) == (1, {})
    assert said.err.startswith("sendable: people.csv: no line holds a phone number")


async def test_a_file_is_looked_up_within_its_price_and_goes_on_where_it_stopped(
    tmp_path: Path, database_url: str
) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("name,number\n" + "".join(f"x,{number}\n" for number in [*NUMBERS, NUMBERS[0], "nonsense"]))
    async with answering(lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", ported="Y"))) as provider:

        async def run(*more: str) -> Any:
            said = await sendable("lookup", "import", str(file), "--json", *more, database_url=database_url,
                                  config=written(tmp_path, provider))  # fmt: skip
            assert said.code == 0, said.err
            return json.loads(said.out)

        told = await run("--max-cost", "1", "--dry-run")
        assert (told["to_ask"], told["wrong_lines"], told["price_at_most"]) == (30, 1, "0.30")
        assert not provider.calls
        told = await run("--max-cost", "0.125")
        assert (told["asked"], told["spent"]) == (12, "0.12")
        told = await run("--max-cost", "1")
        assert (told["answered_before"], told["asked"], told["ok"], told["spent"]) == (12, 18, 18, "0.18")
        assert provider.calls == dict.fromkeys(NUMBERS, 1)


@pytest.mark.parametrize("line", ["José,".encode("latin-1"), b'"Bob,', b'"' + b"x" * 200_000, b"\x1f\x8b\0,"])
async def test_a_line_that_cannot_be_read_keeps_no_other_from_being_asked(
    tmp_path: Path, database_url: str, line: bytes
) -> None:
    file = tmp_path / "numbers.csv"
    file.write_bytes(b"name,number\r\n" + line + b"\r\nx," + NUMBERS[0].encode() + b"\r\n")
    async with answering(lambda number: Reply(telnyx(number, "AT&T Mobility"))) as provider:
        said = await sendable("lookup", "import", str(file), "--max-cost", "1", "--dry-run", "--json",
                              database_url=database_url, config=written(tmp_path, provider))  # fmt: skip
    assert said.code == 0, said.err
    assert json.loads(said.out)["to_ask"] == 1


async def test_over_the_budget_it_says_that_nobody_was_asked(tmp_path: Path, database_url: str) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(NUMBERS[:3]))
    async with answering(lambda number: Reply(telnyx(number, "AT&T Mobility"))) as provider:
        config = Path(written(tmp_path, provider))
        config.write_text(config.read_text().replace("[lookup]\n", '[lookup]\nbudget_per_day = "0.01"\n'))

        async def run(*words: str) -> tuple[Any, str]:
            said = await sendable("lookup", *words, "--json", database_url=database_url, config=str(config))
            assert said.code == 0, said.err
            return json.loads(said.out), said.err

        told, err = await run("import", str(file), "--max-cost", "1")
        assert (told["to_ask"], told["asked"], told["ok"], told["spent"]) == (3, 1, 1, "0.01")
        assert "2 numbers were not asked: --max-cost or the budget is reached" in err
        told, _ = await run(NUMBERS[5])
        assert (told["outcome"], told["waiting_for"], provider.calls.total()) == ("quota", "budget", 1)


async def test_a_file_costs_no_more_than_was_allowed_though_every_number_takes_three_calls(
    tmp_path: Path, database_url: str
) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(NUMBERS))
    async with answering(lambda _: Reply(b"", 503)) as provider:
        said = await sendable("lookup", "import", str(file), "--json", "--max-cost", "0.05", database_url=database_url,
                              config=written(tmp_path, provider))  # fmt: skip
        assert said.code == 0, said.err
        told = json.loads(said.out)
        assert (told["ok"], told["spent"]) == (0, "0.05")  # each call may have been billed
        assert provider.calls.total() == 5
        engine = connect(database_url)
        async with transaction(engine) as db:
            assert await db.fetchval("SELECT spent FROM lookup_days") == Decimal("0.05")
            assert await db.fetch("SELECT kind FROM alarms WHERE kind = 'lookup_budget'") == []
        await engine.dispose()


async def test_a_terminal_sees_how_far_a_file_is_and_the_price_before(tmp_path: Path, database_url: str) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(NUMBERS))
    go = asyncio.Event()
    waiting = iter([go])  # whichever number is asked first: several are, side by side
    async with answering(lambda n: Reply(telnyx(n, "AT&T Mobility"), after=next(waiting, None))) as provider:
        ours, theirs = pty.openpty()
        settings = environment(database_url=database_url, config=written(tmp_path, provider)) | {"TERM": "xterm"}
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "lookup", "import", str(file), "--max-cost", "1", "--json", env=settings,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        reading = asyncio.create_task(asyncio.to_thread(seen_on, ours, "29/30", go.set, asyncio.get_running_loop()))
        out, _ = await asyncio.wait_for(running.communicate(), WITHIN)
        screen = await reading
        assert running.returncode == 0, screen
        assert json.loads(out)["ok"] == 30
    price = screen.index("30 of 30 numbers to ask, for about 0.30; at most 1 is spent")
    assert price < screen.index("lookups") < screen.index("29/30") < screen.index("30/30")


def seen_on(terminal: int, until: str, then: Callable[[], object], loop: asyncio.AbstractEventLoop) -> str:
    """All that is written on a terminal to its end; once `until` stands there, `then` is called."""
    shown = b""
    while True:
        try:
            more = os.read(terminal, 4_096)
        except OSError:  # EIO: the other end is closed
            more = b""
        if not more:
            os.close(terminal)
            return shown.decode()
        before, shown = shown, shown + more
        if until.encode() in shown and until.encode() not in before:
            loop.call_soon_threadsafe(then)


async def test_where_no_terminal_is_nothing_moves_and_the_price_is_told(tmp_path: Path, database_url: str) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(NUMBERS[:2]))
    async with answering(lambda number: Reply(telnyx(number, "AT&T Mobility"))) as provider:
        said = await sendable("lookup", "import", str(file), "--max-cost", "1", database_url=database_url,
                              config=written(tmp_path, provider))  # fmt: skip
    assert said.code == 0, said.err
    lines = [line for line in (said.out + said.err).splitlines() if "numbers to ask" in line]
    assert lines == ["2 of 2 numbers to ask, for about 0.02; at most 1 is spent"]
    assert "\x1b" not in said.out + said.err


async def test_a_provider_that_refuses_our_key_is_asked_again_after_the_command(
    tmp_path: Path, database_url: str
) -> None:
    async with answering(lambda _: Reply(b"{}", 401)) as provider:
        config = written(tmp_path, provider)

        async def run(*words: str) -> Any:
            said = await sendable("lookup", *words, "--json", database_url=database_url, config=config)
            assert said.code == 0, said.err
            return json.loads(said.out)

        assert (await run(NUMBERS[0]))["outcome"] == "auth"
        provider.says = lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", ported="Y"))
        assert ((await run(NUMBERS[0]))["outcome"], provider.calls.total()) == ("auth", 1)
        assert await run("resume", "telnyx") == {"provider": "telnyx", "resumed": True, "error": "auth"}
        assert await run("resume", "telnyx") == {"provider": "telnyx", "resumed": False, "error": None}
        assert (await run(NUMBERS[0]))["outcome"] == "ok"
        said = await sendable("lookup", "resume", "telnix", database_url=database_url)
        assert (said.code, said.err[:63]) == (2, "sendable: 'telnix' is no lookup provider of Sendable; there are")


async def test_without_a_provider_the_command_says_what_to_do(database_url: str) -> None:
    said = await sendable("lookup", "+15555551234", database_url=database_url)
    assert (said.code, said.out) == (2, "")
    assert said.err == "no lookup provider is configured: name one under [lookup] in the settings file\n".replace(
        "no lookup", "sendable: no lookup"
    )


HTTP = {"url": "http://x/{number}", "fields": {"carrier": "a"}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown provider": ({"providers": ["telnix"]}, r"`lookup.telnix` is no lookup provider of Sendable; there are"),
    "an unknown table": ({"budget": {}}, r"`lookup.budget` is no lookup provider of Sendable"),
    "no key": ({"providers": ["telnyx"]}, r"`lookup.telnyx.api_key` is missing: telnyx needs api_key"),
    "an unknown key": ({"providers": ["telnyx"], "telnyx": {"api_key": "x", "base_ulr": "http://127.0.0.1"}},
                       r"`lookup.telnyx.base_ulr` is no setting of it; there are api_key, price, base_url"),
    "an unknown key of one that is not asked": ({"providers": ["demo"], "telnyx": {"apikey": "x"}},
                                                r"`lookup.telnyx.apikey` is no setting of it"),
    "a key of another provider": ({"providers": ["telnyx"], "telnyx": {"api_key": "x", "feature": "fs2"}},
                                  r"`lookup.telnyx.feature` is no setting of it"),
    "an address without its scheme": ({"providers": ["telnyx"], "telnyx": {"api_key": "x", "base_url": "127.0.0.1:80"}},
                                      r"`lookup.telnyx.base_url` must be an absolute URL"),
    "an address that is none": ({"providers": ["telnyx"], "telnyx": {"api_key": "x", "base_url": "https://[::1"}},
                                r"`lookup.telnyx.base_url` must be an absolute URL"),
    "a port that is none": ({"providers": ["telnyx"], "telnyx": {"api_key": "x", "base_url": "https://h:99999"}},
                            r"`lookup.telnyx.base_url` must be an absolute URL"),
    "twice": ({"providers": ["demo", "demo"]}, r"names a provider twice"),
    "no table": ({"providers": ["telnyx"], "telnyx": "key"}, r"`lookup.telnyx` must be a table"),
    "a price that is none": ({"providers": ["demo"], "demo": {"price": "cheap"}}, r"`lookup.demo.price` must be"),
    "a price beyond all money": ({"providers": ["demo"], "demo": {"price": "1e999"}}, r"`lookup.demo.price` must be"),
    "a price below all money": ({"providers": ["demo"], "demo": {"price": "1e-30"}}, r"`lookup.demo.price` must be"),
    "a negative price": ({"providers": ["demo"], "demo": {"price": "-1"}}, r"`lookup.demo.price` must be"),
    "no pace": ({"providers": ["demo"], "demo": {"per_second": 0}}, r"`lookup.demo.per_second` must be a number"),
    "a pace that is none": ({"providers": ["demo"], "demo": {"per_second": [1]}}, r"`lookup.demo.per_second` must be"),
    "no time": ({"providers": ["demo"], "demo": {"timeout": "0s"}}, r"`lookup.demo.timeout` must be more than 0s"),
    "a time that is none": ({"providers": ["demo"], "demo": {"timeout": 8}}, r'`lookup.demo.timeout` "8" is not a dur'),
    "a key that no header carries": ({"providers": ["telnyx"], "telnyx": {"api_key": "…"}},
                                     r"`lookup.telnyx.api_key` cannot stand in a request: write it in ASCII"),
    "a key with a line break": ({"providers": ["hlr-lookups"], "hlr-lookups": {"api_secret": "x", "api_key": "x\n"}},
                                r"`lookup.hlr-lookups.api_key` cannot stand in a request"),
    "a header of its own": ({"providers": ["http"], "http": HTTP | {"headers": {"x-key": "schlüssel"}}},
                            r"`lookup.http.headers` cannot stand in a request"),
    "a key that is no PEM": ({"providers": ["vonage"], "vonage": {"application_id": "x", "private_key": "no-pem"}},
                             r"`lookup.vonage` makes no request"),
    "a field nobody knows": ({"providers": ["http"], "http": {"url": "http://x/{number}", "fields": {"colour": "a"}}},
                             r"`lookup.http` makes no request \(fields.colour: no such field"),
    "an address of its own that is none": ({"providers": ["http"], "http": HTTP | {"url": "numbers/{number}"}},
                                           r"`lookup.http` makes no request \(url: must be absolute, for example"),
    "a request that names no number": ({"providers": ["http"], "http": HTTP | {"url": "http://x/{numbr}"}},
                                       r"`lookup.http` makes no request \(neither url, params nor body hold"),
    "a way to ask that is none": ({"providers": ["http"], "http": HTTP | {"method": "PUT"}},
                                  r"`lookup.http` makes no request \(method: must be GET or POST"),
    "a field that lies nowhere": ({"providers": ["http"], "http": HTTP | {"fields": {"carrier": 5}}},
                                  r"`lookup.http` makes no request \(fields.carrier: must be names joined by dots"),
    "words that are no table": ({"providers": ["http"], "http": HTTP | {"words": {"line_type": "mobile"}}},
                                r"`lookup.http` makes no request \(words.line_type: must be a table"),
    "an unknown key of its errors": ({"providers": ["http"], "http": HTTP | {"errors": {"path": "a", "word": {}}}},
                                     r"`lookup.http` makes no request \(errors.word: no such key; there are path"),
    "errors that lie nowhere": ({"providers": ["http"], "http": HTTP | {"errors": {"words": {"gone": "not_found"}}}},
                                r"`lookup.http` makes no request \(errors.path is missing"),
    "words of a field nobody knows": ({"providers": ["http"], "http": HTTP | {"words": {"colour": {"red": "blue"}}}},
                                      r"`lookup.http` makes no request \(words.colour: no such field"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_of_lookups_stop_the_start_in_one_line(name: str) -> None:
    table, line = WRONG[name]
    with pytest.raises(SettingsError, match=line) as raised:
        plan_of(Settings.model_validate({"lookup": table}))
    assert "\n" not in str(raised.value)
    assert "secret-no-pem" not in str(raised.value)


@pytest.mark.parametrize("steps", [[], ["1h"], ["0s", "4h", "4h"], ["0s", "2h", "1h"]])
def test_a_timetable_begins_at_once_and_grows(steps: list[str]) -> None:
    with pytest.raises(ValueError, match="must begin with"):
        Settings.model_validate({"lookup": {"timetable": steps}})


def test_without_providers_nobody_is_asked() -> None:
    assert plan_of(Settings()).sources == plan_of(Settings.model_validate({"lookup": {}})).sources == ()
