"""`sendable demo`: the service started, fed, asked what came of it, and left running for a look."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Annotated

import httpx
import typer
import uvloop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.cli.demo import outcome, report
from app.cli.demo import wire as wires
from app.cli.demo.day import Day, make, people
from app.cli.demo.feed import Done, Service, feed
from app.cli.demo.outcome import mismatches
from app.cli.demo.wire import Post, Wire
from app.cli.show import Json, Refused, as_json, console, say
from app.config import read_settings
from app.services.embedded import watcher
from app.services.embedded.home import locate

SETTINGS = """
[gateways.twilio]
secrets = ["the-demo-signs-with-this"]    # so every receipt of Twilio's must be signed with it
timezone = "UTC"
[gateways.kannel]
code_space = "openmarket"                 # whose codes stand in `err`
[gateways.jasmin]
code_space = "openmarket"
codes = { "304" = "3041" }                # Jasmin cuts codes to three characters
timezone = "UTC"
"""
POLICY = """
[breaker]
least = 1000000                           # a day's receipts within a minute would look like a mass event
"""


def demo(
    receipts: Annotated[int, typer.Option(min=100, max=200_000, help="How many receipts the day brings.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same day.")] = 1,
    url: Annotated[str | None, typer.Option(help="A running service, with the settings of this environment, instead of "
                                                 "one of its own.")] = None,
    key: Annotated[str | None, typer.Option(help="With --url: a key with the scope admin, where auth is on.")] = None,
    *,
    leave: Annotated[bool, typer.Option("--exit", help="End when all is told, also on a terminal.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Feed a service a day of receipts from six gateways, and show what came of it.

    It runs on a database of its own, which goes when it ends. On a terminal it stays up until Ctrl-C.
    """
    stay = sys.stdout.isatty() and not (leave or json or url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_demo(receipts, seed, url, key, stay=stay, json=json))


async def _demo(receipts: int, seed: int, url: str | None, key: str | None, *, stay: bool, json: bool) -> None:
    own = asyncio.current_task()
    assert own is not None  # noqa: S101 - a runner runs tasks
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, own.cancel)
    if url:
        links = {name: link for (name, account), link in read_settings().links().items() if not account}
        await _told(receipts, seed, Wire(url.rstrip("/"), links), key, None, json=json)
        return
    async with _service() as (wire, folder):
        await _told(receipts, seed, wire, None, folder, json=json)
        if stay:
            say(f"\nIt stays up for a look: {wire.base}/docs. Ctrl-C ends it, and its data goes with it.")
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


def _said(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in {401, 403}:
        return "it asks for a key with the scope admin: give it one with --key"
    return (str(error) or type(error).__name__).splitlines()[0]


async def _told(receipts: int, seed: int, wire: Wire, key: str | None, folder: Path | None, *, json: bool) -> None:
    """Feed, ask, show. Refused where what the service says is not what was sent."""
    began = datetime.now(UTC)
    service = Service(wire.base, key)
    try:
        async with service.client() as http:
            day = make(receipts, seed, began, await outcome.strangers(http, people(receipts)))
            start = await outcome.newest(http)
            fed = await _fed(service, day, wire)
            came = await outcome.read(http, day, began - timedelta(seconds=1), start)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refused(f"{wire.base} cannot be asked: {_said(error)}", 1) from error
    wrong = [*fed.wrong, *mismatches(day, wire, came)]
    seen = await report.as_the_reader(folder) if folder else []
    summary = report.summary(day, came, fed.posts, fed.seconds) | {"mismatches": wrong}
    if json:
        as_json(summary | {"reader": [{"sql": one.sql, "rows": one.rows} for one in seen]})
    else:
        report.show(summary, came, seen, wire.base, folder)
    if wrong:
        raise Refused("not as it was sent: " + "; ".join(wrong[:5]), 1)


# Feeding -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Fed:
    """What went out: requests with receipts, how long they took, and what was answered otherwise than it should be."""

    posts: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


async def _fed(service: Service, day: Day, wire: Wire) -> Fed:
    fed, posts, told = Fed(), wires.receipts(day, wire), Counter[str]()

    def registered(_: Post, answer: httpx.Response) -> None:
        told.update({name: answer.json()[name] for name in ("registered", "receipts_applied")})

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console(error=True), disable=not sys.stderr.isatty()) as progress:
        await _phase(progress, service, "people opt in", [*wires.opt_ins(day.subscribers)])
        await _phase(progress, service, "messages are sent", [*wires.sent_messages(day, late=False)], registered)
        started = perf_counter()
        async with asyncio.TaskGroup() as both:
            both.create_task(_phase(progress, service, "gateways post receipts", posts))
            both.create_task(feed(service, wires.story(day, wire), lambda *_: None, lanes=1))
        fed.posts, fed.seconds = len(posts) + len(day.story) - 1, perf_counter() - started
        await _phase(progress, service, "the register catches up", [*wires.sent_messages(day, late=True)], registered)
    fed.wrong = _register_wrong(day, told)
    return fed


