"""Missed receipts: messages of the register without a final receipt are asked for at their gateway.

What it says goes the way of a pushed receipt, and has the same key: whichever comes second changes nothing. A message
is claimed for some minutes, in the time at which it was last asked for, so that runs share the work, and one that is
stopped goes on where it was.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from app.gateways import answered
from app.lookups import wait
from app.models.http import HttpAnswer, Options
from app.models.receipt import FINAL, Gateway, Link, Missed, Receipt
from app.services import register
from app.services.connection import Busy, transaction
from app.services.intake import Intake
from app.services.lookup.breaker import Pace
from app.services.lookup.transport import Transport, Unreached

TRIES = 3
WITHIN = 15.0
"""Seconds that one request may take."""
WAITS_MOST = 60.0
"""Seconds that a gateway may make us wait; one that asks for more is left for the next run."""
SIDE_BY_SIDE = 8
"""Requests under way at one gateway."""
FAILURES_MOST = 5
"""Requests in a row that fail: after them the gateway is left for the next run."""
AGAIN = timedelta(hours=6)
"""How long after an answer that was not final a message is asked for again."""
LEASE = timedelta(minutes=5)
"""How long a claim lasts: whoever died in the middle of asking leaves its messages to others after that."""
GOOD, NOT_FOUND, TOO_MANY, OURS = 200, 404, 429, 500
REFUSED = frozenset({401, 402, 403})


@dataclass(frozen=True, slots=True)
class Inquirer:
    """A gateway that can be asked, as it is configured."""

    gateway: Gateway
    link: Link
    options: Options
    per_second: float


class Reconciled(NamedTuple):
    """Messages that were `asked` for: the gateway had a `final` receipt, said that they are `on_the_way`, did not know
    them, or its answer could not be had (`failed`: they are asked for again). `stopped`: why it was given up.
    """

    asked: int = 0
    final: int = 0
    on_the_way: int = 0
    not_known: int = 0
    failed: int = 0
    stopped: str | None = None


# When a message was asked for is told by the database's clock: one that ran ahead would put it off for everybody.
# Receipts' ids are asked for from `$3` on as well: else those before it, of all days, are merged past each time.
_DUE = """
FROM messages m
WHERE gateway = $1 AND account = $2 AND message_id > $3 AND number IS NOT NULL
  AND coalesce(sent_at, registered_at) < $4 AND (asked_at IS NULL OR asked_at < statement_timestamp() - $5::interval)
  AND NOT EXISTS (SELECT FROM receipts r WHERE r.message_id = m.message_id AND r.message_id > $3
                  AND r.gateway = m.gateway AND r.account = m.account AND r.status = ANY($6::text[])
                  AND r.received_at > $7)
