"""The breaker: the same failure for many numbers at once is a gateway's mistake until a person says otherwise.

Failures that would end consent or hold a number are counted by key, distinct numbers in a window by arrival. Over the
limit a quarantine opens: what they did within the window is undone, that and what follows of the key waits, and their
numbers are held. The person's own will is never counted here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from app.models.catalogue import Carriers
from app.models.number import Cause, Decision, Verdict
from app.models.policy import Breaker, Policy
from app.services.aside import harmless
from app.services.connection import Connection
from app.services.decide import Registered
from app.services.store import Arrival, columns

ALARM, BREAKER = "quarantine", "breaker"
"""The kind of its alarms, and who it is as a cause."""
PROCESSES = 8
"""How many processes are thought to take the same failures at once."""
RECOUNTED = timedelta(seconds=10)
"""After which a key is counted again, however far it was from its limit."""
UNDONE_AT_ONCE = 2_000
"""Numbers that one transaction takes back. All of a large event at once would take longer than a group of receipts may:
with 55,000 each was given up, so that nothing was ever undone and nobody's receipt taken.
"""
KEYS_MOST = 10_000
"""Keys of which a process remembers the last count; beyond it all are counted anew."""


class Key(NamedTuple):
    """Of whose failures a mass event is made. `carrier` as the receipt names it, else as the register does; empty where
    neither names one.
    """

    gateway: str
    code_space: str
    code: str
    sender: str
    carrier: str
    reason: str

    def __str__(self) -> str:
        return "/".join(self[:5])


@dataclass(slots=True)
class _Seen:
    """How many were last counted of a key, how many it may have, and how many this process has added since."""

    many: int
    limit: int
    at: datetime
    new: int = 0


class Tally:
    """When a key need be counted again. The truth is in PostgreSQL; this only spares asking for it at each receipt."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def doubtful(self, new: Mapping[str, int], now: datetime) -> list[str]:
        """Keys that may be over their limit with these hits more, if the other processes took as many each."""
        found = []
        for key, many in new.items():
            seen = self._seen.get(key)
            if seen is None or seen.at < now - RECOUNTED or seen.many + PROCESSES * (seen.new + many) > seen.limit:
                found.append(key)
            else:
                seen.new += many
        return found

    def counted(self, key: str, many: int, limit: int, now: datetime) -> None:
        if len(self._seen) >= KEYS_MOST:
            self._seen.clear()
        self._seen[key] = _Seen(many, limit, now)


@dataclass(frozen=True, slots=True)
class Guard:
    """The breaker of one process: the policy, and what it has counted."""

    policy: Policy
    tally: Tally


class Watched(NamedTuple):
    """Verdicts that carry out what was decided on the same numbers; a group's verdicts, as they may act after those;
    verdicts that undo what others of the same keys have done; the alarms to be raised; the keys by what is written for
    them.
    """

    closing: list[Verdict]
    verdicts: list[Verdict]
    undoing: list[Verdict]
    alarms: dict[tuple[str, str], int]
    keys: Mapping[str, Key]


class Decided(NamedTuple):
    """A quarantine on which a person has decided, in the order of its columns below."""

    id: int
    key: str
    sender: str
    carrier: str
    decision: Decision
    by: str

    def closing(self, numbers: Iterable[str], now: datetime) -> list[Verdict]:
        """What carries the decision out for these numbers."""
        cause = Cause("person", source=self.by)
        return [Verdict(one, now, cause, apart=self.key, case=self.id, closed=self.decision) for one in numbers]


def own_carrier(arrival: Arrival) -> str:
    """The carrier that a receipt names; empty where it names none."""
    return arrival.brand or arrival.receipt.carrier or ""


def carrier_of(arrival: Arrival, known: Registered | None, carriers: Carriers) -> str:
    """The same, else the one by which its message was sent, as the register tells."""
    own = own_carrier(arrival)
    if own or known is None or known.carrier is None:
        return own
    return carriers.name(known.carrier, known.number) or known.carrier


def key_of(arrival: Arrival, carrier: str, verdict: Verdict, policy: Policy) -> Key | None:
    """The key of a failure that ends consent or holds; None for any other, and for a revocation. One without a sender
    that waits for its name ends nothing yet: it is looked at when it has one.
    """
    receipt, reason = arrival.receipt, arrival.reason
    if reason is None or policy.rule(reason).revocation or not _weighs(verdict):
        return None
    code = arrival.spelled or receipt.code or reason
    return Key(receipt.gateway, receipt.code_space or "", code, verdict.sender or "", carrier, reason)


