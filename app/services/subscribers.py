"""Subscribers in bulk: a file's lines go by COPY into a table of their own, and from there through the rules of a
single opt-in, in groups of a few thousand. A group, its changes and what came of it are one transaction: whatever is
killed, the same file goes on where it stopped, and no line acts twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import OptIn
from app.models.opt_in import Place
from app.models.policy import Policy
from app.services import store
from app.services.apply import Applied, apply, foresee
from app.services.connection import transaction
from app.services.consent import agreed
from app.services.roster import Given, Roster, Wrong
from app.services.shown import consent

AT_ONCE = 5_000
"""Lines in one transaction: the feed's order is the order of commits, so none may last long."""
ERRORS_TOLD = 1_000


class Elsewhere(RuntimeError):
    """Another process imports the same file just now."""

    def __init__(self, what: str = "it tells what came of it") -> None:
        super().__init__(f"another process imports this file just now: {what}")


@dataclass(slots=True)
class Told:
    """What came of a file. `lines` counts those that are opt-ins, and `outcomes` what they did: people are newly
    `opted_in`, were `already` in, or are `refused` since something newer stands, which `reasons` counts. `wrong` counts
    the other lines; `errors` are the first thousand of them, with what to mend.
    """

    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    errors: list[Wrong] = field(default_factory=list)

    def answer(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            **{name: self.outcomes[name] for name in ("opted_in", "already", "refused")},
            "reasons": dict(sorted(self.reasons.items())),
            "wrong": self.wrong,
            "errors": [error._asdict() for error in self.errors],
        }


class Watch(NamedTuple):
    """Who looks on: told of bytes read, of lines applied, and of every wrong line."""

    read: Callable[[int], None] = lambda _: None
    applied: Callable[[int], None] = lambda _: None
    wrong: Callable[[Wrong], None] = lambda _: None


NOBODY = Watch()
Parts = AsyncIterator[bytes]


async def take(engine: AsyncEngine, import_: UUID, parts: Parts, roster: Roster, *, policy: Policy,
               watch: Watch = NOBODY) -> Told:  # fmt: skip
    """Bring a file in. `import_` names it: one that was begun under this name goes on. Raises NotARoster, Elsewhere."""
    told = Told()
    staged, roster.now = await _begin(engine, import_, roster.now)
    async for group in _groups(parts, roster, told, watch):
        if group[-1].line > staged:
            staged = await _stage(engine, import_, [one for one in group if one.line > staged], staged)
    while applied := await _apply_group(engine, import_, policy):
        watch.applied(applied)
    told.outcomes, told.reasons = await _finish(engine, import_)
    return told


async def judge(engine: AsyncEngine, parts: Parts, roster: Roster, policy: Policy, watch: Watch = NOBODY) -> Told:
    """What `take` would do, without touching anything. People who stand in a file twice count twice."""
    told = Told()
    async for group in _groups(parts, roster, told, watch):
        verdicts = [agreed(one.place, one.opt_in) for one in group]
        async with transaction(engine) as db:
            _count(group, await foresee(db, verdicts, policy, datetime.now(UTC)), told.outcomes, told.reasons)
        watch.applied(len(group))
    return told


async def _groups(parts: Parts, roster: Roster, told: Told, watch: Watch) -> AsyncIterator[list[Given]]:
    group: list[Given] = []
    async for part in parts:
        group += _good(roster.read(part), told, watch)
        watch.read(len(part))
        while len(group) >= AT_ONCE:
            yield group[:AT_ONCE]
            group = group[AT_ONCE:]
    group += _good(roster.end(), told, watch)
    if group:
        yield group


def _good(read: Iterable[Given | Wrong], told: Told, watch: Watch) -> list[Given]:
    good = []
    for one in read:
        if isinstance(one, Given):
            good.append(one)
            continue
        told.wrong += 1
        watch.wrong(one)
        if len(told.errors) < ERRORS_TOLD:
            told.errors.append(one)
    told.lines += len(good)
    return good


# One group ---------------------------------------------------------------------------------------------------------

_BEGIN = """
INSERT INTO imports (id, touched_at, told) VALUES ($1, $2, jsonb_build_object('begun', $3::timestamptz))
ON CONFLICT (id) DO UPDATE SET touched_at = excluded.touched_at
RETURNING staged_to, (told ->> 'begun')::timestamptz
"""
_DROP_LINES = "DELETE FROM import_lines WHERE import = $1"


