"""Deactivation files in SQL: which are known, their lines staged in a table of their own, matched and noted there.

A file's lines lie in an unlogged table, feed_lines_ID: what a crash of the server takes with it is read again. It is
acted on in parts of so many blocks, in the order in which it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import Any, NamedTuple

import orjson
from asyncpg import UndefinedTableError

from app.services import store
from app.services.connection import Connection, touched

LONG = 600.0
"""Seconds that a statement over a whole file may take."""
LEFT_FOR = timedelta(days=7)
LOCK = 7_316_004
"""With the file's number beside it: PostgreSQL never mistakes such a pair for a lock of one number."""
COLUMNS = ("line", "number", "kind", "at", "guard", "carrier", "new_number", "new_carrier")


class File(NamedTuple):
    """A file as it is known: how far it is staged and acted on, and what has come of it."""

    id: int
    feed: str
    day: date | None
    carrier: str | None
    started_at: datetime
    finished_at: datetime | None
    staged: int
    whole: bool
    cut: bool
    acted: int
    records: int
    broken: int
    errors: list[dict[str, Any]]
    held: int
    noted: int
    changes: int
    opted_out: int


_COLUMNS = ", ".join(File._fields)


def _file(row: Mapping[str, Any]) -> File:
    return File(**{**row, "errors": orjson.loads(row["errors"])})


def lines_of(file: int) -> str:
    return f"feed_lines_{file}"


# The file ------------------------------------------------------------------------------------------------------------

_FIND = f"""
SELECT {_COLUMNS} FROM feed_files
WHERE feed = $1 AND digest = $2 AND ($3::date IS NULL OR day = $3)
ORDER BY id DESC LIMIT 1
"""  # noqa: S608 - names of this file
_BEGIN = f"""
INSERT INTO feed_files (feed, digest, day, carrier, name, started_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (feed, digest, day) DO UPDATE SET name = coalesce(excluded.name, feed_files.name)
RETURNING {_COLUMNS}
"""  # noqa: S608 - names of this file


class Given(NamedTuple):
    """What tells one file from another. `day` None: nobody has told it; the same bytes are then the same file."""

    feed: str
    digest: bytes
    day: date | None = None
    carrier: str | None = None
    name: str | None = None


async def find(db: Connection, given: Given) -> File | None:
    row = await db.fetchrow(_FIND, given.feed, given.digest, given.day)
    return _file(row) if row else None


async def begin(db: Connection, given: Given, now: datetime) -> File:
    """The file that is known by these bytes, or a new one."""
    known = await find(db, given)
    if known:
        return known
    return _file(await db.fetchrow(_BEGIN, *given, now))


_TAKE = "SELECT pg_try_advisory_lock($1, $2::bigint::int)"
_GIVE_BACK = "SELECT pg_advisory_unlock($1, $2::bigint::int)"


async def take_alone(db: Connection, file: int) -> bool:
    """Whether this connection has the file to itself, until it gives it back or ends: a killed process leaves none."""
    return bool(await db.fetchval(_TAKE, LOCK, file % 2**31))


async def give_back(db: Connection, file: int) -> None:
    await db.execute(_GIVE_BACK, LOCK, file % 2**31)


_STATE = f"SELECT {_COLUMNS} FROM feed_files WHERE id = $1"  # noqa: S608 - names of this file


async def state(db: Connection, file: int) -> File:
    return _file(await db.fetchrow(_STATE, file))


_FINISH = """
UPDATE feed_files SET finished_at = coalesce(finished_at, clock_timestamp()), fetched = coalesce(fetched, $2)
WHERE id = $1
"""


async def finish(db: Connection, file: int, fetched: str | None) -> None:
    """All of it has been acted on. `fetched`: its feed's own name for it, by which it is not fetched again; None of one
    that was cut.
    """
    async with db.transaction():  # lines of a file that is known to have ended would be looked for by nobody
        await db.execute(_FINISH, file, fetched)
        await db.execute(f"DROP TABLE IF EXISTS {lines_of(file)}", timeout=LONG)


_FORGET = "DELETE FROM feed_files WHERE id = $1 AND finished_at IS NULL AND noted = 0 AND changes = 0"