def _weighs(verdict: Verdict) -> bool:
    if any(key.count("/") > 1 for key, _ in verdict.conditions):
        return False
    holds = any(fact.lookup or key.startswith("held/") for key, fact in verdict.conditions)
    return bool(holds or verdict.out or (verdict.block and verdict.block.lookup))


# One statement each ------------------------------------------------------------------------------------------------

# A number may still lie in a quarantine that is decided: that is carried out for it before anything else happens. Hits
# are dated, and the window is held, by the database's clock: what a process counts whose own is behind by more than the
# window, the others would put out of it at once.
_HIT = """
WITH hit AS (
    INSERT INTO breaker_hits AS h (key, number, at, quarantine)
    SELECT k, n, statement_timestamp(), q.id FROM unnest($1::text[], $2::text[]) AS v (k, n)
        LEFT JOIN quarantines q ON q.key = k AND q.decision IS NULL
    ORDER BY k, n
    ON CONFLICT (key, number) DO UPDATE SET at = excluded.at, quarantine = coalesce(h.quarantine, excluded.quarantine)
    RETURNING h.key, h.number, h.quarantine)
SELECT q.id, q.key, q.sender, q.carrier, q.decision, q.decided_by,
    array_agg(hit.number) FILTER (WHERE q.decision IS NOT NULL) AS numbers
FROM hit JOIN quarantines q ON q.id = hit.quarantine GROUP BY q.id
"""
_ANEW = """
UPDATE breaker_hits h SET quarantine = q.id
FROM unnest($1::text[], $2::text[]) AS v (key, number) LEFT JOIN quarantines q ON q.key = v.key AND q.decision IS NULL
WHERE h.key = v.key AND h.number = v.number RETURNING h.key, h.quarantine
"""
# The baseline is worked out only for a key that is over the least already. What a person has decided on counts no more,
# also where that is still being carried out.
_JUDGE = """
SELECT k, c.many, CASE WHEN c.many > $3 THEN (SELECT avg(busiest)::float8 FROM (
    SELECT max(total) AS busiest FROM breaker_windows w
    WHERE w.key = k AND w.starts > statement_timestamp() - $4::interval
    GROUP BY date_trunc('day', w.starts, 'UTC')) AS days) END AS baseline
FROM unnest($1::text[]) AS k
    CROSS JOIN LATERAL (SELECT count(*) AS many FROM breaker_hits h LEFT JOIN quarantines q ON q.id = h.quarantine
                        WHERE h.key = k AND h.at > statement_timestamp() - $2::interval AND q.decision IS NULL) AS c
"""
_OPEN = """
INSERT INTO quarantines (key, gateway, code_space, code, sender, carrier, reason, seen, allowed, opened_at)
SELECT *, $10 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::bigint[], $9::bigint[]) AS v ORDER BY 1
ON CONFLICT (key) WHERE decision IS NULL DO NOTHING
RETURNING key
"""
# Rows that another group holds just now, and those beyond a part, are left to the next one, or to upkeep: nobody waits
# here for anybody. The oldest first: they leave the window first.
_CATCH = """
WITH loose AS (
    SELECT h.key, h.number, q.id FROM breaker_hits h JOIN quarantines q ON q.key = h.key AND q.decision IS NULL
    WHERE h.key = ANY($1::text[]) AND h.quarantine IS NULL AND h.at > statement_timestamp() - $2::interval
    ORDER BY h.at LIMIT $3 FOR UPDATE OF h SKIP LOCKED)
UPDATE breaker_hits h SET quarantine = loose.id FROM loose WHERE h.key = loose.key AND h.number = loose.number
RETURNING h.key, h.number, h.quarantine
"""


_CASES_OF = """
SELECT DISTINCT ON (place) place, q.key, id, decision
FROM unnest($1::int[], $2::text[], $3::timestamptz[]) AS v (place, key, at)
    JOIN quarantines q ON q.key = v.key AND v.at BETWEEN opened_at - $4::interval AND coalesce(decided_at, 'infinity')
ORDER BY place, id
"""


