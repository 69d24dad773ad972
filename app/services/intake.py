"""Takes receipts in: while one group commits, the next one gathers. No timer, nothing to tune.

A receipt that was answered is committed, with everything that follows from it. Nothing else is ever in flight.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import NamedTuple, TypeAlias
from uuid import UUID

import structlog
from asyncpg import PostgresError
from asyncpg.pgproto import pgproto
from msgspec.structs import astuple, replace
from sqlalchemy.ext.asyncio import AsyncEngine

from app.gateways import GATEWAYS
from app.models.catalogue import Carriers, Catalogue
from app.models.number import Change, Verdict
from app.models.policy import Policy
from app.models.receipt import FAILED, Gateway, Receipt, Status
from app.services import breaker, metrics, store
from app.services.apply import Applied, apply
from app.services.aside import UNDATED
from app.services.breaker import Guard, Tally
from app.services.connection import Busy, Connection, is_lost, transaction
from app.services.decide import Registered, decide, reason_of
from app.services.shown import network_of
from app.services.store import Arrival, CountKey, Kept

log = structlog.get_logger(__name__)

WAITING_MOST = 20_000
"""Receipts that may wait for their commit; beyond it callers are told to come back."""
GROUP_MOST = 2_000
"""Receipts in one transaction; a larger callback is committed in parts, and answered after the last."""
COMMIT_WITHIN = 10.0
"""Seconds after which a database that does not answer counts as away. Gateways give up after 15."""
PARTS_WITHIN = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What receipts are understood by: the codes, the carriers' names, the policy in force, those who can post."""

    catalogue: Catalogue
    carriers: Carriers
    policy: Policy
    gateways: Mapping[str, Gateway] = field(default_factory=lambda: GATEWAYS)
    tally: Tally = field(default_factory=Tally, compare=False)


class Batch(NamedTuple):
    """What one callback brought: its receipts, and what of it could not be read. `nonce` recognises a copy of it."""

    receipts: Sequence[Receipt]
    unread: Sequence[Kept]
    arrived: datetime
    done: asyncio.Future[None]
    nonce: UUID | None = None

    def __len__(self) -> int:
        return len(self.receipts) + len(self.unread)