async def forget(db: Connection, file: int) -> None:
    """Forget a file that was only tried, or that a person has to say yes to, as if it had never come. One that has
    acted or noted numbers stays known: its row alone tells where those came from, and, where nobody has told its day,
    on which it came first.
    """
    async with db.transaction():
        await db.execute(_FORGET, file)
        await db.execute(f"DROP TABLE IF EXISTS {lines_of(file)}", timeout=LONG)


_LEFT = "SELECT id FROM feed_files WHERE finished_at IS NULL AND started_at < $1 AND id <> $2"


async def clear_away(db: Connection, now: datetime, but: int) -> None:
    """The lines of files that somebody began a week ago and never went on with; not of `but`, which goes on now."""
    for row in await db.fetch(_LEFT, now - LEFT_FOR, but):
        if await take_alone(db, row["id"]):
            await forget(db, row["id"])
            await give_back(db, row["id"])


# Its lines -----------------------------------------------------------------------------------------------------------

_RESTART = """
UPDATE feed_files SET staged = 0, whole = false, cut = false, acted = 0, records = 0, broken = 0, errors = '[]',
    held = 0
WHERE id = $1
"""


async def prepare(db: Connection, file: File) -> File:
    """A place for its lines. A server that has crashed has lost those that were there: they are read again, and acted
    on again, since they need not lie where they lay. Whatever they did counts once.
    """
    await db.execute(f"""
    CREATE UNLOGGED TABLE IF NOT EXISTS {lines_of(file.id)} (line bigint NOT NULL, number text NOT NULL,
        kind text NOT NULL, at timestamptz, guard timestamptz, carrier text, new_number text, new_carrier text)""")
    there = await db.fetchval(f"SELECT EXISTS (SELECT FROM {lines_of(file.id)})")  # noqa: S608 - a number
    if file.records and not there:
        await db.execute(_RESTART, file.id)
        return await state(db, file.id)
    return file


_STAGED = """
UPDATE feed_files SET staged = $2, records = records + $3, broken = broken + $4,
    errors = CASE WHEN jsonb_array_length(errors) < $6 THEN errors || $5::jsonb ELSE errors END
WHERE id = $1
"""
ERRORS_KEPT = 100


async def stage(db: Connection, file: File, records: Sequence[Sequence[Any]], errors: Sequence[tuple[int, str]],
                line: int) -> None:  # fmt: skip
    """Records up to a line, and what was broken among them, with the progress."""
    told = orjson.dumps([{"line": place, "error": why} for place, why in errors[:ERRORS_KEPT]]).decode()
    async with db.transaction():
        gone = await erased_since(db, file, lambda: {n for row in records for n in (row[_NUMBER], row[_NEW_NUMBER])})
        kept = [_without_hint(row, gone) for row in records if row[_NUMBER] not in gone] if gone else records
        await _copy(db, lines_of(file.id), kept)
        await db.execute(_STAGED, file.id, line, len(records), len(errors), told, ERRORS_KEPT)