async def heard_again(db: Connection, arrivals: Sequence[Arrival], keys: list[Key | None], verdicts: list[Verdict],
                      breaker: Breaker) -> None:  # fmt: skip
    """Leave receipts that are heard again where they are, if they were part of a mass event under the keys that they
    had when they came: they wait with it, or a person has decided on them.
    """
    came = [
        (place, str(key._replace(sender=one.receipt.sender or "", carrier=own_carrier(one))), one.arrived)
        for place, (one, key) in enumerate(zip(arrivals, keys, strict=True))
        if key and one.receipt.number
    ]
    for place, key, case, decision in await db.fetch(_CASES_OF, *columns(came), breaker.window) if came else ():
        keys[place] = None
        if decision is None:
            verdicts[place] = replace(verdicts[place], apart=key, case=case)
        elif decision == "discard":
            verdicts[place] = harmless(verdicts[place])


async def watch(db: Connection, keys: Sequence[Key | None], verdicts: Sequence[Verdict], guard: Guard,
                now: datetime) -> Watched:  # fmt: skip
    """One statement for a group in which anything ends consent or holds, up to four more when a key comes near its
    limit, one where a decision is still to be carried out; none for any other group. `keys`: of each verdict. Call it
    before the numbers are locked.
    """
    hits = sorted({(str(key), verdict.number) for key, verdict in zip(keys, verdicts, strict=True) if key})
    if not hits:
        return Watched([], [*verdicts], [], {}, {})
    rows = await db.fetch(_HIT, *columns(hits))
    cases: dict[str, int] = {row["key"]: row["id"] for row in rows if row["decision"] is None}
    closing = [verdict for *of, held in rows if (case := Decided(*of)).decision for verdict in case.closing(held, now)]
    if closing:
        again = await db.fetch(_ANEW, *columns((one.apart, one.number) for one in closing))
        cases |= {row[0]: row[1] for row in again if row[1] is not None}
    new = Counter(key for key, _ in hits if key not in cases)
    named = {str(key): key for key in keys if key}
    opened: dict[str, int] = {}
    if doubtful := guard.tally.doubtful(new, now):
        opened = await _judge(db, {key: named[key] for key in doubtful}, guard, now)
        cases |= await _cases(db, opened) if opened else {}
    apart = [
        replace(verdict, apart=str(key), apart_at=now, case=cases.get(str(key))) if key else verdict
        for key, verdict in zip(keys, verdicts, strict=True)
    ]
    undoing = await catch(db, cases, guard.policy.breaker, now) if cases else []
    told = {*hits}
    undoing = [one for one in undoing if (one.apart, one.number) not in told]
    return Watched(closing, apart, undoing, {(ALARM, key): many for key, many in opened.items() if many}, named)


async def _judge(db: Connection, keys: Mapping[str, Key], guard: Guard, now: datetime) -> dict[str, int]:
    """Count, and open a quarantine for what is over its limit: how many numbers each had; 0 where another process has
    opened it at the same moment.
    """
    breaker, over = guard.policy.breaker, {}
    rows = await db.fetch(_JUDGE, [*keys], breaker.window, breaker.least, breaker.past)
    for key, many, baseline in rows:
        limit = max(breaker.least, int(breaker.times * (baseline or 0)))
        guard.tally.counted(key, many, limit, now)
        if many > limit:
            over[key] = (many, limit)
    if not over:
        return {}
    new = [(key, *keys[key], *counts) for key, counts in over.items()]
    opened = {row["key"] for row in await db.fetch(_OPEN, *columns(new), now)}
    return {key: many if key in opened else 0 for key, (many, _) in over.items()}


_CASES = "SELECT key, id FROM quarantines WHERE key = ANY($1::text[]) AND decision IS NULL"


async def _cases(db: Connection, keys: Iterable[str]) -> dict[str, int]:
    return {row[0]: row[1] for row in await db.fetch(_CASES, [*keys])}


async def catch(db: Connection, keys: Iterable[str], breaker: Breaker, now: datetime) -> list[Verdict]:
    """What undoes the acts of the window, and of those who were in flight when the quarantine of their key opened: a
    part of them, where they are more than UNDONE_AT_ONCE.
    """
    rows = await db.fetch(_CATCH, [*keys], breaker.window, UNDONE_AT_ONCE)
    return [Verdict(number, now, Cause("policy", source=BREAKER), apart=key, case=case) for key, number, case in rows]
