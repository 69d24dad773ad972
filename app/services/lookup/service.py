"""Makes the lookups that are due: claims them, asks, and commits what follows on the same path as a receipt.

In the whole fleet one lookup a number is under way. Answers gather while a group of them commits.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.lookup import Failed, Failure, Found
from app.models.number import Cause, Change, Number, Stalled, Verdict
from app.services import metrics, store
from app.services.apply import Applied, apply
from app.services.connection import Busy, Connection, is_lost, transaction
from app.services.decide import Held, known_carrier, network_of, questions
from app.services.intake import Meaning
from app.services.lookup import claims
from app.services.lookup.ask import Answer, Asker, Panel, Source, Told
from app.services.lookup.budget import NOTHING, Budget
from app.services.lookup.claims import Claim, Next
from app.services.lookup.transport import Transport
from app.services.resolve import BURST, DEAF, Moment, Said, best, kind_of, resolve
from app.services.store import CountKey

log = structlog.get_logger(__name__)

AT_ONCE = 64
"""Lookups under way in one process."""
GROUP_MOST = 500
LOOKS_EVERY = 0.5
"""Seconds between two looks for lookups that are due."""
JOINS_EVERY = 0.1
STOPS_WITHIN = 5.0
NOBODY_ANSWERS = timedelta(minutes=1)
"""After this, doubled each time up to an hour, a step is tried again that no provider answered."""
LONGEST = timedelta(hours=1)
TIMETABLE = (timedelta(0), timedelta(hours=4), timedelta(days=1), timedelta(days=4), timedelta(days=10))
ALARMS = ("lookup_outage", "lookup_budget")

KEPT_MOVED, KEPT_FIXED, KEPT_UNKNOWN = timedelta(days=30), timedelta(days=90), timedelta(days=1)
KEPT_REFUSED = timedelta(days=3_650)
_REFUSALS: frozenset[Failure] = frozenset({"no_coverage", "forbidden"})
_TROUBLE: frozenset[Failure] = frozenset(
    {"rate_limited", "provider_error", "malformed", "auth", "quota", "bad_request", "pending", "partial"}
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of lookups: whom to ask, what it may cost, when to ask again."""

    sources: tuple[Source, ...] = ()
    per_day: Decimal | None = None
    per_number: Decimal | None = None
    timetable: tuple[timedelta, ...] = TIMETABLE
    home: str = "US"


class Outcome(NamedTuple):
    """What one lookup came to, for whoever asked for it."""

    number: str
    outcome: str
    provider: str | None
    errors: Sequence[tuple[str, str]]
    price: Decimal
    changes: list[Change]
    waiting_for: str | None = None


@dataclass(slots=True)
class _Done:
    """A lookup that has been made, and who waits for its commit."""

    claim: Claim
    told: Told
    from_kept: bool = False
    outcome: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class _Known(NamedTuple):
    """What was known when a lookup was claimed: answers that are still good, and the facts they are judged by."""

    answers: Mapping[str, Sequence[Answer]]
    held: Mapping[str, Number]


_NOTHING_KNOWN = _Known({}, {})


class NoProvider(Exception):
    """No lookup provider is configured."""