async def _copy(db: Connection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Of most files there is nothing in a line but its number, and text is quicker to write than rows to encode."""
    if any(row[_PLAIN:] != _NOTHING for row in rows):
        await db.copy_records_to_table(table, records=rows, columns=COLUMNS, timeout=LONG)
        return
    text = "".join([f"{line}\t{number}\t{kind}\n" for line, number, kind, *_ in rows])
    await db.copy_to_table(table, source=BytesIO(text.encode()), columns=COLUMNS[:_PLAIN], timeout=LONG)


_PLAIN = COLUMNS.index("at")
_NOTHING = (None,) * len(COLUMNS[_PLAIN:])
_NUMBER, _NEW_NUMBER = COLUMNS.index("number"), COLUMNS.index("new_number")


def _without_hint(row: Sequence[Any], gone: set[str]) -> Sequence[Any]:
    return row if row[_NEW_NUMBER] not in gone else (*row[:_NEW_NUMBER], None, *row[_NEW_NUMBER + 1 :])


_WHOLE = "UPDATE feed_files SET whole = true, cut = $2 WHERE id = $1"


async def is_whole(db: Connection, file: int, *, cut: bool) -> None:
    await db.execute(_WHOLE, file, cut)
    await db.execute(f"ANALYZE {lines_of(file)}", timeout=LONG)


# Erasures ------------------------------------------------------------------------------------------------------------

_ANY_ERASED = "SELECT EXISTS (SELECT FROM erased WHERE at >= $1)"


async def erased_since(db: Connection, file: File, numbers: Callable[[], Iterable[str | None]]) -> set[str]:
    """Those of them that were erased since the file began to come in. No other is until the transaction ends."""
    await store.hold_off_erasures(db)
    if not await db.fetchval(_ANY_ERASED, file.started_at):
        return set()
    erased = await store.erased(db, [number for number in numbers() if number])
    return {number for number, at in erased.items() if at >= file.started_at}


_STAGES = """
SELECT relname FROM pg_class
WHERE pg_table_is_visible(oid) AND relkind = 'r' AND relname ~ '^feed_lines_[0-9]+$' ORDER BY 1
"""


async def erase(db: Connection, number: str) -> int:
    """Take a number out of whatever file is on its way, and keep all of them from going on until the transaction ends.
    How many lines named it. A file may end meanwhile, and its table with it.
    """
    await db.execute("SELECT pg_advisory_xact_lock($1)", store.ERASING, timeout=LONG)
    lines = 0
    for row in await db.fetch(_STAGES):
        for statement in ("DELETE FROM {} WHERE number = $1", "UPDATE {} SET new_number = NULL WHERE new_number = $1"):
            try:
                async with db.transaction():
                    done = await db.execute(statement.format(row["relname"]), number, timeout=LONG)
            except UndefinedTableError:
                continue
            lines += touched(done)
    return lines


# What it would do ----------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """One list: how many subscribers it has, and how many of them the file takes."""

    sender: str
    list: str
    subscribers: int
    affected: int


def _judge(file: int) -> str:
    return f"""
WITH taken AS (
    SELECT s.sender, s.list, count(*) AS affected
    FROM subscriptions s JOIN numbers n USING (number)
    WHERE s.consent = 'opted_in' AND (n.dead_since IS NULL OR s.opted_in_at > n.dead_since)
      AND EXISTS (SELECT FROM {lines_of(file)} l WHERE l.number = s.number AND l.kind = ANY($2::text[])
                  AND coalesce(l.at, $1) >= s.opted_in_at)
    GROUP BY 1, 2)
SELECT t.sender, t.list, coalesce(l.opted_in, 0) AS subscribers, t.affected
FROM taken t LEFT JOIN list_sizes l USING (sender, list) ORDER BY t.affected DESC, 1, 2
"""  # noqa: S608 - a number


async def judge(db: Connection, file: int, at: datetime, kinds: Sequence[str]) -> list[Judged]:
    """The lists that the file takes subscribers from: those who may be sent to until now, by their number and list."""
    return [Judged(*row) for row in await db.fetch(_judge(file), at, [*kinds], timeout=LONG)]


class Default(NamedTuple):
    """What a record without a moment of its own has: that of the file. `reasons`: of a TRANSFER, and of any other of
    the `kinds` that are noted.
    """

    at: datetime
    guard: datetime
    reasons: tuple[str, str]
    kinds: Sequence[str]


def _foresee(file: int) -> str:
    return f"""
WITH gone AS (
    SELECT DISTINCT ON (number) number, happened, reason
    FROM (SELECT number, coalesce(at, $3) AS happened, CASE kind WHEN 'TRANSFER' THEN $1 ELSE $2 END AS reason
          FROM {lines_of(file)} WHERE kind = ANY($4::text[])) AS said
    ORDER BY number, happened DESC, reason DESC)
SELECT (SELECT count(*) FROM {lines_of(file)} l WHERE kind <> ALL ($4::text[])
            OR EXISTS (SELECT FROM numbers n WHERE n.number = l.number AND n.facts IS NOT NULL)) AS held,
       (SELECT count(*) FROM gone LEFT JOIN numbers n USING (number) WHERE n.facts IS NULL
            AND (n.dead_since IS NULL OR (n.dead_since, n.reason) < (gone.happened, gone.reason))) AS noted
"""  # noqa: S608 - a number


async def foresee(db: Connection, file: int, default: Default) -> tuple[int, int]:
    """How many records would be acted on, and how many numbers would be noted."""
    row = await db.fetchrow(_foresee(file), *default.reasons, default.at, [*default.kinds], timeout=LONG)
    return row["held"], row["noted"]


# Acting --------------------------------------------------------------------------------------------------------------

BLOCKS = 192
"""Of the staged lines in one part: some 25,000 lines."""


async def blocks(db: Connection, file: int) -> int:
    size = "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::int"
    return int(await db.fetchval(size, lines_of(file)))


def _part(first: int) -> str:
    return f"l.ctid >= '({first},0)' AND l.ctid < '({first + BLOCKS},0)'"


def _note(file: int, first: int) -> str:
    return f"""
WITH part AS MATERIALIZED (SELECT * FROM {lines_of(file)} l WHERE {_part(first)}),
noted AS (
    INSERT INTO numbers (number, state, reason, dead_since, changed_at, noted_by, noted_guard)
    SELECT DISTINCT ON (number) number, 'deactivated', reason, happened, clock_timestamp(), $1, guarded
    FROM (SELECT number, CASE kind WHEN 'TRANSFER' THEN $2 ELSE $3 END AS reason, coalesce(at, $4) AS happened,
              coalesce(guard, $5) AS guarded
          FROM part WHERE kind = ANY($6::text[])) AS gone
    ORDER BY number, happened DESC, reason DESC ON CONFLICT DO NOTHING RETURNING number)
SELECT told.many, l.* FROM (SELECT count(*) AS many FROM noted) AS told LEFT JOIN (
    SELECT number, kind, at, guard, carrier, new_number, new_carrier, line FROM part
    WHERE kind <> ALL ($6::text[]) OR number NOT IN (SELECT number FROM noted)) AS l ON true
ORDER BY l.number, l.line
"""  # noqa: S608 - numbers


# After those that were added: whoever locks numbers does so first with those that are new, then with the others.
_NOTE_AGAIN = """
UPDATE numbers n SET state = 'deactivated', reason = v.reason, dead_since = happened, changed_at = clock_timestamp(),
    noted_by = $1, noted_guard = guarded
FROM (SELECT number, v.reason, happened, guarded
      FROM unnest($2::text[], $3::timestamptz[], $4::text[], $5::timestamptz[]) AS v (number, happened, reason, guarded)
      JOIN numbers known USING (number)
      WHERE known.facts IS NULL
        AND (known.dead_since IS NULL OR (known.dead_since, known.reason) < (happened, v.reason))
      ORDER BY number FOR UPDATE OF known) AS v
WHERE n.number = v.number
"""
_SPOKEN_OF = "SELECT number FROM numbers WHERE number = ANY($1::text[]) AND facts IS NOT NULL"


async def note(db: Connection, file: int, first: int, default: Default) -> tuple[int, list[Any]]:
    """Note numbers that nobody has spoken of, in the order of their numbers: how many. And the records of the part that
    are about numbers somebody has spoken of, or that do more than note one.

    Only what was not noted is looked for: to look for all of a part took as long as the whole table is, for each part.
    """
    await store.hold_off_erasures(db)
    values = (file, *default.reasons, default.at, default.guard, [*default.kinds])
    rows = await db.fetch(_note(file, first), *values, timeout=LONG)
    left = [row for row in rows if row["number"]]
    known = _newest((row for row in left if row["kind"] in default.kinds), default)
    if not known:
        return rows[0]["many"], [row[1:-1] for row in left]
    again = await db.execute(_NOTE_AGAIN, file, *store.columns(known), timeout=LONG)
    spoken_of = {row[0] for row in await db.fetch(_SPOKEN_OF, [number for number, *_ in known], timeout=LONG)}
    held = [row[1:-1] for row in left if row["kind"] not in default.kinds or row["number"] in spoken_of]
    return rows[0]["many"] + touched(again), held


def _newest(rows: Iterable[Any], default: Default) -> list[tuple[Any, ...]]:
    """Of each number its last end, as the statement above has it of those that it adds."""
    found: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        reason = default.reasons[row["kind"] != "TRANSFER"]
        told = (row["number"], row["at"] or default.at, reason, row["guard"] or default.guard)
        found[told[0]] = max(found.get(told[0], told), told)
    return [*found.values()]


_ACTED = """
UPDATE feed_files SET acted = coalesce($2, acted), held = held + $3, noted = noted + $4, changes = changes + $5,
    opted_out = opted_out + $6
WHERE id = $1
"""


async def acted(db: Connection, file: int, upto: int | None = None, *, held: int = 0, noted: int = 0, changes: int = 0,
                opted_out: int = 0) -> None:  # fmt: skip
    await db.execute(_ACTED, file, upto, held, noted, changes, opted_out)
