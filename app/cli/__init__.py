"""The `sendable` command. Wrong input ends with 2, a failure with 1, each told in one line on standard error."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from app.catalogue import CatalogueError
from app.catalogue.policy import PolicyError
from app.cli import alarms, bring, codes, deactivations, look, lookup, operate, rnd, waiting
from app.cli.attach import is_refusal, is_unkeepable, why_not
from app.cli.demo.command import demo
from app.cli.erase import erase
from app.cli.reconcile import reconcile
from app.cli.replay import replay
from app.cli.serve import serve
from app.cli.show import Refused, say, visible
from app.cli.simulate import apply, simulate
from app.config import SettingsError
from app.services import logs
from app.services.connection import Busy, is_lost
from app.services.database import CannotStart
from app.services.keys import UnknownScope
from app.services.migrate import SchemaError

app = typer.Typer(
    name="sendable", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="May I text this number now, from this sender, and if not, why not?",
)  # fmt: skip
for command in (serve, demo, operate.migrate, operate.doctor, reconcile, replay, erase):
    app.command()(command)
look.policy.command()(simulate)
look.policy.command()(apply)
for name, group in (
    ("codes", codes.codes), ("policy", look.policy), ("numbers", look.numbers), ("held", waiting.held),
    ("quarantine", waiting.quarantine), ("unread", waiting.unread), ("alarms", alarms.alarms),
    ("lookup", lookup.lookup), ("import", bring.imports), ("rnd", rnd.rnd),
    ("fetch", deactivations.fetching),
    ("keys", operate.keys), ("db", operate.db),
):  # fmt: skip
    app.add_typer(group, name=name)

_WRONG_INPUT = (SettingsError, PolicyError, CatalogueError, UnknownScope)
_FAILURES = (SchemaError, CannotStart)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer hands over the option's value
    if wanted:
        typer.echo(version("sendable"))
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
]


@app.callback()
def _settle(*, told: Version = False) -> None:  # noqa: ARG001 - its own callback has acted on it
    logs.configure("warning")


def main() -> None:
    """Every error that has words of its own is told in them; any other is a fault of ours and shows all."""
    _mend_streams()
    try:
        app()
    except Exception as error:
        known = told(error)
        if known is None:
            raise
        say(f"sendable: {visible(known[0])}")
        sys.exit(known[1])


def _mend_streams() -> None:
    """Who starts us may have closed them, or speak an encoding that lacks a letter of a list's name."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def told(error: Exception) -> tuple[str, int] | None:
    """The line and the exit code that an error ends with; None for one that nobody has foreseen."""
    if isinstance(error, Refused):
        return str(error), error.status
    if isinstance(error, _WRONG_INPUT):
        return str(error), 2
    if isinstance(error, _FAILURES):
        return str(error), 1
    if is_unkeepable(error):
        return "an argument is nothing that the database can keep: give text in UTF-8, and numbers below 2^63", 2
    if isinstance(error, Busy) or is_lost(error) or is_refusal(error):
        return ": ".join(why_not(error)), 1
    return None