class Lookups:
    """The lookup service of one process."""

    def __init__(self, engine: AsyncEngine, meaning: Meaning, plan: Plan, transport: Transport | None = None) -> None:
        self._engine = engine
        self._meaning = meaning
        self.plan = plan
        self._transport = transport or Transport()
        self.budget = Budget(engine, plan.per_day, plan.per_number)
        self.panel = Panel([Asker(source, self._transport, self.budget) for source in plan.sources])
        self._flights: dict[str, asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: list[_Done] = []
        self._some, self._free, self._poked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._alarmed = True

    # The loop ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop`. With no provider configured there is nothing to do: lookups wait."""
        if not self.plan.sources:
            return
        async with self.open():
            await self._wake()
            while not self._stopping:
                try:
                    await self._look()
                except Exception as error:  # noqa: BLE001 - lookups are tried again; they must not end
                    log.warning("lookups not claimed, tried again", lost=is_lost(error), error=type(error).__name__)
                    await self._pause()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Lookups]:
        """Ready to look numbers up by call; `run` looks for what is due as well."""
        committing = asyncio.create_task(self._commit_all())
        try:
            yield self
            await self._land()
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
            await self._transport.close()

    def stop(self) -> None:
        self._stopping = True
        self._poked.set()
        self._free.set()

    async def _wake(self) -> None:
        try:
            async with transaction(self._engine) as db:
                await claims.wake_the_unpaid(db)
        except Exception as error:  # noqa: BLE001 - they are due at midnight anyway
            log.warning("lookups over the budget were not woken", lost=is_lost(error), error=type(error).__name__)

    async def _pause(self) -> None:
        self._poked.clear()
        try:
            async with asyncio.timeout(LOOKS_EVERY):
                await self._poked.wait()
        except TimeoutError:
            pass

    async def _look(self) -> None:
        """Claim as many as there is room for, and send them on their way."""
        if not self.panel.ready():
            await self._pause()
            return
        room = AT_ONCE * self.panel.batch - len(self._flights)
        if room <= 0:
            self._free.clear()
            await self._free.wait()
            return
        async with transaction(self._engine) as db:
            mine = await claims.claim(db, room, self.panel.lease)
            known = await _known(db, mine) if mine else _NOTHING_KNOWN
        if not mine:
            await self._pause()
            return
        size = self.panel.batch
        for start in range(0, len(mine), size):
            self._fly(mine[start : start + size], known)

    def _fly(self, mine: Sequence[Claim], known: _Known) -> None:
        loop = asyncio.get_running_loop()
        for one in mine:
            self._flights[one.number] = loop.create_future()
        task = asyncio.create_task(self._make(mine, known))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _land(self) -> None:
        """At a stop: what is under way is finished if it ends soon; the rest is given back to others."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOPS_WITHIN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # One lookup ----------------------------------------------------------------------------------------------------

    async def _make(self, mine: Sequence[Claim], known: _Known) -> None:
        """Ask about these numbers and have what follows committed. Whatever fails, the lease ends by itself."""
        committed = False
        try:
            done = await self._asked(mine, known)
            self._done += done
            self._some.set()
            outcomes = await asyncio.gather(*(one.outcome for one in done))
            committed = True
            for outcome in outcomes:
                self._arrive(outcome.number, outcome)
        except Exception as error:  # noqa: BLE001 - it is made again after its lease
            log.warning("lookup not finished", lost=is_lost(error), error=type(error).__name__)
        finally:
            for one in mine:
                self._arrive(one.number, None)
            self._free.set()
            if not committed:
                await self._give_back(mine)

    def _arrive(self, number: str, outcome: Outcome | None) -> None:
        flight = self._flights.pop(number, None)
        if flight is None or flight.done():
            return
        if outcome is not None:
            flight.set_result(outcome)
        else:
            flight.set_exception(Busy())
            flight.exception()  # nobody need wait for it

    async def _give_back(self, mine: Sequence[Claim]) -> None:
        try:
            async with transaction(self._engine) as db:
                await claims.give_back(db, mine)
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            log.warning("claims not given back", lost=is_lost(error), error=type(error).__name__)

    async def _asked(self, mine: Sequence[Claim], known: _Known) -> list[_Done]:
        """Answers to these: an earlier one where it still decides, else what the providers say now."""
        now = datetime.now(UTC)
        good = {
            one.number: answer
            for one in mine
            if not one.forced and one.step == 0
            if (answer := self._still_good(known.held.get(one.number), known.answers.get(one.number, ()), now))
        }
        metrics.LOOKUP_HITS.inc(len(good))
        refused = {number: self._refused(known.answers.get(number, ())) for number in (one.number for one in mine)}
        skip = {(number, answer.provider) for number, answers in refused.items() for answer in answers}
        told = await self.panel.ask([one.number for one in mine if one.number not in good], skip)
        for number, heard in told.items():
            if refused[number] and not heard.answers and heard.lacks == "provider":
                heard.lacks = None  # everybody who is configured has refused: that is an answer
            heard.answers += [answer._replace(config="") for answer in refused[number]]
        return [
            _Done(one, Told([good[one.number]]), from_kept=True) if one.number in good else _Done(one, told[one.number])
            for one in mine
        ]

    def _refused(self, kept: Sequence[Answer]) -> list[Answer]:
        """What providers have refused for this number, under the settings that they still have."""
        configs = {asker.name: asker.source.config for asker in self.panel.askers}
        return [
            a
            for a in kept
            if isinstance(a.said, Failed) and a.said.error in _REFUSALS and configs.get(a.provider) == a.config
        ]

    def _still_good(self, number: Number | None, kept: Sequence[Answer], now: datetime) -> Answer | None:
        """An earlier answer that decides all that is asked now, as of a burst of receipts about one number."""
        if number is None:
            return None
        policy, carriers = self._meaning.policy, self._meaning.carriers
        stored = known_carrier(number, policy)
        for answer in sorted(kept, key=lambda a: a.at, reverse=True):
            kind = kind_of(answer.said, stored, carriers)
            if kind in {"nothing", "gone"}:
                continue
            if kind in {"same", "first", "porting"} and now - answer.at > BURST:
                continue
            return answer
        return None

    # Committing ----------------------------------------------------------------------------------------------------

    async def _commit_all(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._done:
                group, self._done = self._done[:GROUP_MOST], self._done[GROUP_MOST:]
                await self._commit(group)

    async def _commit(self, group: list[_Done]) -> None:
        try:
            async with asyncio.timeout(10):
                outcomes = await self._settle(group)
        except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
            for one in group:
                if not one.outcome.done():
                    one.outcome.set_exception(Busy() if is_lost(error) else error)
        else:
            for one, outcome in zip(group, outcomes, strict=True):
                if not one.outcome.done():
                    one.outcome.set_result(outcome)

    async def _settle(self, group: Sequence[_Done]) -> list[Outcome]:
        """One transaction: the answers, what follows from them, when to ask again. The feed comes last."""
        now, policy = datetime.now(UTC), self._meaning.policy
        async with transaction(self._engine) as db:
            numbers = sorted(one.claim.number for one in group)
            before = await store.lock_numbers(db, numbers, (), policy, now)
            ours = await claims.still_ours(db, [one.claim for one in group])
            settled = {
                one.claim.number: _settled(one, before[one.claim.number].number, ours, self, now) for one in group
            }
            flat = [(number, verdict) for number, one in settled.items() for verdict in one.verdicts]
            applied = await apply(db, [verdict for _, verdict in flat], policy, now)
            await claims.keep(db, [pair for one in settled.values() for pair in one.keep])
            later, done = self._next(group, settled, before | applied.held, now)
            await claims.write_back(db, later, done)
            changes: dict[str, list[Change]] = {number: [] for number in settled}
            for (number, _), changed in zip(flat, applied.changes, strict=True):
                changes[number] += changed
            await store.count(db, _opted_out(applied, changes))
            await self._alarms(db, settled.values(), now)
            await store.publish(db, [change for changed in changes.values() for change in changed])
        return [settled[one.claim.number].outcome._replace(changes=changes[one.claim.number]) for one in group]

    def _next(self, group: Sequence[_Done], settled: Mapping[str, _Settled], held: Mapping[str, Held],
              now: datetime) -> tuple[list[Next], list[str]]:  # fmt: skip
        later, done = [], []
        for one in group:
            number, result = one.claim.number, settled[one.claim.number]
            if result.ours and held[number].shown.lookup is None:
                done.append(number)
            elif result.ours:
                later.append(_later(one.claim, result.waits, self.plan.timetable, now))
        return later, done

    async def _alarms(self, db: Connection, settled: Collection[_Settled], now: datetime) -> None:
        raised = Counter(alarm for one in settled for alarm in one.alarms)
        if raised:
            self._alarmed = True
            await store.alarm(db, dict(sorted(raised.items())), now)
        elif self._alarmed and any(one.waits is None for one in settled):
            self._alarmed = False
            await claims.clear_alarms(db, ALARMS, now)

    # By call -------------------------------------------------------------------------------------------------------

    async def look_up(self, number: str) -> Outcome:
        """A lookup now, past the kept answers but not past the budget; or the one that is under way. Raises NoProvider,
        and Busy when nothing can be written.
        """
        if not self.plan.sources:
            raise NoProvider
        if flight := self._flights.get(number):
            return await asyncio.shield(flight)
        began = datetime.now(UTC)
        while True:
            async with transaction(self._engine) as db:
                mine = await claims.take(db, number, self.panel.lease)
                known = await _known(db, [mine]) if mine else _NOTHING_KNOWN
            if mine is not None:
                self._fly([mine], known)
            if flight := self._flights.get(number):
                return await asyncio.shield(flight)
            if joined := await self._join(number, began):
                return joined

    async def _join(self, number: str, began: datetime) -> Outcome | None:
        """Another process makes it: wait until its lease is given up, and read what it wrote. None if it has died."""
        while True:
            await asyncio.sleep(JOINS_EVERY)
            async with transaction(self._engine) as db:
                if await claims.is_leased(db, number):
                    continue
                return await _written(db, number, began)


async def _known(db: Connection, mine: Sequence[Claim]) -> _Known:
    answers = await claims.kept(db, [one.number for one in mine])
    return _Known(answers, await store.facts(db, [*answers]) if answers else {})


# Pure, but for the clock that is passed in ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Settled:
    """What follows from one lookup, before it is written."""

    ours: bool
    outcome: Outcome
    waits: Literal["budget", "provider"] | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    keep: list[tuple[Answer, datetime | None]] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)


def _settled(one: _Done, number: Number, ours: Collection[str], service: Lookups, now: datetime) -> _Settled:
    answers, meaning, plan = one.told.answers, service._meaning, service.plan  # noqa: SLF001 - its own half
    said = [Said(answer.provider, answer.said) for answer in answers]
    asked = questions(number, meaning.policy, now)
    chosen = best(said, max((q.fact.at for q in asked), default=None))
    waits = _waits(one.told, chosen)
    errors = [(a.provider, a.said.error) for a in answers if isinstance(a.said, Failed)]
    price = sum((answer.price for answer in answers), NOTHING)
    outcome = Outcome(number.number, _word(chosen, waits), chosen.provider if chosen else None, errors, price, [],
                      "budget" if waits == "budget" else None)  # fmt: skip
    fresh = [] if one.from_kept else [a for a in answers if a.config]
    settled = _Settled(number.number in ours, outcome, waits)
    if not settled.ours:  # somebody has made it since, after our lease: only what was paid for is kept
        settled.keep = [(answer, None) for answer in fresh]
        return settled
    if waits == "budget":
        at = max([now, *(q.fact.at for q in asked)])
        settled.verdicts = [Verdict(number.number, at, Cause("policy"), stalled=Stalled(at, "budget"))] if asked else []
        settled.alarms = [("lookup_budget", "day" if plan.per_number is None else "day or number")]
    elif waits == "provider" or chosen is None:
        settled.alarms = [("lookup_outage", "/".join(sorted({p for p, _ in errors})) or "all")]
    else:
        last = not one.claim.forced and one.claim.step >= len(plan.timetable) - 1
        others = [s for s in said if s is not chosen]
        decided = resolve(number, chosen, Moment(now, last, plan.home), meaning.policy, meaning.carriers, others)
        settled.verdicts, settled.alarms = decided.verdicts, decided.alarms
    stored = known_carrier(number, meaning.policy)
    settled.keep = [(a, _kept_until(a, kind_of(a.said, stored, meaning.carriers))) for a in fresh]
    return settled


def _waits(told: Told, chosen: Said | None) -> Literal["budget", "provider"] | None:
    """Why nothing may be decided: nobody was paid, or nobody answered. Nobody is opted out for our outage."""
    if chosen is not None and not (isinstance(chosen.answer, Failed) and chosen.answer.error in _TROUBLE):
        refused = isinstance(chosen.answer, Failed) and chosen.answer.error in _REFUSALS
        troubled = any(isinstance(a.said, Failed) and a.said.error in _TROUBLE for a in told.answers)
        if not refused or not (troubled or told.lacks):
            return None
    return "budget" if told.lacks == "budget" else "provider"


def _word(chosen: Said | None, waits: str | None) -> str:
    if chosen and isinstance(chosen.answer, Found):
        return "ok"
    if waits == "budget":
        return "quota"
    return chosen.answer.error if chosen and isinstance(chosen.answer, Failed) else "provider_error"


def _later(claim: Claim, waits: str | None, timetable: Sequence[timedelta], now: datetime) -> Next:
    """An outage moves a step and never skips it; without one the next step is as far away as the timetable says."""
    if waits == "budget":
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        spread = timedelta(seconds=random.uniform(0, 60))  # noqa: S311 - no secret
        return Next(claim.number, claim.step, claim.tries, midnight + spread, "budget")
    if waits == "provider":
        wait = min(NOBODY_ANSWERS * 2 ** min(claim.tries, 10), LONGEST) * random.uniform(0.5, 1)  # noqa: S311
        return Next(claim.number, claim.step, min(claim.tries + 1, 1000), now + wait, "lookup")
    if claim.forced:
        return Next(claim.number, claim.step, claim.tries, now + _gap(timetable, claim.step), None)
    step = min(claim.step + 1, len(timetable) - 1)
    return Next(claim.number, step, 0, now + _gap(timetable, claim.step), None)


def _gap(timetable: Sequence[timedelta], step: int) -> timedelta:
    if step + 1 >= len(timetable):
        return timedelta(days=1)
    return timetable[step + 1] - timetable[step]


def _kept_until(answer: Answer, kind: str) -> datetime | None:
    """How long an answer is used again, by its outcome. Trouble is no answer."""
    said = answer.said
    if isinstance(said, Failed):
        spans: dict[str, timedelta] = {
            "not_found": KEPT_UNKNOWN,
            "invalid_number": KEPT_FIXED,
            "no_coverage": KEPT_REFUSED,
            "forbidden": KEPT_REFUSED,
        }
        return answer.at + spans[said.error] if said.error in spans else None
    if said.line_type in DEAF:
        return answer.at + KEPT_FIXED
    return answer.at + (KEPT_MOVED if kind == "moved" else BURST)


def _opted_out(applied: Applied, changes: Mapping[str, Sequence[Change]]) -> Counter[CountKey]:
    """Opt-outs that lookups bring, by sender, carrier and hour, as those of receipts are counted."""
    counts: Counter[CountKey] = Counter()
    for number, changed in changes.items():
        outs = {c.sender: c.occurred_at for c in changed if c.kind == "list.opted_out"}
        for sender, at in outs.items():
            hour = at.replace(minute=0, second=0, microsecond=0)
            counts[hour, sender or "", network_of(applied.held[number].shown.carrier) or "", "opted_out"] += 1
    return counts


# What another process wrote ------------------------------------------------------------------------------------------

_ANSWERS = """
SELECT provider, outcome, price FROM lookup_answers
WHERE number = $1 AND asked_at > $2::timestamptz - interval '2 minutes' ORDER BY asked_at
"""
_CHANGES = """
SELECT kind, before, after, reason, cause, occurred_at, sender, list FROM changes
WHERE number = $1 AND cause ->> 'kind' = 'lookup' AND committed_at > $2::timestamptz - interval '2 minutes' ORDER BY seq
"""


async def _written(db: Connection, number: str, began: datetime) -> Outcome | None:
    rows = await db.fetch(_ANSWERS, number, began)
    if not rows:
        return None
    good = [row for row in rows if row["outcome"] == "ok"]
    errors = [(row["provider"], row["outcome"]) for row in rows if row["outcome"] != "ok"]
    changes = [
        Change(number, r["kind"], r["before"], r["after"], r["reason"], store.cause_of(r["cause"]), r["occurred_at"],
               r["sender"], r["list"])
        for r in await db.fetch(_CHANGES, number, began)
    ]  # fmt: skip
    word = "ok" if good else errors[-1][1] if errors else "provider_error"
    provider: Any = good[-1]["provider"] if good else errors[-1][0] if errors else None
    return Outcome(number, word, provider, errors, sum((row["price"] for row in rows), NOTHING), changes)
