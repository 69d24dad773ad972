"""`sendable lookup`: one number now, or a file of them within a price."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.core import TyperGroup

from app.cli.attach import with_database
from app.cli.show import Json, Refused, as_json, as_table, progress, refusing, say
from app.config import Settings, read_settings
from app.lookups import PROVIDERS
from app.models.duration import duration
from app.models.phone import e164
from app.models.settings import SUM_MOST
from app.services import reading, status
from app.services.lookup import stops
from app.services.lookup.outcome import Outcome
from app.services.lookup.service import Lookups
from app.wiring import meaning_of, plan_of

AT_ONCE = 16
TOLD = 1_000
"""Numbers whose earlier answers are looked for at once."""


class _NumberFirst(TyperGroup):
    """`sendable lookup +15555551234` is `sendable lookup number +15555551234`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own copy of click's context
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["number", *args]
        return super().parse_args(ctx, args)


lookup = typer.Typer(cls=_NumberFirst, no_args_is_help=True, help="Who serves a number now, as lookup providers tell.")


@lookup.command("number")
def look_up_number(
    number: Annotated[str, typer.Argument(help="E.164, or a national number of SENDABLE_REGION.")],
    *,
    json: Json = False,
) -> None:
    """Ask a provider now, within the budget, and act on the answer as on any lookup's."""
    with refusing():
        who = e164(number, read_settings().region)

    async def ask(engine: AsyncEngine, settings: Settings) -> tuple[Outcome, dict[str, Any]]:
        async with _lookups(engine, settings).open() as lookups:
            outcome = await lookups.look_up(who)
        return outcome, status.told((await status.read_many(engine, [who]))[who], status.Asked())

    outcome, shown = with_database(ask)
    told = _told(outcome) | {"state": shown["state"], "carrier": shown["carrier"]}
    if json:
        as_json(told)
    else:
        carrier = (told.pop("carrier") or {}).get("name")
        as_table(
            ("number", who), [(key, value) for key, value in (told | {"carrier": carrier}).items() if key != "number"]
        )


def _told(outcome: Outcome) -> dict[str, Any]:
    errors = ", ".join(f"{provider}: {error}" for provider, error in outcome.errors)
    return {"number": outcome.number, "outcome": outcome.outcome, "provider": outcome.provider,
            "errors": errors or None, "price": str(outcome.price), "waiting_for": outcome.waiting_for,
            "changes": len(outcome.changes)}  # fmt: skip


def _lookups(engine: AsyncEngine, settings: Settings, most: Decimal | None = None) -> Lookups:
    plan = replace(plan_of(settings), most=most)
    if not plan.sources:
        raise Refused("no lookup provider is configured: name one under [lookup] in the settings file")
    return Lookups(engine, meaning_of(settings), plan)


@lookup.command("resume")
def resume(provider: Annotated[str, typer.Argument(help="As under [lookup] in the settings file.")], *,
           json: Json = False) -> None:  # fmt: skip
    """Ask a provider again that has refused our account: after its key is mended or its bill is paid."""
    if provider not in PROVIDERS:
        raise Refused(f"{provider!r} is no lookup provider of Sendable; there are {', '.join(PROVIDERS)}")
    lifted = with_database(lambda engine, _: stops.lift(engine, provider))
    if json:
        as_json({"provider": provider, "resumed": bool(lifted), "error": lifted[0].error if lifted else None})
    elif lifted:
        say(f"{provider} is asked again; it was stopped ({lifted[0].error}) since {lifted[0].since:%Y-%m-%d %H:%M} UTC")
    else:
        say(f"{provider} was not stopped")


# A file ------------------------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """What a file asks for: its numbers, once each, and how many lines held none."""

    numbers: list[str]
    wrong: int