class Intake:
    """The group committer: one transaction at a time, as many callers in it as were waiting."""

    def __init__(self, engine: AsyncEngine, meaning: Meaning) -> None:
        self._engine = engine
        self._meaning = meaning
        self._waiting: deque[Batch] = deque()
        self._depth = 0
        self._some = asyncio.Event()
        self._stopping = False

    @property
    def depth(self) -> int:
        """Receipts that wait for their commit."""
        return self._depth

    async def put(self, receipts: Sequence[Receipt], unread: Sequence[Kept] = (), nonce: UUID | None = None) -> None:
        """Return when all of it is committed. Raises Busy when it is not, or not wholly, kept.

        A callback that takes several transactions leaves no nonce: were only one of them committed, its repetition
        would pass for a copy.
        """
        size = len(receipts) + len(unread)
        if self._stopping or (self._depth and self._depth + size > WAITING_MOST):
            raise Busy
        now, loop = datetime.now(UTC), asyncio.get_running_loop()
        if size <= GROUP_MOST:
            parts = [Batch(receipts, unread, now, loop.create_future(), nonce)]
        else:
            starts = range(0, max(len(receipts), len(unread)), GROUP_MOST // 2)
            ends = [(start, start + GROUP_MOST // 2) for start in starts]
            parts = [Batch(receipts[a:b], unread[a:b], now, loop.create_future()) for a, b in ends]
        self._waiting.extend(parts)
        self._depth += size
        self._some.set()
        await (parts[0].done if len(parts) == 1 else asyncio.gather(*(part.done for part in parts)))

    async def run(self) -> None:
        """Commit until `stop`; everything that was waiting then is still committed, and answered."""
        async with asyncio.TaskGroup() as answers:
            while not (self._stopping and not self._waiting):
                await self._some.wait()
                self._some.clear()
                while self._waiting:
                    await self._settle(self._gather(), answers)

    def stop(self) -> None:
        self._stopping = True
        self._some.set()

    def _gather(self) -> list[Batch]:
        group = [self._waiting.popleft()]
        size = len(group[0])
        while self._waiting and size + len(self._waiting[0]) <= GROUP_MOST:
            group.append(self._waiting.popleft())
            size += len(group[-1])
        self._depth -= size
        return group

    async def _settle(self, group: list[Batch], answers: asyncio.TaskGroup) -> None:
        """Commit a group and have its callers woken. If its *data* is refused, each is tried alone, so that one bad
        receipt cannot fail its neighbours; if the database is away, all are told to come back, without trying each.
        """
        started = perf_counter()
        try:
            async with asyncio.timeout(COMMIT_WITHIN):
                await take(self._engine, group, self._meaning)
        except asyncio.CancelledError:
            _fail(group, Busy())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the callers must hear of it
            await self._refused(group, error, answers)
        else:
            metrics.committed(sum(map(len, group)), perf_counter() - started)
            answers.create_task(_answer(group))

    async def _refused(self, group: list[Batch], error: Exception, answers: asyncio.TaskGroup) -> None:
        lost = is_lost(error)
        log.warning("group not committed", lost=lost, size=len(group), error=type(error).__name__)
        if isinstance(error, TimeoutError):  # who waited for this group has no time left to wait for another
            group += self._waiting
            self._waiting.clear()
            self._depth = 0
        if lost or len(group) == 1 or not isinstance(error, PostgresError):
            _fail(group, Busy())
            return
        for batch in group:
            await self._settle([batch], answers)


FINAL = FAILED | {Status.DELIVERED}


async def _answer(group: list[Batch]) -> None:
    """Wake the callers one by one, and look at the database between two of them. Woken all together they keep it
    waiting with the next group for as long as their answers and next requests take: a seventh of all time under load.
    """
    for batch in group:
        if not batch.done.done():
            batch.done.set_result(None)
        await asyncio.sleep(0)


def _fail(group: list[Batch], error: Exception) -> None:
    for batch in group:
        if not batch.done.done():
            batch.done.set_exception(error)


# One group, one transaction ----------------------------------------------------------------------------------------


async def take(engine: AsyncEngine, group: Sequence[Batch], meaning: Meaning) -> None:
    """Commit everything a group brought and everything that follows from it, in a fixed number of statements."""
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        if any(batch.nonce for batch in group):
            group = await _without_copies(db, group, now)
        arrivals = [arrival(r, batch.arrived, meaning) for batch in group for r in batch.receipts]
        taken, _ = await keep(db, arrivals, [kept for batch in group for kept in batch.unread], meaning, now)
    metrics.taken(taken, len(arrivals) - len(taken))


async def _without_copies(db: Connection, group: Sequence[Batch], now: datetime) -> list[Batch]:
    """The callbacks whose nonce was not seen before, here or in another process."""
    fresh = await store.add_nonces(db, {batch.nonce for batch in group if batch.nonce}, now)
    first: list[Batch] = []
    for batch in group:
        if batch.nonce is None or batch.nonce in fresh:
            first.append(batch)
            fresh -= {batch.nonce}
    return first


async def keep(db: Connection, arrivals: Iterable[Arrival], unread: Sequence[Kept], meaning: Meaning, now: datetime,
               *, read: Sequence[int] = (), proven: Sequence[int] = ()) -> tuple[list[Arrival], int]:  # fmt: skip
    """Everything that follows from these receipts, in the caller's transaction; those that had not been taken before.

    `read`: the ids of unread callbacks, and `proven` those of refused ones, that these receipts come from: they go, and
    it is told how many of them were still there.
    """
    keyed = {a.key: a for a in arrivals}
    fresh = await store.add_keys(db, keyed, now) if keyed else set()
    taken = [one for key, one in keyed.items() if key in fresh]
    told, undone, tripped, recounted = await _take(db, taken, meaning, now) if taken else NOTHING
    await store.keep_unread(db, unread, now)
    gone = await store.drop_unread(db, read) + await store.drop_refused(db, proven)
    await store.count(db, totals(told, recounted))
    await store.alarm(db, alarms(taken, meaning.policy) + Counter(tripped), now)
    await store.note_unknown(db, taken, now)
    await store.publish(db, [change for one in told for change in one.changes] + undone)
    return taken, gone


async def _take(db: Connection, taken: list[Arrival], meaning: Meaning, now: datetime) -> Acted:
    unnamed = {store.id_of(a.receipt) for a in taken if _lacks_a_name(a.receipt)}
    ids = {store.id_of(a.receipt) for a in taken if a.receipt.message_id is not None}
    numbers = {a.receipt.number for a in taken if a.receipt.number}
    known, lacking = await store.find_messages(db, ids, unnamed, numbers, now) if ids else ({}, None)
    pairs = [(a, known.get(store.id_of(a.receipt))) for a in taken]
    await store.add_receipts(db, pairs)
    await store.add_unnamed(db, [a for a, entry in pairs if entry is None and _lacks_a_name(a.receipt)])
    named = [(a, entry) for a, entry in pairs if a.receipt.number or entry]
    return await act(db, named, meaning, now, lacking=lacking)


async def act(db: Connection, pairs: Sequence[Pair], meaning: Meaning, now: datetime, *, again: bool = False,
              besides: Sequence[Verdict] = (), lacking: set[str] | None = None) -> Acted:  # fmt: skip
    """Decide on receipts that have a number, and keep what follows. `again`: they were heard before their messages
    were in the register. `besides`: what else is known of numbers. `lacking`: those of the numbers that have no row
    yet, where that is known.
    """
    policy = meaning.policy
    verdicts = await _decided(db, pairs, policy, now)
    if again:
        verdicts = [
            replace(verdict, named=f"held/{a.reason}/{a.receipt.message_id}", dated=bool(a.receipt.number))
            for (a, _), verdict in zip(pairs, verdicts, strict=True)
        ]
    watched = await breaker.watch(db, [a for a, _ in pairs], verdicts, Guard(policy, meaning.tally), now)
    acting = [_undoable(v, entry) for v, (_, entry) in zip(watched.verdicts, pairs, strict=True)]
    applied = await apply(db, [*acting, *besides, *watched.undoing], policy, now, lacking=lacking)
    rows = zip(pairs, verdicts, applied.changes, strict=False)
    told = [Told(a, v, changes, _network(applied, a, v, again=again)) for (a, _), v, changes in rows]
    others, recounted = applied.changes[len(pairs) :], Counter[CountKey]()
    for verdict, changes in zip(watched.undoing, others[len(besides) :], strict=True):
        key = watched.keys[verdict.apart or ""]
        recounted.update(breaker.taken_back(changes, breaker.served_by(key, applied.held[verdict.number])))
    return Acted(told, [change for changed in others for change in changed], watched.alarms, recounted)


async def _decided(db: Connection, pairs: Sequence[Pair], policy: Policy, now: datetime) -> list[Verdict]:
    """What each receipt says. A message in parts is delivered when all of them are."""
    verdicts = [decide(a.receipt, a.reason, a.arrived, policy, entry, brand=a.brand) for a, entry in pairs]
    partial = {store.id_of(a.receipt) for a, _ in pairs if a.receipt.segment and (a.receipt.segments or 1) > 1}
    whole = await store.whole_messages(db, partial, now - PARTS_WITHIN) if partial else set()
    if incomplete := partial - whole:
        verdicts = [
            replace(verdict, delivered=None) if store.id_of(a.receipt) in incomplete else verdict
            for (a, _), verdict in zip(pairs, verdicts, strict=True)
        ]
    return verdicts


def _network(applied: Applied, one: Arrival, verdict: Verdict, *, again: bool) -> str | None:
    """Under which a receipt is counted: that of the number, for one that was counted before the same as then."""
    counted = again and one.receipt.number and one.receipt.sender
    return network_of((applied.before if counted else applied.held)[verdict.number].shown.carrier)


def _undoable(verdict: Verdict, entry: Registered | None) -> Verdict:
    """Kept aside when it ends consent and the register may still tell that its message was sent before an opt-in."""
    supposed = verdict.out and verdict.out.guard == verdict.at and verdict.cause.message_id
    if (supposed and entry is None) or (verdict.out and verdict.dated):
        return verdict if verdict.apart is not None else replace(verdict, apart=UNDATED)
    return verdict


def _lacks_a_name(receipt: Receipt) -> bool:
    """Whether the register could still add something: a number, or the sender of a final receipt."""
    if receipt.message_id is None:
        return False
    return receipt.number is None or (receipt.sender is None and receipt.status in FINAL)


Pair: TypeAlias = tuple[Arrival, Registered | None]


class Told(NamedTuple):
    """One receipt that acted: what was decided, what changed, and on which network the number now is."""

    arrival: Arrival
    verdict: Verdict
    changes: list[Change]
    network: str | None

    @property
    def carrier(self) -> str:
        """The one that the receipt tells of, else, where its sender is known, the one that serves the number."""
        own = self.arrival.brand or self.arrival.receipt.carrier
        return own or (self.network if self.verdict.sender else None) or ""


class Acted(NamedTuple):
    """What came of a group: its receipts one by one, what a mass event undid, the alarms that it raised, and by how
    much the counts of opt-outs are to be corrected for it.
    """

    told: list[Told]
    undone: list[Change]
    alarms: dict[tuple[str, str], int]
    recounted: Counter[CountKey]


NOTHING = Acted([], [], {}, Counter())


def totals(told: Sequence[Told], recounted: Mapping[CountKey, int], *, named: bool = False) -> Counter[CountKey]:
    """Final receipts and the opt-outs they brought, by sender, carrier and hour of the event, and what else is to be
    corrected of them. `named`: those that had a number but no sender were counted under no sender, and the carrier that
    they told of, when they came: they move.
    """
    counts = Counter(recounted)
    for one in told:
        a, verdict = one.arrival, one.verdict
        if a.receipt.status not in FINAL:
            continue
        hour, carrier = verdict.at.replace(minute=0, second=0, microsecond=0), one.carrier
        for outcome in ("sent", a.reason or "delivered"):
            counts[hour, verdict.sender or "", carrier, outcome] += 1
            if named and a.receipt.number and not a.receipt.sender:
                counts[hour, "", a.brand or a.receipt.carrier or "", outcome] -= 1
    counts.update(corrected(told))
    return counts


def corrected(told: Sequence[Told]) -> Counter[CountKey]:
    """The opt-outs that receipts brought, and took back."""
    counts = Counter[CountKey]()
    for one in told:
        if one.changes:
            counts.update(breaker.left(one.changes, one.carrier))
            counts.update(breaker.taken_back(one.changes, one.carrier))
    return counts


def alarms(taken: Sequence[Arrival], policy: Policy) -> Counter[tuple[str, str]]:
    """Codes that nobody has mapped, and errors that are ours to mend."""
    raised: Counter[tuple[str, str]] = Counter()
    for a in taken:
        kind = "unknown_code" if a.unmapped else a.reason
        if kind and (a.unmapped or policy.rule(kind).alarm):
            r = a.receipt
            raised[kind, "/".join(filter(None, (r.gateway, r.account, r.code_space, a.spelled or r.code)))] += 1
    return raised


def arrival(receipt: Receipt, arrived: datetime, meaning: Meaning) -> Arrival:
    code = meaning.catalogue.find(receipt.code_space, receipt.code)
    brand = meaning.carriers.name(receipt.carrier) if receipt.carrier else None
    if brand is None and receipt.mcc:
        brand = meaning.carriers.by_network(receipt.mcc, receipt.mnc)
    failed = receipt.status in FAILED
    reason = reason_of(receipt, code) if failed else None
    unmapped = failed and code is None and receipt.code is not None
    return Arrival(receipt, key_of(receipt), arrived, reason, brand, unmapped, code.code if code else None)


def key_of(receipt: Receipt) -> UUID:
    """What recognises a repetition: never the time, but for a receipt without a message id, which has nothing else."""
    if receipt.message_id is None:
        known: tuple[object, ...] = astuple(receipt)
    else:
        known = (
            receipt.gateway, receipt.account, receipt.message_id, receipt.number, receipt.segment, receipt.status.value,
            receipt.code,
        )  # fmt: skip
    # The driver's own class: equal to the standard one, and made in an eighth of its time.
    key: UUID = pgproto.UUID(hashlib.blake2b("\x1f".join(map(str, known)).encode(), digest_size=16).digest())
    return key