async def _begin(engine: AsyncEngine, import_: UUID, now: datetime) -> tuple[int, datetime]:
    """The last line that stands in the database already, and when they began to be read: as of then all are."""
    async with transaction(engine) as db:
        staged, begun = await db.fetchrow(_BEGIN, import_, datetime.now(UTC), now)
        if not staged:  # upkeep forgets one that is a week old before its lines, and may have been killed in between
            await db.execute(_DROP_LINES, import_)
    return staged, begun or now


_STAGED = "UPDATE imports SET staged_to = $3, touched_at = $4 WHERE id = $1 AND staged_to = $2 RETURNING 1"
_LINE = ("import", "line", "number", "sender", "list", "consented_at", "source", "evidence")


async def _stage(engine: AsyncEngine, import_: UUID, group: Sequence[Given], staged: int) -> int:
    rows = [(import_, one.line, *one.place, *_said(one.opt_in)) for one in group]
    async with transaction(engine) as db:
        if not await db.fetchval(_STAGED, import_, staged, group[-1].line, datetime.now(UTC)):
            raise Elsewhere("let it finish")
        await db.copy_records_to_table("import_lines", records=rows, columns=_LINE)
    return group[-1].line


def _said(given: OptIn) -> tuple[datetime, str, str | None]:
    return given.at, given.source, given.evidence


_TAKE = """
DELETE FROM import_lines USING (
    SELECT import, line FROM import_lines WHERE import = $1 ORDER BY line LIMIT $2) AS first
WHERE import_lines.import = first.import AND import_lines.line = first.line
RETURNING import_lines.line, number, sender, list, consented_at, source, evidence
"""


async def _apply_group(engine: AsyncEngine, import_: UUID, policy: Policy) -> int:
    """Apply the first lines that wait, in their order; how many there were. Of several processes one at a time does."""
    async with transaction(engine) as db:
        told, now = _told(await db.fetchval(_TOLD, import_)), datetime.now(UTC)
        rows = await db.fetch(_TAKE, import_, AT_ONCE)
        group = [Given(row[0], Place(*row[1:4]), OptIn(*row[4:])) for row in sorted(rows, key=lambda row: row[0])]
        if group:
            applied = await apply(db, [agreed(one.place, one.opt_in) for one in group], policy, now)
            _count(group, applied, *told)
            await db.execute(_TELL, import_, orjson.dumps({"outcomes": told[0], "reasons": told[1]}).decode(), now)
            await store.publish(db, applied.every_change)
    return len(group)


_TOLD = "SELECT told FROM imports WHERE id = $1 FOR UPDATE"
_TELL = "UPDATE imports SET told = told || $2, touched_at = $3 WHERE id = $1"


def _told(stored: str | None) -> tuple[Counter[str], Counter[str]]:
    """Outcomes and reasons, as far as they were told. Raises Elsewhere when another process has ended the import."""
    if stored is None:
        raise Elsewhere
    told = orjson.loads(stored)
    return Counter(told.get("outcomes", {})), Counter(told.get("reasons", {}))


def _count(group: Sequence[Given], applied: Applied, outcomes: Counter[str], reasons: Counter[str]) -> None:
    for (_, place, _), changes in zip(group, applied.changes, strict=True):
        if any(c.kind == "list.opted_in" and (c.sender, c.list) == place[1:] for c in changes):
            outcomes["opted_in"] += 1
            continue
        held = applied.held[place.number]
        stands, out = consent(held.number, held.lists[place.sender, place.list])
        outcomes["already" if stands == "opted_in" else "refused"] += 1
        if stands == "opted_out":
            reasons[(out.reason if out else None) or "unknown"] += 1


_FINISH = "DELETE FROM imports WHERE id = $1 RETURNING told"


async def _finish(engine: AsyncEngine, import_: UUID) -> tuple[Counter[str], Counter[str]]:
    async with transaction(engine) as db:
        return _told(await db.fetchval(_FINISH, import_))


async def drop(engine: AsyncEngine, import_: UUID) -> None:
    """Forget a file that did not arrive whole: nothing of it has acted."""
    async with transaction(engine) as db:
        await db.execute(_DROP_LINES, import_)
        await db.execute(_FINISH, import_)