"""
_COUNT = f"SELECT count(*) {_DUE}"
# Materialized: as a plain subquery it may run once for every row that is joined, and claim more at each.
_CLAIM = f"""
WITH due AS MATERIALIZED (SELECT message_id AS wanted {_DUE} ORDER BY message_id LIMIT $9 FOR UPDATE OF m SKIP LOCKED)
UPDATE messages SET asked_at = statement_timestamp() - $8::interval FROM due
WHERE gateway = $1 AND account = $2 AND message_id = wanted
RETURNING message_id, number, sender, sent_at
"""  # noqa: S608 - constants of this file
_ASKED = """
UPDATE messages SET asked_at = CASE WHEN $4 THEN statement_timestamp() END
WHERE gateway = $1 AND account = $2 AND message_id = ANY($3::text[])
"""


def _due(link: Link, after: str, older: timedelta, now: datetime) -> tuple[object, ...]:
    final = [status.value for status in FINAL]
    return (link.gateway, link.account, after, now - older, AGAIN, final, now - 2 * register.KEPT)


async def waiting(engine: AsyncEngine, link: Link, older: timedelta) -> int:
    """How many messages would be asked for."""
    async with transaction(engine) as db:
        return int(await db.fetchval(_COUNT, *_due(link, "", older, datetime.now(UTC))))


async def _claim(engine: AsyncEngine, link: Link, after: str, older: timedelta, most: int) -> list[Missed]:
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        rows = await db.fetch(_CLAIM, *_due(link, after, older, now), AGAIN - LEASE, most)
    return sorted((Missed(*row) for row in rows), key=lambda message: message.message_id)


async def reconcile(engine: AsyncEngine, intake: Intake, inquirer: Inquirer, older: timedelta, most: int, *,
                    told: Callable[[int], None] = lambda _: None,
                    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> Reconciled:  # fmt: skip
    """Ask for at most so many messages that are older than this. `told` hears how many are done."""
    asker, after = _Asker(engine, intake, inquirer, sleep), ""
    batch = inquirer.gateway.inquiry.batch if inquirer.gateway.inquiry else 1
    try:
        while (room := most - asker.total.asked) > 0 and not asker.total.stopped:
            claimed = await _claim(engine, inquirer.link, after, older, min(room, SIDE_BY_SIDE * batch))
            if not claimed:
                break
            after = claimed[-1].message_id
            await asyncio.gather(*(asker.ask(claimed[at : at + batch]) for at in range(0, len(claimed), batch)))
            told(asker.total.asked)
    finally:
        await asker.close()
    return asker.total


class _Asker:
    """One gateway in one run."""

    def __init__(self, engine: AsyncEngine, intake: Intake, inquirer: Inquirer,
                 sleep: Callable[[float], Awaitable[None]]) -> None:  # fmt: skip
        self.total = Reconciled()
        self._engine, self._intake, self._of, self._sleep = engine, intake, inquirer, sleep
        self._pace, self._transport, self._failures = Pace(inquirer.per_second), Transport(), 0
        self._link = inquirer.link

    async def close(self) -> None:
        await self._transport.close()

    async def ask(self, messages: Sequence[Missed]) -> None:
        """Ask for these, and commit what is said. What no answer was had for is as if it had not been asked for."""
        done = False
        try:
            answer = None if self.total.stopped else await self._answer(messages)
            receipts = self._receipts(answer, messages) if answer else None
            if receipts is not None:
                await self._intake.put(receipts)
                self._count(receipts, messages)
                final = {one.message_id for one in receipts if one.status in FINAL}
                await self._asked([one for one in messages if one.message_id not in final], told=True)
                done = True
            elif not self.total.stopped:
                self._failed()
        except Busy:
            self._failed()
        finally:
            if not done:
                await self._asked(messages, told=False)
        if not done:
            self.total = self.total._replace(failed=self.total.failed + len(messages))

    async def _answer(self, messages: Sequence[Missed]) -> HttpAnswer | None:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(TRIES), wait=_wait, sleep=self._sleep, retry=retry_if_result(_is_passing),
            retry_error_callback=lambda _: None,
        )  # fmt: skip
        return await retrying(self._try, messages)

    async def _try(self, messages: Sequence[Missed]) -> HttpAnswer | None:
        inquiry = self._of.gateway.inquiry
        assert inquiry  # noqa: S101 - an inquirer has one
        await self._sleep(self._pace.turn())
        try:
            answer = await self._transport.send(inquiry.ask(messages, self._of.options), WITHIN)
        except Unreached:
            return None
        if answer.status == TOO_MANY:
            self._pace.rest(min(_asked_for(answer), WAITS_MOST))
        if answer.status in REFUSED:
            self.total = self.total._replace(
                stopped=f"it answers {answer.status}: its credentials are not good for this"
            )
        return answer

    def _receipts(self, answer: HttpAnswer, messages: Sequence[Missed]) -> list[Receipt] | None:
        """None where nothing could be read: the message stays to be asked for."""
        if answer.status == NOT_FOUND:
            return []
        if answer.status != GOOD or answer.cut:
            return None
        said = answered(self._of.gateway, answer, messages, self._link)
        receipts = [one for one in said if isinstance(one, Receipt)]
        return receipts if receipts or not said else None

    def _count(self, receipts: Sequence[Receipt], messages: Sequence[Missed]) -> None:
        self._failures = 0
        final = {one.message_id for one in receipts if one.status in FINAL}
        others = {one.message_id for one in receipts} - final
        total = self.total
        self.total = total._replace(
            asked=total.asked + len(messages), final=total.final + len(final),
            on_the_way=total.on_the_way + len(others),
            not_known=total.not_known + len(messages) - len(final) - len(others),
        )  # fmt: skip

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MOST:
            self.total = self.total._replace(stopped=f"{FAILURES_MOST} requests in a row failed")

    async def _asked(self, messages: Sequence[Missed], *, told: bool) -> None:
        if ids := [message.message_id for message in messages]:
            async with transaction(self._engine) as db:
                await db.execute(_ASKED, self._link.gateway, self._link.account, ids, told)


def _is_passing(answer: HttpAnswer | None) -> bool:
    """Whether another try may bring more; one that asks for a long wait gets none."""
    if answer is None:
        return True
    if answer.status == TOO_MANY:
        return _asked_for(answer) <= WAITS_MOST
    return answer.status >= OURS or answer.cut


def _asked_for(answer: HttpAnswer) -> float:
    asked = wait(answer.headers)
    return 1.0 if asked is None else asked


def _wait(state: RetryCallState) -> float:
    """A growing span with chance in it; what the gateway itself asks for, the pace keeps."""
    return random.uniform(0, 0.25 * 2**state.attempt_number)  # noqa: S311 - no secret
