"""How commands speak: tables for people, JSON for programs, one line on standard error when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]
_JSON = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_WIDE = 240
"""Columns where there is no terminal to ask: a table in a pipe is not cut."""


class Refused(Exception):
    """What was asked cannot be done. One line: why, and what to do instead. `status` is the exit code."""

    def __init__(self, why: str, status: int = 2) -> None:
        super().__init__(why)
        self.status = status


@contextmanager
def refusing(option: str | None = None) -> Iterator[None]:
    """A value that cannot be taken ends the command with what is wrong with it, under the name of its option."""
    try:
        yield
    except ValueError as error:
        raise Refused(f"{option}: {error}" if option else str(error)) from error


def console(*, error: bool = False) -> Console:
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def as_json(value: object) -> None:
    """In UTF-8, as JSON is, whatever the terminal speaks."""
    sys.stdout.flush()
    sys.stdout.buffer.write(orjson.dumps(value, default=_plain, option=_JSON))
    sys.stdout.buffer.flush()


def as_table(columns: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
    """Of rows that have names those that are named. On a narrow terminal cells go over several lines; none is cut."""
    headers = [Column(name, overflow="fold") for name in columns]
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        cells = [row[name] for name in columns] if isinstance(row, Mapping) else row
        table.add_row(*map(_cell, cells))
    console().print(table)


def say(line: str) -> None:
    """A line for a person, on standard error: standard output is for what was asked."""
    sys.stderr.write(visible(line, kept="\n") + "\n")


def visible(text: str, kept: str = "") -> str:
    """What others may have written, for a terminal: whatever would command it, turn its letters around, or begin a line
    that looks like one of ours, is spelt; but for what is `kept`.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in kept else repr(letter)[1:-1] for letter in text)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Shows that something is under way; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with console(error=True).status(what):
        yield


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar that hears how many are done, and of how many where only that tells; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(error=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of=total: bar.update(task, completed=done, total=of)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list):
        return visible(" ".join(value))
    return visible(str(value))


def _plain(value: object) -> object:
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)
