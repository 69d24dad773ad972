"""`sendable import deactivations`: a carrier's file. `sendable fetch deactivations`: those that feeds keep for us."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.attach import with_database
from app.cli.bring import a_file, imports
from app.cli.show import Json, Refused, as_json, as_table, console, say
from app.config import Settings, read_settings
from app.feeds import FEEDS, known_by
from app.models.feed import Feed, Layout
from app.services.deactivations.columns import WrongColumns, columns_of
from app.services.deactivations.fetching import Elsewhere, Fetched, Fetcher
from app.services.deactivations.importing import Order, Outcome, Tell, TooMuch, UnderWay, no_one, take_in
from app.services.deactivations.transport import Transport
from app.services.deactivations.unpack import NotAFile
from app.wiring import guard_of, meaning_of, subscriptions_of

fetching = typer.Typer(no_args_is_help=True, help="Get files from those who keep them for us.")


@imports.command("deactivations")
def import_deactivations(
    file: Annotated[Path, typer.Argument(help="Plain, gzip or zip, of any length.", exists=True, dir_okay=False)],
    feed: Annotated[str | None, typer.Option(help=f"Who wrote it: {', '.join(FEEDS)}; else by its name.")] = None,
    day: Annotated[
        str | None, typer.Option("--date", help="The day it is about: 2026-11-20; else by its name.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Which column holds what, by name or place: number=MDN,date=3.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take as much of a list as the file names.")] = False,
    json: Json = False,
) -> None:
    """Numbers that are gone, suspended, back or moved. Stopped and started again, it goes on where it stopped."""
    a_file(file)
    settings = read_settings()
    writer, about = _feed(file, feed), _day(file, day)
    layout = _layout(file, writer, columns, settings.region)

    async def take(engine: AsyncEngine, settings: Settings) -> Outcome:
        with file.open("rb") as raw, _progress(file.stat().st_size) as tell:
            wanted = Order(writer, raw, about, layout, file.name, dry_run=dry_run, sure=yes)
            return await take_in(engine, meaning_of(settings), wanted, guard_of(settings), tell)

    try:
        outcome = with_database(take)
    except TooMuch as error:
        raise Refused(f"{error}: look at it with --dry-run, and add --yes if it is meant", 1) from error
    except (NotAFile, UnderWay) as error:
        raise Refused(str(error), 1) from error
    _show(outcome, json=json)


def _feed(file: Path, name: str | None) -> Feed:
    if name is None:
        known = known_by(file.name)
        if known is None:
            raise Refused(f"{file.name} does not tell which feed wrote it: add --feed, one of {', '.join(FEEDS)}")
        return known.feed
    if name not in FEEDS:
        raise Refused(f"{name!r} is no feed; there are {', '.join(FEEDS)}")
    return FEEDS[name]


def _day(file: Path, told: str | None) -> date | None:
    if told is None:
        known = known_by(file.name)
        return known.day if known else None
    try:
        return date.fromisoformat(told)
    except ValueError as error:
        raise Refused(f"--date {told!r} is no day: write it as 2026-11-20") from error


def _layout(file: Path, feed: Feed, columns: str | None, region: str) -> Layout:
    known = known_by(file.name)
    try:
        named = columns_of(feed, columns)
    except WrongColumns as error:
        raise Refused(f"--{error}") from error
    return Layout(named, known.carrier if known else None, region)


@contextmanager
def _progress(size: int) -> Iterator[Tell]:
    """A bar where there is a terminal: of the file's bytes while it is read, of its parts while it is acted on."""
    if not sys.stderr.isatty():
        yield no_one
        return
    parts = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*parts, console=console(error=True)) as bar:
        task = bar.add_task("reading", total=size)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or size)

        yield tell


def _show(outcome: Outcome, *, json: bool) -> None:
    told: dict[str, Any] = outcome.told()
    if json:
        as_json(told)
        return
    for broken in outcome.errors:
        say(f"line {broken['line']}: {broken['error']}")
    if outcome.already:
        say("this file had been taken in before: nothing changed")
    if outcome.cut:
        say("the file ended before it should have: get it again, and import it again")
    as_table(("what", "how many"), [(key, value) for key, value in told.items() if key not in {"errors", "lists"}])
    if outcome.lists:
        as_table(("sender", "list", "subscribers", "affected"), outcome.lists)


@fetching.callback()
def _fetch() -> None:
    """Only its commands do anything."""


@fetching.command("deactivations")
def fetch_deactivations(
    feed: Annotated[str | None, typer.Option(help="Only this one of the feeds in the settings.")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Take as much of a list as the files name.")] = False,
    json: Json = False,
) -> None:
    """The files of the feeds in the settings, missed days too, each of them once; the service does so by itself."""
    subscriptions = [one for one in subscriptions_of(read_settings()) if feed in {None, one.feed.name}]
    if not subscriptions:
        there = ", ".join(name for name, one in FEEDS.items() if one.source)
        raise Refused(f"no such feed is in the settings: write a table [feeds.NAME] for one of {there}")

    async def fetch(engine: AsyncEngine, settings: Settings) -> list[Fetched]:
        transport = Transport()
        fetcher = Fetcher(engine, meaning_of(settings), subscriptions, guard_of(settings), transport, sure=yes)
        try:
            with _progress(0) as tell:
                return await fetcher.fetch(datetime.now(UTC).date(), tell)
        finally:
            await transport.close()

    try:
        told = with_database(fetch)
    except Elsewhere as error:
        raise Refused(str(error), 1) from error
    if json:
        as_json([one.told() for one in told])
    else:
        as_table(("feed", "day", "file", "records", "held", "opted out", "remembered", "error"), map(_row, told))
    if any(one.error for one in told):
        raise typer.Exit(1)


def _row(one: Fetched) -> tuple[Any, ...]:
    out = one.outcome
    counts = (out.records, out.held, out.opted_out, out.remembered) if out else (None,) * 4
    return one.feed, one.day, one.key, *counts, one.error
