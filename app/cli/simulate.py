"""`sendable policy simulate` and `apply`: what another policy would have made of the last weeks."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.attach import with_database
from app.cli.show import Json, Refused, as_json, as_table, progress, refusing, say
from app.config import Settings, read_settings
from app.models.duration import duration
from app.services.lookup.outcome import TIMETABLE
from app.services.simulate import Between, Simulated
from app.services.simulate import simulate as replayed
from app.wiring import meaning_of

Since = Annotated[str, typer.Option(help="How far back, for example 30d: receipts are kept 90 days.")]
File = Annotated[Path, typer.Option("--policy", help="The override file that is to be tried.")]


def simulate(policy: File, since: Since = "30d", *, json: Json = False) -> None:
    """What would have changed under another policy, by the receipts of the last days. Nothing is touched."""
    _report(_simulated(policy, since), json=json)


def apply(
    policy: File,
    since: Since = "30d",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Report what `simulate` does, ask, and write the file to where SENDABLE_POLICY points; the next start obeys it."""
    settings = read_settings()
    target = settings.policy_file
    if target is None:
        raise Refused("SENDABLE_POLICY names no file: set it to the file that the service is to read, then apply again")
    told = _simulated(policy, since)
    _report(told, json=json, applied=str(target))
    if not yes and not sys.stdin.isatty():
        raise Refused("nothing is changed: nobody can be asked here; say --yes to put it in force", 1)
    if not yes:
        typer.confirm(f"{target} will hold this policy. Go on?", abort=True, err=True)
    try:
        _write(target, policy.read_bytes())
    except OSError as error:
        raise Refused(
            f"{target} cannot be written ({error.strerror}): mend SENDABLE_POLICY, or that folder", 1
        ) from error
    say(f"{target} holds the new policy; restart every `sendable serve` that reads it: it is in force from then on")


def _simulated(file: Path, since: str) -> Simulated:
    back, settings = span(since), read_settings()
    old = meaning_of(_readable(settings))
    new = meaning_of(settings.model_copy(update={"policy_file": file})).policy
    steps = len((settings.lookup.timetable if settings.lookup else None) or TIMETABLE)
    between = Between(old.policy, new, old, steps, settings.region)
    if new.breaker != old.policy.breaker:
        say("the breaker's limits are not simulated: it acts on many numbers at once, as they arrive")

    async def run(engine: AsyncEngine, _: Settings) -> Simulated:
        now = datetime.now(UTC)
        with progress("numbers replayed", 0) as tell:
            return await replayed(engine, between, now - back, now, tell)

    return with_database(run)


def _readable(settings: Settings) -> Settings:
    """SENDABLE_POLICY may name a file that is still to be written: until then what ships is in force."""
    there = settings.policy_file is not None and settings.policy_file.exists()
    return settings if there else settings.model_copy(update={"policy_file": None})


def span(since: str) -> timedelta:
    with refusing("--since"):
        return duration(since)


def _report(told: Simulated, *, json: bool, applied: str | None = None) -> None:
    rows: list[dict[str, Any]] = [
        {**line.item._asdict(), "only_old": line.only_old, "only_new": line.only_new, "both": line.both}
        for line in told.lines
    ]
    if json:
        head = {"since": told.since, "numbers": told.numbers, "receipts": told.receipts, "differ": told.differ,
                "quarantined": told.quarantined, "unanswered": told.unanswered}  # fmt: skip
        as_json(head | ({"file": applied} if applied else {}) | {"rows": rows})
        return
    say(f"{told.receipts:,} receipts of {told.numbers:,} numbers since {told.since:%Y-%m-%d %H:%M} UTC; "
        f"of {told.differ:,} numbers something differs")  # fmt: skip
    if told.quarantined:
        say(f"{told.quarantined:,} receipts that the breaker took apart and nobody released are left out of both")
    if told.unanswered:
        say(f"{told.unanswered:,} numbers would wait for a lookup that was never made: its answer is not foreseen")
    as_table(("what", "reason", "sender", "list", "only_old", "only_new", "both"), rows)


def _write(target: Path, content: bytes) -> None:
    """Whole or not at all: a service that starts meanwhile reads the one or the other, and may read it as before."""
    was = target.stat() if target.exists() else None
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if was:
            with suppress(PermissionError):  # only root gives a file away; anybody else's own it stays
                os.chown(name, was.st_uid, was.st_gid)
        Path(name).chmod(was.st_mode & 0o777 if was else 0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
