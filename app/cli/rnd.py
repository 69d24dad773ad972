"""`sendable rnd`: the Reassigned Numbers Database, asked now or by its files."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.attach import with_database
from app.cli.show import Json, Refused, as_json, as_table, busy, refusing, say
from app.config import Settings, read_settings
from app.lookups import rnd as database
from app.models.phone import e164, sender_id
from app.services import rnd as checks
from app.wiring import meaning_of

rnd = typer.Typer(no_args_is_help=True, help="The FCC's Reassigned Numbers Database: has a number changed hands?")
Sender = Annotated[str | None, typer.Option(help="Whose list, where several senders have one of this name.")]
SHOWN = 20
UNFINISHED = ".part"
"""What stands behind the name of a file that is being written."""


@rnd.command("check")
def check(
    number: Annotated[str, typer.Argument(help="E.164, or a national number of SENDABLE_REGION.")],
    list_: Annotated[str | None, typer.Option("--list", help="About the consent on this list; else on all.")] = None,
    sender: Sender = None,
    on: Annotated[str | None, typer.Option("--date", help="About this date, for example 2025-03-01.")] = None,
    *,
    json: Json = False,
) -> None:
    """Ask about a number and the date of its consent, keep the answer as evidence, and act on a yes."""
    settings = read_settings()
    who, day = _number(number, settings), None if on is None else _date(on)
    if settings.rnd is None:
        raise Refused("no account is configured: write refresh_token and company_id under [rnd] in the settings file")
    options = settings.rnd.options()

    async def ask(engine: AsyncEngine, settings: Settings) -> list[checks.Checked]:
        whose = await _sender(engine, settings, list_, sender) if list_ else _own(settings, sender)
        asked = [database.Asked(who, day)] if day else await checks.consents(engine, who, whose, list_)
        if not asked:
            raise Refused("no consent from before today is stored: name the date of consent with --date", 1)
        return await checks.check(engine, asked, options, meaning_of(settings).policy)

    done = with_database(ask)
    rows = [(one.asked.consented_on.isoformat(), one.told or "no answer", one.detail) for one in done]
    if json:
        as_json([{"number": who, "consented_on": row[0], "answer": one.told, "asked_at": one.asked_at,
                  "detail": one.detail} for row, one in zip(rows, done, strict=True)])  # fmt: skip
    else:
        as_table(("date of consent", "disconnected since", "why not"), rows)
    if any(one.told is None for one in done):
        raise Refused("the database gave no answer: ask again later", 1)


@rnd.command("export")
def export(
    list_: Annotated[str, typer.Argument(metavar="LIST", help="Whose subscribers are asked about.")],
    file: Annotated[Path, typer.Argument(help="The file to be handed in; more of them beyond 250,000 lines.")],
    sender: Sender = None,
    *,
    json: Json = False,
) -> None:
    """Write the numbers of a list and the dates of their consent as the database takes them, and keep each question.

    If it is stopped, it leaves no file.
    """

    async def write(engine: AsyncEngine, settings: Settings) -> dict[str, Any]:
        whose = await _sender(engine, settings, list_, sender)
        lines, files = 0, [_begun(file)]
        with _whole(files):
            async for asked in checks.of_list(engine, whose, list_):
                for one in asked:
                    if lines and lines % database.FILE_MOST == 0:
                        files.append(_begun(file.with_stem(f"{file.stem}-{len(files) + 1}")))
                    files[-1].write(database.line_of(one))
                    lines += 1
                await checks.exported(engine, asked)
        return {"lines": lines, "files": [_named(out) for out in files]}

    try:
        with busy("the list is written"):
            told = with_database(write)
    except FileExistsError as error:
        raise Refused(f"{error.filename} is there already: name a new file") from error
    if json:
        as_json(told)
    else:
        say(f"{told['lines']} lines in {', '.join(told['files'])}: hand them in at www.reassigned.us")


def _begun(file: Path) -> TextIO:
    """Under another name until all are whole: a kill leaves nothing that could be handed in. Raises FileExistsError."""
    if file.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file))
    try:
        return Path(f"{file}{UNFINISHED}").open("w", encoding="ascii")
    except OSError as error:
        error.filename = str(file)
        raise


def _named(out: TextIO) -> str:
    return out.name.removesuffix(UNFINISHED)


@contextmanager
def _whole(files: Sequence[TextIO]) -> Iterator[None]:
    """All of them are written, or none is there."""
    try:
        yield
        for out in files:
            out.close()
        for out in files:
            Path(out.name).rename(_named(out))
    except BaseException:
        for out in files:
            Path(out.name).unlink(missing_ok=True)
        raise


@rnd.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that came back.", exists=True, dir_okay=False)],
    *,
    json: Json = False,
) -> None:
    """Take the answers in: each is kept with its question, and a yes makes the number reassigned."""

    async def read(engine: AsyncEngine, settings: Settings) -> dict[str, Any]:
        policy, counts = meaning_of(settings).policy, Counter[str]()
        with file.open(encoding="utf-8-sig", newline="", errors="replace") as lines:
            for part in _parts(lines, counts):
                counts.update(part.values())
                taken, unknown = await checks.answered(engine, part, policy)
                counts.update(taken=taken, never_asked=unknown)
        names = ("yes", "no", "no_data", "taken", "never_asked", "wrong_lines")
        return {name: counts[name] for name in names}

    with busy("answers are taken in"):
        told = with_database(read)
    if json:
        as_json(told)
    else:
        as_table(("what", "lines"), list(told.items()))
    if told["never_asked"]:
        say(f"{told['never_asked']} answers are to questions that no export of ours holds: they were left alone")
    if not (told["yes"] or told["no"] or told["no_data"]):
        raise Refused(f"{file.name}: no line is an answer; give the file that came back, not the one handed in", 1)


def _parts(lines: TextIO, counts: Counter[str]) -> Iterator[dict[database.Asked, database.Told]]:
    read = database.answers(lines)
    while part := [*islice(read, checks.AT_ONCE)]:
        for one in part:
            if isinstance(one, database.Unread):
                counts["wrong_lines"] += 1
                if counts["wrong_lines"] <= SHOWN:
                    say(f"line {one.line}: {one.detail}")
        if told := {one.asked: one.told for one in part if isinstance(one, database.Answered)}:
            yield told


# Words of the command line -----------------------------------------------------------------------------------------


def _number(text: str, settings: Settings) -> str:
    with refusing():
        who = e164(text, settings.region)
    if not database.covers(who):
        raise Refused("the database holds numbers of the North American plan only (+1…)")
    return who


def _own(settings: Settings, sender: str | None) -> str | None:
    with refusing():
        return None if sender is None else sender_id(sender, settings.region)


async def _sender(engine: AsyncEngine, settings: Settings, list_: str, sender: str | None) -> str:
    """Whose list is meant. Raises Refused where that is not clear."""
    known = await checks.senders_of(engine, list_)
    if named := _own(settings, sender):
        known = [own for own in known if own == named]
    if not known:
        raise Refused("there is no list of this name: `GET /v1/lists` names those there are", 1)
    if len(known) > 1:
        raise Refused(f"several senders have a list of this name: name one with --sender, of {', '.join(known)}")
    return known[0]


def _date(text: str) -> date:
    try:
        on = date.fromisoformat(text)
    except ValueError as error:
        raise Refused(f"--date {text!r} is no date: write one such as 2025-03-01") from error
    if on >= datetime.now(UTC).date():
        raise Refused("--date must lie in the past: give the day on which the person agreed")
    return on
