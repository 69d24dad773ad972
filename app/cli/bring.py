"""`sendable import`: files brought in."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO
from uuid import UUID

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.attach import with_database
from app.cli.show import Json, Refused, as_json, as_table, console, refusing, say
from app.config import Settings, read_settings
from app.models.phone import sender_id
from app.services.roster import NotARoster, Roster, Usual, Wrong
from app.services.subscribers import Elsewhere, Told, Watch, drop, judge, take
from app.wiring import meaning_of

imports = typer.Typer(no_args_is_help=True, help="Files brought in: each may be stopped, and goes on where it was.")
PART = 256 * 1024
CUT = (EOFError, gzip.BadGzipFile, zlib.error)
"""What a compressed file that is not whole raises."""
SHOWN = 20
"""Wrong lines that are told one by one; `--errors` keeps all of them."""


@imports.command("subscribers")
def import_subscribers(
    file: Annotated[Path, typer.Argument(help="CSV with a heading, or NDJSON; also as gzip.", exists=True,
                                         dir_okay=False)],
    sender: Annotated[str | None, typer.Option(help="The sender, where a line names none.")] = None,
    list_: Annotated[str | None, typer.Option("--list", help="The list, where a line names none.")] = None,
    source: Annotated[str | None, typer.Option(help="Where people agreed, where a line does not say.")] = None,
    errors: Annotated[Path | None, typer.Option(help="Write all wrong lines to this CSV: line, what to mend.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Opt-ins from a file: number, consented_at, source; list, sender, evidence. Each acts as an opt-in of its own."""
    a_file(file)
    if errors is not None and errors.exists() and errors.samefile(file):
        raise Refused("--errors names the very file that is to be read: name another one, which is written anew")
    region = read_settings().region
    with refusing("--sender"):
        usual = Usual(None if sender is None else sender_id(sender, region), list_, source, region)

    async def bring(engine: AsyncEngine, settings: Settings) -> Told:
        roster, policy = Roster(usual, datetime.now(UTC)), meaning_of(settings).policy
        with ExitStack() as stack:
            watch = stack.enter_context(_watch(file, errors))
            parts = _parts(stack.enter_context(file.open("rb")))
            if dry_run:
                return await judge(engine, parts, roster, policy, watch)
            name = _name(file, usual)
            try:
                return await take(engine, name, parts, roster, policy=policy, watch=watch)
            except CUT:
                await drop(engine, name)
                raise

    try:
        told = with_database(bring)
    except (NotARoster, Elsewhere, *CUT) as error:
        raise Refused(f"{file.name}: {error}", 2 if isinstance(error, NotARoster) else 1) from error
    _report(told, json=json)
    if told.lines == 0 and told.wrong:
        raise Refused(f"{file.name}: no line is an opt-in", 1)


def _report(told: Told, *, json: bool) -> None:
    for wrong in told.errors[:SHOWN]:
        say(f"line {wrong.line}: {wrong.detail}")
    if told.wrong > SHOWN:
        say(f"… and {told.wrong - SHOWN} wrong lines more: --errors FILE keeps all of them")
    said = told.answer()
    if json:
        as_json(said)
        return
    reasons, _ = said.pop("reasons"), said.pop("errors")
    as_table(("what", "lines"), [*said.items(), *((f"refused: {reason}", n) for reason, n in reasons.items())])


# Reading -----------------------------------------------------------------------------------------------------------


def a_file(file: Path) -> None:
    """Raises Refused for a pipe, which can be read but once, and for nothing at all: a download that failed."""
    if not file.is_file():
        raise Refused(f"{file} can be read but once, and is read twice: write it into a file first")
    if not file.stat().st_size:
        raise Refused(f"{file.name}: the file is empty: get it again")


def _opened(file: BinaryIO) -> BinaryIO:
    magic = file.read(2)
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if magic == b"\x1f\x8b" else file  # type: ignore[return-value] # reads alike


async def _parts(file: BinaryIO) -> AsyncIterator[bytes]:
    opened = _opened(file)
    while part := opened.read(PART):
        yield part


def _name(file: Path, usual: Usual) -> UUID:
    """The same file with the same options has the same name: what was begun under it goes on."""
    digest = hashlib.blake2b(repr((usual.sender, usual.list, usual.source, usual.region)).encode(), digest_size=16)
    with file.open("rb") as content:
        while part := content.read(PART):
            digest.update(part)
    return UUID(bytes=digest.digest())


# Showing -----------------------------------------------------------------------------------------------------------


@contextmanager
def _watch(file: Path, errors: Path | None) -> Iterator[Watch]:
    """A bar of bytes read and a count of lines applied, where there is a terminal; wrong lines into a file."""
    with ExitStack() as stack:
        wrong = _written(stack, errors) if errors else _nothing
        shown = console(error=True)
        if not shown.is_terminal:
            yield Watch(wrong=wrong)
            return
        with file.open("rb") as content:
            packed = content.read(2) == b"\x1f\x8b"
        said, done = TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}")
        bar = stack.enter_context(Progress(said, BarColumn(), done, TimeRemainingColumn(), console=shown))
        reading = bar.add_task("bytes read", total=None if packed else file.stat().st_size)
        applying = bar.add_task("lines applied", total=None)
        yield Watch(lambda n: bar.advance(reading, n), lambda n: bar.advance(applying, n), wrong)


def _nothing(_: Wrong) -> None:
    """Nobody asked for the wrong lines."""


def _written(stack: ExitStack, path: Path) -> Callable[[Wrong], None]:
    rows = csv.writer(stack.enter_context(path.open("w", newline="", encoding="utf-8")))
    rows.writerow(Wrong._fields)
    return rows.writerow
