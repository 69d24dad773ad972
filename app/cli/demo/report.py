"""What to look at when the day is over."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import text

from app.cli.demo.day import Day
from app.cli.demo.outcome import Outcome
from app.cli.show import as_table
from app.services import database
from app.services.connection import connect
from app.services.doctor.database import READER

SQL = (
    "SELECT state, sendable, count(*) FROM published.number_status GROUP BY 1, 2 ORDER BY 3 DESC, 1",
    "SELECT sender, list, count(*) AS may_be_texted FROM published.sendable GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT reason, code_space, code, count(*) FROM published.opt_outs GROUP BY 1, 2, 3 ORDER BY 4 DESC, 2, 3 LIMIT 12",
)


class Read(NamedTuple):
    """One statement as the reader's role runs it, and its answer."""

    sql: str
    columns: Sequence[str]
    rows: list[list[Any]]


async def as_the_reader(folder: Path) -> list[Read]:
    engine = connect(database.url_for(folder, READER, driver="postgresql+asyncpg") + database.OUR_WAY, pool=1)
    try:
        async with engine.connect() as db:
            results = [(sql, await db.execute(text(sql))) for sql in SQL]
            return [Read(sql, [*result.keys()], [[*row] for row in result]) for sql, result in results]
    finally:
        await engine.dispose()


def summary(day: Day, came: Outcome, posts: int, seconds: float) -> dict[str, Any]:
    """The day in figures. `opted_out`: how often a list lost somebody, by reason, also where the person came back."""
    receipts = len(day.due) + len(day.told) - len({*day.due})
    lists = [one for answer in came.answers for one in answer["lists"]]
    return {
        "receipts": receipts, "posts": posts, "seconds": round(seconds, 1),
        "receipts_per_second": round(receipts / seconds),
        "stored": came.receipts.total(), "repeats": receipts - len(day.told), "numbers": len(came.answers),
        "gateways": _counted(seen[0] for seen in came.receipts.elements()),
        "statuses": _counted(seen[4] for seen in came.receipts.elements()),
        "states": _counted(answer["state"] for answer in came.answers),
        "lists": _counted(one["consent"] for one in lists),
        "opted_out": _counted(one["reason"] for one in came.changes if one["kind"] == "list.opted_out"),
        "held": _counted(f"{row['reason']}, waits for {row['waiting_for'] or 'its time'}" for row in came.held),
        "unread": _counted(f"{row['gateway']}: {row['reason']}" for row in came.unread),
        "unknown_codes": {row["key"]: row["count"] for row in came.unknown},
    }  # fmt: skip


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0])))


# For people --------------------------------------------------------------------------------------------------------

COUNTS = {
    "gateways": "by gateway", "statuses": "by status", "states": "numbers by state", "lists": "lists by consent",
    "opted_out": "opt-outs of lists by reason", "held": "held numbers", "unread": "kept unread",
    "unknown_codes": "codes in no table",
}  # fmt: skip


def show(summary: Mapping[str, Any], came: Outcome, seen: Sequence[Read], base: str, folder: Path | None) -> None:
    _say(
        f"{summary['receipts']:,} receipts in {summary['posts']:,} requests took {summary['seconds']} s: "
        f"{summary['receipts_per_second']:,} receipts/s, the client working on the same machine."
    )
    if not summary["mismatches"]:
        _say(f"{summary['stored']:,} are stored exactly as they were sent, {summary['repeats']:,} were repeats.")
    for name, title in COUNTS.items():
        _title(title)
        _say("\n".join(f"{many:10,}  {what}" for what, many in summary[name].items()) or "      none")
    number = came.history[0]["number"]
    _title(f"the day of {number}: STOP, START, out of service, and somebody else has it")
    as_table(("at", "what", "of", "from", "to", "reason", "by"), map(_change, came.history))
    for one in seen:
        _title("what other systems read in Postgres")
        _say(one.sql)
        as_table(one.columns, one.rows)
    _title("look yourself")
    _say(f"curl '{base}/v1/numbers/{number}?sender=24680'\ncurl {base}/v1/numbers/{number}/history\n{base}/docs")
    _say(_psql(folder))


def _change(row: Mapping[str, Any]) -> tuple[Any, ...]:
    cause = row["cause"]
    by = " ".join(filter(None, (cause.get("gateway"), cause.get("code")))) or cause.get("source") or cause["kind"]
    of = "/".join(filter(None, (row.get("sender"), row.get("list"))))
    return (row["occurred_at"][:19].replace("T", " "), row["kind"], of, row["from"], row["to"], row["reason"], by)


def _psql(folder: Path | None) -> str:
    program = os.path.relpath(Path(sys.executable).with_name("sendable"))
    where = f"SENDABLE_DATA_DIR={folder} " if folder else ""
    return f'psql "$({where}{program} db url --reader)"'


def _title(text_: str) -> None:
    _say(f"\n{text_}")


def _say(text_: str) -> None:
    sys.stdout.write(f"{text_}\n")
