"""Commands about codes: what they mean, which ones nobody knows, and the rows to add for those."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.core import TyperGroup

from app.catalogue import CODES, FOLDER
from app.cli.attach import a_gateway, with_database
from app.cli.show import Json, Refused, as_json, as_table, say, visible
from app.config import Settings, read_settings
from app.models.catalogue import Catalogue, Code
from app.models.duration import written
from app.models.policy import Policy, Rule
from app.services import reading
from app.services.decide import consent_of
from app.wiring import meaning_of


class _CodeFirst(TyperGroup):
    """`sendable codes 3041` is `sendable codes show 3041`, and `sendable codes` shows all."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own copy of click's context
        if args != ["--help"] and (not args or args[0] not in self.commands):
            args = ["show", *args]
        return super().parse_args(ctx, args)


codes = typer.Typer(cls=_CodeFirst, help="What the vendors' codes mean, and which ones nobody knows.")
Gateway = Annotated[str | None, typer.Option(help="Those of this gateway.")]


# Known -------------------------------------------------------------------------------------------------------------


@codes.command("show")
def show_codes(
    code: Annotated[str | None, typer.Argument(help="One code, as a gateway sends it.")] = None,
    space: Annotated[str | None, typer.Option(help="The code space, for example openmarket.")] = None,
    *,
    json: Json = False,
) -> None:
    """What the vendors' codes mean, and what follows from each."""
    meaning = meaning_of(read_settings())
    found = [_code(one, meaning.policy) for one in _codes(meaning.catalogue, code, space)]
    if json:
        as_json(found)
    else:
        as_table(("space", "code", "reason", "level", "permanence", "meaning", "does"), found)


def _codes(catalogue: Catalogue, code: str | None, space: str | None) -> list[Code]:
    spaces = catalogue.spaces()
    if space is not None and space not in spaces:
        raise Refused(f"{space!r} is no code space; there are {', '.join(spaces)}")
    wanted = [space] if space else spaces
    if code is None:
        return [one for name in wanted for one in catalogue.space(name)]
    found = [one for name in wanted if (one := catalogue.find(name, code))]
    if not found:
        raise Refused(f"no code {code!r} in {space or 'any code space'}; `sendable codes` lists them all", 1)
    return found


def _code(code: Code, rules: Policy) -> dict[str, Any]:
    return asdict(code) | {"does": does(rules.rule(code.reason), rules)}


_OPTS_OUT = {"keep": "", "sender": "opts out of the sender's lists", "everyone": "opts out of every sender's lists"}


def does(rule: Rule, rules: Policy) -> str:
    """A rule in a few words: what it does in this mode, and with or without a lookup provider."""
    consent, lapse = consent_of(rule, rules), rules.lapse(rule)
    unrouted = rule.unrouted_consent if rule.unrouted_consent != consent else None
    parts = [
        rule.state and (f"{rule.state} for {written(lapse)}" if lapse else rule.state),
        rule.ends and f"ends {rule.ends}",
        rule.block and "blocks the sender",
        _OPTS_OUT[consent],
        rule.lookup and rules.lookups and consent != "everyone" and "asks a lookup",
        rule.lookup and not (rules.lookups or lapse) and rule.state == "held" and "waits for a provider or a person",
        unrouted and f"{_OPTS_OUT[unrouted]} if no carrier was named when sending",
        rule.ladder and f"a strike on the ladder {rule.ladder}",
        rule.alarm and "raises an alarm",
    ]
    return ", ".join(part for part in parts if part) or "is counted"


# Unknown -----------------------------------------------------------------------------------------------------------


@codes.command("unknown")
def unknown(gateway: Gateway = None, *, json: Json = False) -> None:
    """Codes and status words that no table knows: counted, with one message that had them, the last seen first."""
    rows = [row._asdict() for row in _unknown(gateway)]
    columns = ("gateway", "account", "kind", "space", "word", "status", "count", "message_id", "first_at", "last_at")
    as_json(rows) if json else as_table(columns, rows)


@codes.command("suggest")
def suggest(gateway: Gateway = None, *, json: Json = False) -> None:
    """The row to add for each unknown code, under the name of its table: say in it what the vendor's page says."""
    files: dict[str, list[str]] = defaultdict(list)
    rows = _unknown(gateway)
    for row in rows:
        if row.kind == "code" and row.space:
            line = _row(row)
            if line not in files[_file(row.space)]:
                files[_file(row.space)].append(line)
    if json:
        as_json(files)
        return
    for file, lines in files.items():
        typer.echo("\n".join((f"# {file}", *([] if _there(file) else [CODES.columns]), *map(visible, lines))))
    for row in rows:
        if row.kind == "status":
            say(f"the status {row.word!r} belongs in {_table(row.gateway)}")
        elif not row.space:
            say(f"the settings of {row.gateway} must say whose code {row.word} is: set `code_space`")


def _unknown(gateway: str | None) -> Sequence[Row[Any]]:
    a_gateway(gateway)

    async def look(engine: AsyncEngine, settings: Settings) -> Sequence[Row[Any]]:
        known = reading.Known(meaning_of(settings).catalogue, settings.links())
        return await reading.unknown_words(engine, known, gateway, 10_000)

    return with_database(look)


def _row(row: Row[Any]) -> str:
    """A row that the loader takes as it is, and that opts nobody out until a person has said what the code means."""
    seen = f"seen from {row.gateway} as {row.status}, {row.count} times since {row.first_at:%Y-%m-%d}"
    cells = (row.word, "Not known yet", "message", "unknown", "unknown", "unverified", seen)
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _file(space: str) -> str:
    return f"app/catalogue/codes/{space}.csv"


def _there(file: str) -> bool:
    return (FOLDER / "codes" / file.rpartition("/")[2]).exists()


def _table(gateway: str) -> str:
    """Where its status words stand."""
    vendor, _, name = gateway.partition("/")
    if name:
        return f"[gateways.{vendor}.{name}.statuses]"
    return f"the table of app/gateways/{'_' if vendor[0].isdigit() else ''}{vendor.replace('-', '_')}.py"
