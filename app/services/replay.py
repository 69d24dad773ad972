"""What is kept, derived once more, in one moment of the database: what is shown of a number from its facts, consent
from facts and opt-ins, the feed's last word from what stands, roll-ups from what they count; and each receipt that is
kept heard again, which must change nothing, since hearing is idempotent. A healthy database shows no difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec.structs import astuple, replace
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.number import Number, Step, Subscription, Verdict
from app.models.policy import Policy
from app.services import aside, ladders, register, store
from app.services import past as kept
from app.services.connection import Connection
from app.services.decide import Registered, decide
from app.services.meaning import Meaning
from app.services.merge import merge
from app.services.past import Past, looking
from app.services.shown import show
from app.services.store import Arrival
from app.services.taken_out import TakenOut, taken_out

Tell = Callable[[int, int], None]
EVER = datetime(2000, 1, 1, tzinfo=UTC)
"""Before all that is kept; as the send date of a message that nobody knows any more: before all others."""
_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
"""After all that is kept aside."""


class Difference(NamedTuple):
    """What stands in the database and what should. `what`: the place; `number` None where it is of no one number."""

    what: str
    number: str | None
    stands: str
    should: str


class Which(NamedTuple):
    """One number, those that have receipts since then, or (neither) all, with the roll-ups."""

    number: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """By what to derive. `taken`: what the breaker has taken apart."""

    meaning: Meaning
    now: datetime
    taken: TakenOut

    @property
    def policy(self) -> Policy:
        return self.meaning.policy


async def replay(engine: AsyncEngine, meaning: Meaning, which: Which, since: datetime,
                 tell: Tell) -> AsyncIterator[Difference]:  # fmt: skip
    """Every difference there is. `since`: roll-ups from before it are pruned, or about to be."""
    async with looking(engine) as db:
        now = await db.fetchval("SELECT now()")
        rules = Rules(meaning, now, await taken_out(db, meaning, now))
        total, done = await _many(db, which), 0
        async for page in _pages(db, which):
            pasts = {one.number: one for one in await kept.past(db, page, which.since or EVER, meaning)}
            for row in await db.fetch(_STANDS, page, timeout=kept.WITHIN):
                for difference in _of_number(row, pasts[row["number"]], rules):
                    yield difference
            done += len(page)
            tell(done, total)
        if which == Which():
            for what, statement in _ROLL_UPS.items():
                for row in await db.fetch(statement, since, timeout=kept.WITHIN):
                    yield Difference(f"{what} {row[0]}", None, str(row[1]), str(row[2]))


# Which numbers -----------------------------------------------------------------------------------------------------

_ALL = "SELECT number FROM numbers WHERE number > $1 AND facts IS NOT NULL ORDER BY number LIMIT $2"


async def _pages(db: Connection, which: Which) -> AsyncIterator[list[str]]:
    if which.number:
        yield [which.number]
    elif which.since:
        async for page in kept.numbers(db, which.since):
            yield page
    else:
        after = ""
        while page := [row[0] for row in await db.fetch(_ALL, after, kept.AT_ONCE, timeout=kept.WITHIN)]:
            yield page
            after = page[-1]


async def _many(db: Connection, which: Which) -> int:
    if which.number:
        return 1
    if which.since:
        return await kept.count_numbers(db, which.since)
    return int(await db.fetchval("SELECT count(*) FROM numbers WHERE facts IS NOT NULL", timeout=kept.WITHIN))


# One number --------------------------------------------------------------------------------------------------------

_STANDS = """
SELECT n.*, ARRAY(SELECT ROW(b.sender, b.reason, b.at) FROM sender_blocks b WHERE b.number = n.number) AS blocks,
       ARRAY(SELECT ROW(s.sender, s.list, s.consent, s.opted_in_at, s.reason, s.code_space, s.code, s.at)
             FROM subscriptions s WHERE s.number = n.number) AS lists,
       EXISTS (SELECT FROM lookups l WHERE l.number = n.number) AS asked
