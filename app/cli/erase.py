"""`sendable erase`: everything of a number, for good."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.attach import with_database
from app.cli.show import Json, as_json, as_table, busy, refusing, say
from app.config import read_settings
from app.models.phone import e164
from app.services import erase as erasure


def erase(
    number: Annotated[str, typer.Argument(help="E.164, or a national number of SENDABLE_REGION.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Erase everything of a number but a keyed hash, which keeps it opted out when an old list is imported again."""
    with refusing():
        who = e164(number, read_settings().region)
    if not yes and sys.stdin.isatty():
        typer.confirm("Everything of this number will be gone for good. Go on?", abort=True, err=True)
    with busy("everything of this number is erased"):
        gone = with_database(lambda engine, _: erasure.erase(engine, who))
    if json:
        as_json({"erased": gone})
        return
    say("erased; only an opt-in that is given from now on brings this number back")
    as_table(("table", "rows"), list(gone.items()))