async def _phase(progress: Progress, service: Service, what: str, posts: list[Post], told: Done | None = None) -> None:
    task = progress.add_task(what, total=sum(post.told or 1 for post in posts))

    def done(post: Post, answer: httpx.Response) -> None:
        progress.advance(task, post.told or 1)
        if told:
            told(post, answer)

    await feed(service, posts, done)


def _register_wrong(day: Day, told: Counter[str]) -> list[str]:
    """The register must have kept every message once, and have found the receipts that waited for it."""
    messages = {one.message_id for one in day.due if one.gateway in wires.REGISTERED}
    waited = sum(one.message_id in day.late for one in day.told)
    sent = {"registered": len(messages), "receipts_applied": waited}
    return [f"the register says {told[name]} {name}, not {many}" for name, many in sent.items() if told[name] != many]


# A service of its own ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def _service() -> AsyncIterator[tuple[Wire, Path]]:
    """`sendable serve` on a free port and a fresh data folder, without any settings of this environment: they may name
    a database that is somebody's. It ends with us however we end, as the embedded PostgreSQL does, by the same watcher.
    """
    folder, given = _furnished()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SENDABLE_")}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--auth", "off"]
    try:
        with (folder / "service.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", watcher.__file__, str(os.geteuid()), str(os.getegid()), *command,
                env=clean | given, start_new_session=True,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        try:
            links = read_settings(given).links()
            yield Wire(await _listening(process, folder), {name: link for (name, _), link in links.items()}), folder
        finally:
            await _ended(process)
    finally:
        shutil.rmtree(locate(folder).path, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _furnished() -> tuple[Path, dict[str, str]]:
    """A new data folder, and the settings of a service that lives in it."""
    folder = Path(tempfile.mkdtemp(prefix="sendable-demo-"))
    folder.chmod(0o711)  # root's stand-in, who runs PostgreSQL, must be able to pass through
    file, policy = folder / "demo.toml", folder / "policy.toml"
    file.write_text(SETTINGS)
    policy.write_text(POLICY)
    given = {"SENDABLE_CONFIG": str(file), "SENDABLE_POLICY": str(policy), "SENDABLE_DATA_DIR": str(folder)}
    return folder, given


async def _listening(process: asyncio.subprocess.Process, folder: Path) -> str:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    async for line in process.stdout:
        if found := re.search(rb"listens on (http://\S+),", line):
            return found[1].decode()
    last = (folder / "service.log").read_text(errors="replace").strip().splitlines()[-1:]
    raise Refused(f"the service did not start: {last[0] if last else 'it said nothing'}", 1)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Its watcher stops it in order when our end of the pipe closes."""
    if process.stdin:
        process.stdin.close()
    await asyncio.shield(asyncio.create_task(process.wait()))