FROM numbers n WHERE n.number = ANY($1::text[]) AND n.facts IS NOT NULL ORDER BY n.number
"""


def _of_number(row: Mapping[str, Any], one: Past, rules: Rules) -> Iterator[Difference]:
    try:
        number = store.number_of(row["facts"])
    except ValueError as error:  # msgspec's own words quote no value
        yield Difference("facts", one.number, "cannot be read", str(error))
        return
    for what, stands, should in (
        *_shown(row, number, rules), *_consents(row, number, one.lists), *_told(row, one), *_heard(number, one, rules),
    ):  # fmt: skip
        if stands != should:
            yield Difference(what, one.number, _word(stands), _word(should))


Pair = tuple[str, object, object]


def _word(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shown(row: Mapping[str, Any], number: Number, rules: Rules) -> Iterator[Pair]:
    """The columns and the steps, blocks and lookups of a number, as its facts show it now."""
    shown = show(number, rules.policy, rules.now)
    steps = store.steps_of(row["steps"])
    first = (row["state"], row["reason"], row["waiting_for"], row["until"])
    if steps:
        yield "state", first, _words(steps[0])
    elif first[0] in {"active", "unseen"}:
        steps = (Step(*first),)
    last = [step for step in steps if step.until is None or step.until > rules.now]
    yield "steps", tuple(map(_words, last)), tuple(map(_words, shown.steps))
    yield "dead_since", row["dead_since"], shown.dead_since
    yield "carrier", store.carrier_of(row["carrier"]) if row["carrier"] else None, shown.carrier
    yield "last_receipt_at", row["last_receipt_at"], number.last_receipt_at
    blocks = sorted((sender, fact.reason, fact.at) for sender, fact in shown.blocks.items())
    yield "blocks", tuple(sorted(map(tuple, row["blocks"]))), tuple(blocks)
    if shown.lookup and not row["asked"]:
        yield "lookups", "none", shown.lookup.reason


def _words(step: Step) -> tuple[object, ...]:
    return (step.state, step.reason, step.waiting_for, step.until)


def _consents(row: Mapping[str, Any], number: Number, lists: Sequence[Subscription]) -> Iterator[Pair]:
    stands = {(sender, name): tuple(rest) for sender, name, *rest in row["lists"]}
    for held in lists:
        should = astuple(store.list_row(number, held))[4:]
        yield f"consent {held.sender}/{held.list}", stands[held.sender, held.list], should


def _told(row: Mapping[str, Any], one: Past) -> Iterator[Pair]:
    """The feed's last word on the state, the blocks and the lists."""
    last = {(c.kind.split(".")[0], c.sender, c.list): c for c, _ in one.changes if c.kind != "number.carrier"}
    blocked = {sender for sender, _, _ in row["blocks"]}
    stands = {(sender, name): consent for sender, name, consent, *_ in row["lists"]}
    for (kind, sender, name), change in last.items():
        if kind == "number":
            yield "the feed's state", change.after, row["state"]
        elif kind == "sender":
            yield f"the feed's block of {sender}", change.after, "blocked" if sender in blocked else "open"
        else:
            yield f"the feed's consent {sender}/{name}", change.after, stands.get((sender or "", name or ""))


# Receipts heard again ----------------------------------------------------------------------------------------------


def _heard(number: Number, one: Past, rules: Rules) -> Iterator[Pair]:
    """Of each receipt: what it says is there already."""
    number = aside.settled(number, _FOREVER, merge)
    for arrival, known in one.receipts:
        if not any(_there(number, verdict) for verdict in _verdicts(arrival, known, number, rules)):
            r = arrival.receipt
            words = " ".join(filter(None, (r.gateway, r.account, r.message_id, r.status.value, r.code, arrival.reason)))
            yield "receipts", "without effect", f"{words}, arrived {arrival.arrived:%Y-%m-%d %H:%M:%S}"


def _there(number: Number, verdict: Verdict) -> bool:
    again = merge(number, verdict)
    if verdict.delivered and verdict.delivered.guard == EVER:  # when it was sent is not known any more
        again = replace(again, deliveries=number.deliveries)
    return again == number


