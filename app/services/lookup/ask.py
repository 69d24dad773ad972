"""Asks one provider: within its pace, its breaker and the budget, and again where that may help."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from time import perf_counter
from typing import NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, stop_after_delay

from app import lookups
from app.models.http import Options
from app.models.lookup import RETRIED, Failed, Failure, Found, Provider
from app.services import metrics
from app.services.lookup import stops
from app.services.lookup.breaker import Breaker, Pace
from app.services.lookup.budget import NOTHING, Budget
from app.services.lookup.transport import Transport, Unreached

TRIES = 3
WAITS_MOST = 10.0
"""Seconds that a provider, or our own pace, may make one try wait; what takes longer is left to the next provider."""
RESTS_MOST = 60.0
"""Seconds that a provider is left alone at most because it asks for it."""
SOON = 2.0
"""Seconds within which a lookup that is claimed should have its turn: four looks for what is due."""
UNBILLED = frozenset({"rate_limited", "auth", "quota", "bad_request", "forbidden", "no_coverage", "pending"})


@dataclass(frozen=True, slots=True)
class Source:
    """A provider as it is configured. `within`: seconds for one call; after as many no other try begins. `agreed`: the
    settings name the price, in the budget's currency, so what answers say of theirs does not count.
    """

    provider: Provider
    options: Options
    price: Decimal
    per_second: float
    within: float = 8.0
    agreed: bool = False

    @property
    def deadline(self) -> float:
        """Seconds after which no answer is waited for, whatever happens."""
        return self.within * 2 + WAITS_MOST

    @property
    def config(self) -> str:
        """Marks the settings: what a provider refused under these is not asked again until they change."""
        return hashlib.blake2b(repr(sorted(self.options.items())).encode(), digest_size=4).hexdigest()


class Answer(NamedTuple):
    """What one provider said of one number, and what it cost."""

    provider: str
    said: Found | Failed
    price: Decimal
    at: datetime
    config: str


class Asker:
    """One provider in this process."""

    def __init__(self, source: Source, transport: Transport, budget: Budget,
                 sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:  # fmt: skip
        self.source = source
        self.config = source.config
        self.breaker = Breaker()
        self.pace = Pace(source.per_second)
        self._transport = transport
        self._budget = budget
        self._sleep = sleep

    @property
    def name(self) -> str:
        return self.source.provider.name

    def ready(self) -> bool:
        """Whether a lookup claimed now may hope for an answer: the provider is not left alone, nor asks us to wait."""
        return self.breaker.ready() and self.pace.rests() <= SOON

    def why_unasked(self) -> tuple[Failure, str]:
        """Why nobody may ask it now."""
        if self.breaker.stopped:
            return self.breaker.stopped, "stopped: see `sendable lookup resume`"
        return "provider_error", "not asked: it fails, and is left alone"

    def rests_until(self) -> datetime | None:
        """When it is asked again by itself, where it is left alone: because it fails, or because it asks us to wait."""
        seconds = max(self.breaker.left(), self.pace.rests())
        return datetime.now(UTC) + timedelta(seconds=seconds) if seconds and not self.breaker.stopped else None

    @property
    def room(self) -> int:
        """Numbers whose turn would come soon."""
        return self.pace.soon(SOON) * self.source.provider.batch

    async def ask(self, numbers: Collection[str]) -> dict[str, Answer | None]:
        """An answer or a failure for every number, after at most three tries; None where the budget did not reach."""
        attempt = _Attempt(numbers)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(TRIES) | stop_after_delay(self.source.within),
            wait=_wait,
            sleep=self._sleep,
            retry=retry_if_result(bool),
            retry_error_callback=lambda _: None,
        )
        try:
            async with asyncio.timeout(self.source.deadline):
                await retrying(self._try, attempt)
        except TimeoutError:  # what is still to be asked keeps its last failure, or has this one
            if attempt.price:
                self.breaker.heard("provider_error")
        finally:
            self.breaker.trying = False
        return {number: self._answer(number, attempt) for number in numbers}

    async def _try(self, attempt: _Attempt) -> float | None:
        """One call for what is still to be asked. Returns how long to wait before another one; None asks for none."""
        wanted = [n for n in attempt.numbers if n not in attempt.said or n in attempt.again]
        attempt.again.clear()
        if why := await self._turn():
            attempt.said |= {n: Failed(n, *why) for n in wanted if n not in attempt.said}
            return None
        granted = await self._budget.reserve(wanted, self.source.price)
        attempt.refused |= {*wanted} - {*granted.numbers}
        if not granted.numbers:
            return None
        for number in granted.numbers:
            attempt.price[number] = attempt.price.get(number, NOTHING) + self.source.price
        heard = await self._call(granted.numbers)
        attempt.said |= heard.said
        await self._settle(attempt, heard, granted.day)
        retried = RETRIED if heard.cut else RETRIED - {"malformed"}
        attempt.again |= {n for n, a in heard.said.items() if isinstance(a, Failed) and a.error in retried}
        return self._before_the_next(heard.said, attempt)

    async def _turn(self) -> tuple[Failure, str] | None:
        """Wait until a call may be made. Returns why none may: others may have heard so meanwhile. Nothing is paid."""
        if self.pace.waits() > WAITS_MOST:
            return "rate_limited", "not asked: its turn would have come too late"
        await self._sleep(self.pace.turn())
        return self.why_unasked() if self.breaker.stopped or self.breaker.is_open() else None

    async def _call(self, numbers: Sequence[str]) -> _Heard:
        """Never raises for what a provider does."""
        source = self.source
        began = perf_counter()
        try:
            call = source.provider.build(numbers, {**source.options, "now": datetime.now(UTC)})
            answer = await self._transport.send(call, source.within)
        except Unreached as error:
            failed: dict[str, Found | Failed] = {n: Failed(n, "provider_error", str(error)) for n in numbers}
            heard = _Heard(failed, cut=False, arrived=error.sent)
        else:
            cut = answer.cut and answer.status == 200  # noqa: PLR2004
            heard = _Heard(lookups.read(source.provider, answer, numbers, source.options), cut, arrived=True)
        self.breaker.heard(_worst(heard.said))
        if self.breaker.stopped:
            await stops.stop(self._budget.engine, self.name, self.config, self.breaker.stopped)
        metrics.asked(self.name, heard.said.values(), perf_counter() - began)
        return heard

    async def _settle(self, attempt: _Attempt, heard: _Heard, day: date) -> None:
        price = self.source.price
        costs = {n: _cost(a, self.source) if heard.arrived else NOTHING for n, a in heard.said.items()}
        for number, cost in costs.items():
            attempt.price[number] += cost - price
        metrics.spent(self.name, sum(costs.values(), NOTHING))
        await self._budget.settle({number: cost - price for number, cost in costs.items()}, day)

    def _before_the_next(self, said: Mapping[str, Found | Failed], attempt: _Attempt) -> float | None:
        waits = [a.retry_after or 0.0 for a in said.values() if isinstance(a, Failed) and a.error in RETRIED]
        asked = max(waits, default=0.0)
        if asked:
            self.pace.rest(min(asked, RESTS_MOST))
        if not attempt.again or self.breaker.stopped or asked > WAITS_MOST:
            return None
        return asked + 1e-9  # no wait at all would ask for no other call

    def _answer(self, number: str, attempt: _Attempt) -> Answer | None:
        if number not in attempt.said and number in attempt.refused:
            return None
        said = attempt.said.get(number) or Failed(number, "provider_error", "no answer in time")
        config = self.config if number in attempt.price else ""  # nothing was asked: nothing is kept of it
        return Answer(self.name, said, attempt.price.get(number, NOTHING), datetime.now(UTC), config)


class _Heard(NamedTuple):
    """What one call brought. `cut`: a good answer's body ended early; `arrived`: the call may have been billed."""

    said: dict[str, Found | Failed]
    cut: bool
    arrived: bool


class _Attempt:
    """One attempt at one provider, over its tries."""

    def __init__(self, numbers: Collection[str]) -> None:
        self.numbers = [*numbers]
        self.said: dict[str, Found | Failed] = {}
        self.price: dict[str, Decimal] = {}
        self.refused: set[str] = set()
        self.again: set[str] = set()


def _wait(state: RetryCallState) -> float:
    """As long as the provider asks, and up to a growing random span more: not all of us at once."""
    asked = state.outcome.result() if state.outcome else None
    return float(asked or 0.0) + _spread(state.attempt_number)


def _spread(attempt: int) -> float:
    return random.uniform(0, 0.25 * 2**attempt)  # noqa: S311 - no secret


def _worst(said: Mapping[str, Found | Failed]) -> Failure | None:
    """What the call as a whole came to: a fault only where no number was answered."""
    errors = [answer.error for answer in said.values() if isinstance(answer, Failed)]
    return errors[0] if errors and len(errors) == len(said) else None


def _cost(said: Found | Failed, source: Source) -> Decimal:
    """What a call for this number cost as far as we know; a call without an answer may have been billed."""
    if isinstance(said, Found):
        return source.price if source.agreed or said.price is None else said.price
    return NOTHING if said.error in UNBILLED else source.price
