"""`sendable alarms`: what a person should look at, and the word that it is mended."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.attach import with_database
from app.cli.show import Json, Refused, as_json, as_table, say
from app.services import alarms as standing
from app.services import reading

alarms = typer.Typer(no_args_is_help=True, help="What a person should look at.")


@alarms.command("list")
def list_alarms(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    *,
    cleared: Annotated[bool, typer.Option("--cleared", help="Those too that ended.")] = False,
    json: Json = False,
) -> None:
    """Alarms, those that stand first, the newest first."""
    rows = [row._asdict() for row in with_database(lambda engine, _: reading.alarms(engine, limit, cleared=cleared))]
    as_json(rows) if json else as_table(("kind", "key", "since", "last_at", "count", "cleared"), rows)


@alarms.command("clear")
def clear(
    kind: Annotated[str, typer.Argument(help="All of this kind.")],
    key: Annotated[str | None, typer.Argument(help="That of this key alone.")] = None,
    *,
    json: Json = False,
) -> None:
    """Say that it is mended. What brings it again raises it again."""
    if ends := standing.OF_WHAT_STANDS.get(kind):
        raise Refused(f"{kind} stands for as long as what it tells of does: {ends}")
    total = with_database(lambda engine, _: standing.clear(engine, kind, key))
    if json:
        as_json({"alarms": total})
    if total == 0:
        raise Refused("no such alarm stands: `sendable alarms list` shows those that do", 1)
    if not json:
        say(f"{total} {'alarm' if total == 1 else 'alarms'} cleared")