def _verdicts(arrival: Arrival, known: Registered | None, number: Number, rules: Rules) -> Iterator[Verdict]:
    """What the receipt says, by what the register may have known when it came: an entry may have come later, and is
    forgotten after two weeks; then a carrier may have been named (`""`: which one does not matter here).
    """
    entries: list[Registered | None] = [known, None] if known else [None]
    forgotten = known is None and arrival.receipt.sent_at is None and arrival.receipt.message_id is not None
    if forgotten and arrival.arrived < rules.now - register.KEPT + timedelta(days=1):
        entries.append(Registered(number.number, arrival.receipt.sender or "", EVER, carrier=""))
    for entry in entries:
        verdict = decide(arrival.receipt, arrival.reason, arrival.arrived, rules.policy, entry, brand=arrival.brand)
        if entry and entry.sent_at == EVER:
            verdict = _anciently(verdict)
        yield _certain(verdict, arrival, number, rules, apart=rules.taken.has(arrival, known, verdict, rules.policy))


def _anciently(verdict: Verdict) -> Verdict:
    """The same of a message that was sent before all others."""
    facts = {
        name: fact and replace(fact, guard=EVER)
        for name, fact in (("delivered", verdict.delivered), ("block", verdict.block), ("out", verdict.out),
                           ("rung", verdict.rung))
    }  # fmt: skip
    conditions = tuple((key, replace(fact, guard=EVER)) for key, fact in verdict.conditions)
    return replace(verdict, conditions=conditions, **facts)


def _certain(verdict: Verdict, arrival: Arrival, number: Number, rules: Rules, *, apart: bool) -> Verdict:
    """The part of it that can be known from what is kept of a receipt."""
    receipt, carrier = arrival.receipt, verdict.carrier
    if carrier and number.carrier and number.carrier.at >= carrier.at:
        verdict = replace(verdict, carrier=None)  # the kind of line and the port that it told of are not kept
    if receipt.is_part:
        verdict = replace(verdict, delivered=None)  # only the last part of a message delivers it
    if verdict.ladder == ladders.ENDS_CONSENT and ladders.is_full(number.unknown, verdict.rungs):
        verdict = replace(verdict, ladder=None, rung=None)  # older strikes have been settled for good
    spared = arrival.reason is not None and rules.policy.rule(arrival.reason).malformed_spares
    if spared or apart:
        verdict = aside.harmless(verdict)
    return verdict


# Roll-ups ----------------------------------------------------------------------------------------------------------

_ROLL_UPS = {
    "list_sizes": """
SELECT concat(sender, '/', list), (coalesce(l.opted_in, 0), coalesce(l.opted_out, 0))::text,
       (coalesce(s.opted_in, 0), coalesce(s.opted_out, 0))::text
FROM list_sizes l FULL JOIN (
    SELECT sender, list, count(*) FILTER (WHERE consent = 'opted_in') AS opted_in,
           count(*) FILTER (WHERE consent = 'opted_out') AS opted_out
    FROM subscriptions GROUP BY 1, 2) s USING (sender, list)
WHERE $1::timestamptz IS NOT NULL AND (coalesce(l.opted_in, 0), coalesce(l.opted_out, 0))
      IS DISTINCT FROM (coalesce(s.opted_in, 0), coalesce(s.opted_out, 0))
ORDER BY 1
""",
    "opt_out_hours": """
SELECT concat(sender, '/', list, ' ', to_char(hour, 'YYYY-MM-DD HH24'), ' ', reason), coalesce(o.total, 0),
       coalesce(c.total, 0)
FROM opt_out_hours o FULL JOIN (
    SELECT sender, list, date_trunc('hour', occurred_at, 'UTC') AS hour, coalesce(reason, '') AS reason,
           sum(CASE kind WHEN 'list.opted_out' THEN 1 ELSE -1 END) AS total
    FROM changes
    WHERE kind = 'list.opted_out' AND before = 'opted_in' OR kind = 'list.opted_in' AND reason IS NOT NULL
    GROUP BY 1, 2, 3, 4) c
    USING (sender, list, hour, reason)
WHERE hour >= $1 AND coalesce(o.total, 0) <> coalesce(c.total, 0) ORDER BY 1
""",
}