@lookup.command("import")
def look_up_file(
    file: Annotated[
        Path, typer.Argument(help="CSV: the column `number`, or the first one.", exists=True, dir_okay=False)
    ],
    max_cost: Annotated[str, typer.Option("--max-cost", help="Stop before it costs more, for example 20.00.")],
    again_after: Annotated[str, typer.Option(help="Ask again for what was answered longer ago than this.")] = "30d",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
    json: Json = False,
) -> None:
    """Look a file of numbers up, within a price. Stopped and started again, it goes on where it stopped."""
    most, since = _money(max_cost), _since(again_after)
    settings = read_settings()
    wanted = _wanted(file, settings.region)
    if wanted.wrong and not wanted.numbers:
        raise Refused(f"{file.name}: no line holds a phone number: name its column `number`, or let it be the first", 1)

    async def look(engine: AsyncEngine, settings: Settings) -> dict[str, Any]:
        lookups = _lookups(engine, settings, most)
        price = lookups.plan.sources[0].price
        due, many = await _due(engine, wanted.numbers, since), len(wanted.numbers)
        told = {"numbers": many, "wrong_lines": wanted.wrong, "answered_before": many - len(due),
                "to_ask": len(due), "price_at_most": str(price * len(due))}  # fmt: skip
        say(f"{len(due)} of {many} numbers to ask, for about {price * len(due)}; at most {most} is spent")
        if dry_run:
            return told
        async with lookups.open():
            outcomes = await _look_up(lookups, due, price, most)
        spent = sum((outcome.price for outcome in outcomes), Decimal(0))
        asked = sum(outcome.waiting_for is None for outcome in outcomes)
        if asked < len(due):
            say(f"{len(due) - asked} numbers were not asked: --max-cost or the budget is reached; "
                "run it again when there is more")  # fmt: skip
        return told | {"asked": asked, "ok": sum(o.outcome == "ok" for o in outcomes), "spent": str(spent),
                       "changes": sum(len(o.changes) for o in outcomes)}  # fmt: skip

    told = with_database(look)
    if json:
        as_json(told)
    else:
        as_table(("what", "how many"), list(told.items()))


async def _due(engine: AsyncEngine, numbers: Sequence[str], since: datetime) -> list[str]:
    """Those that no provider has answered for since then."""
    answered: set[str] = set()
    for start in range(0, len(numbers), TOLD):
        answered |= await reading.looked_up(engine, numbers[start : start + TOLD], since)
    return [number for number in numbers if number not in answered]


async def _look_up(lookups: Lookups, numbers: Sequence[str], price: Decimal, most: Decimal) -> list[Outcome]:
    """Some at once, until all are asked or the next one might cost too much."""
    outcomes: list[Outcome] = []
    spent, left = Decimal(0), iter(numbers)
    with progress("lookups", len(numbers)) as tell:

        async def worker() -> None:
            nonlocal spent
            for number in left:
                if spent + price > most:
                    return
                spent += price  # reserved: others see it while this one asks
                outcome = await lookups.look_up(number)
                spent += outcome.price - price
                outcomes.append(outcome)
                tell(len(outcomes))
                if outcome.waiting_for == "budget":
                    return

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return outcomes


def _wanted(file: Path, region: str) -> Wanted:
    """Only the numbers are read: what else stands in the file may be in any encoding."""
    numbers: dict[str, None] = {}
    wrong = place = 0
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for first, line in enumerate(lines):
            row = _cells(line)
            if first == 0 and any(cell.strip().lower() == "number" for cell in row):
                place = [cell.strip().lower() for cell in row].index("number")
            elif len(row) > place and row[place].strip():
                try:
                    numbers[e164(row[place], region)] = None
                except ValueError:
                    wrong += 1
    return Wanted([*numbers], wrong)


def _cells(line: str) -> list[str]:
    """A line by itself: a quotation mark that never ends must not swallow the lines behind it."""
    try:
        return next(csv.reader([line.rstrip("\n")]), [])
    except csv.Error:  # longer than a cell may be: no number
        return [line]


def _money(text: str) -> Decimal:
    try:
        most = Decimal(text)
    except InvalidOperation:
        most = Decimal("NaN")
    if not most.is_finite() or not 0 <= most <= SUM_MOST:
        raise Refused(f'--max-cost {text!r} is no amount: write one such as "20.00"')
    return most


def _since(text: str) -> datetime:
    with refusing("--again-after"):
        return datetime.now(UTC) - duration(text)
