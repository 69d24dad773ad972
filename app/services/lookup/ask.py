"""Asks providers, one after the other until the question is answered: each within its pace, its breaker, the budget."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from time import perf_counter
from typing import Literal, NamedTuple

import phonenumbers
from phonenumbers import PhoneNumberType
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, stop_after_delay

from app import lookups
from app.models.lookup import RETRIED, Failed, Failure, Found, Options, Provider
from app.services import metrics
from app.services.heard import suffices
from app.services.lookup import stops
from app.services.lookup.breaker import Breaker, Pace
from app.services.lookup.budget import NOTHING, Budget
from app.services.lookup.transport import Transport, Unreached

TRIES = 3
WAITS_MOST = 10.0
"""Seconds that a provider may make one attempt wait; what asks for more is left to the next provider."""
UNBILLED = frozenset({"rate_limited", "auth", "quota", "bad_request", "forbidden", "no_coverage", "pending"})
PLAN = "numbering-plan"
"""Who answers for numbers that no provider is paid for."""


@dataclass(frozen=True, slots=True)
class Source:
    """A provider as it is configured. `within`: seconds for one attempt with all its tries. `agreed`: the settings name
    the price, in the budget's currency, so what answers say of theirs does not count.
    """

    provider: Provider
    options: Options
    price: Decimal
    per_second: float
    within: float = 8.0
    agreed: bool = False

    @property
    def deadline(self) -> float:
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


@dataclass(slots=True)
class Told:
    """All that was heard of a number. `lacks`: why nobody, or not everybody, could be asked."""

    answers: list[Answer] = field(default_factory=list)
    lacks: Literal["budget", "provider"] | None = None


def free(number: str) -> Found | Failed | None:
    """What the numbering plan itself says, so that nobody is paid for it."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return Failed(number, "invalid_number", "no phone number")
    if not phonenumbers.is_possible_number(parsed):
        return Failed(number, "invalid_number", "not a possible number")
    kind = phonenumbers.number_type(parsed)
    if kind == PhoneNumberType.TOLL_FREE:
        return Found(number, line_type="toll_free")
    if kind == PhoneNumberType.PREMIUM_RATE:
        return Found(number, line_type="premium")
    return None


class Asker:
    """One provider in this process."""

    def __init__(self, source: Source, transport: Transport, budget: Budget,
                 sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:  # fmt: skip
        self.source = source
        self.breaker = Breaker()
        self._pace = Pace(source.per_second)
        self._transport = transport
        self._budget = budget
        self._sleep = sleep

    @property
    def name(self) -> str:
        return self.source.provider.name

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
        except TimeoutError:
            self.breaker.heard("provider_error")  # what is still to be asked keeps its last failure, or has this one
        finally:
            self.breaker.trying = False
        return {number: self._answer(number, attempt) for number in numbers}

    async def _try(self, attempt: _Attempt) -> float | None:
        """One call for what is still to be asked. Returns what asks for another: how long to wait, at least."""
        wanted = [n for n in attempt.numbers if n not in attempt.said or n in attempt.again]
        granted = await self._budget.reserve(wanted, self.source.price)
        attempt.refused |= {*wanted} - {*granted}
        attempt.again.clear()
        if not granted:
            return None
        for number in granted:
            attempt.price[number] = attempt.price.get(number, NOTHING) + self.source.price
        heard = await self._call(granted)
        await self._settle(attempt, heard)
        attempt.said |= heard.said
        retried = RETRIED if heard.cut else RETRIED - {"malformed"}
        attempt.again |= {n for n, a in heard.said.items() if isinstance(a, Failed) and a.error in retried}
        return self._before_the_next(heard.said, attempt)

    async def _call(self, numbers: Sequence[str]) -> _Heard:
        """Never raises for what a provider does."""
        source = self.source
        await self._sleep(self._pace.turn())
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
            await stops.stop(self._budget.engine, self.name, source.config, self.breaker.stopped)
        metrics.asked(self.name, heard.said.values(), perf_counter() - began)
        return heard

    async def _settle(self, attempt: _Attempt, heard: _Heard) -> None:
        price = self.source.price
        costs = {n: _cost(a, self.source) if heard.arrived else NOTHING for n, a in heard.said.items()}
        for number, cost in costs.items():
            attempt.price[number] += cost - price
        metrics.spent(self.name, sum(costs.values(), NOTHING))
        await self._budget.settle({number: cost - price for number, cost in costs.items()})

    def _before_the_next(self, said: Mapping[str, Found | Failed], attempt: _Attempt) -> float | None:
        waits = [a.retry_after or 0.0 for a in said.values() if isinstance(a, Failed) and a.error == "rate_limited"]
        if waits:
            self._pace.rest(min(max(waits), 60.0))
        if not attempt.again or self.breaker.stopped or (waits and max(waits) > WAITS_MOST):
            return None
        return max(waits, default=0.0) + 1e-9

    def _answer(self, number: str, attempt: _Attempt) -> Answer | None:
        if number not in attempt.said and number in attempt.refused:
            return None
        said = attempt.said.get(number) or Failed(number, "provider_error", "no answer in time")
        return Answer(self.name, said, attempt.price.get(number, NOTHING), datetime.now(UTC), self.source.config)


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


class Panel:
    """All configured providers, in order of preference."""

    def __init__(self, askers: Sequence[Asker]) -> None:
        self.askers = askers

    @property
    def lease(self) -> float:
        """Seconds after which whoever asked all of them must have died."""
        return sum(asker.source.deadline for asker in self.askers) + 15.0

    def obey(self, stopped: Mapping[tuple[str, str], Failure]) -> None:
        """Ask nobody whom any process has found to refuse our account, and everybody else again."""
        for asker in self.askers:
            asker.breaker.stopped = stopped.get((asker.name, asker.source.config))

    @property
    def batch(self) -> int:
        return next((a.source.provider.batch for a in self.askers if a.breaker.ready()), 1)

    def ready(self) -> bool:
        return any(asker.breaker.ready() for asker in self.askers)

    async def ask(self, numbers: Collection[str], skip: Collection[tuple[str, str]] = ()) -> dict[str, Told]:
        """Ask until each number has an answer that suffices. `skip`: (number, provider) that would refuse again."""
        told = {number: Told() for number in numbers}
        for number, heard in told.items():
            if said := free(number):
                heard.answers.append(Answer(PLAN, said, NOTHING, datetime.now(UTC), ""))
        for asker in self.askers:
            open_ = [n for n, heard in told.items() if _asks_on(heard, asker) and (n, asker.name) not in skip]
            size = asker.source.provider.batch
            parts = [open_[start : start + size] for start in range(0, len(open_), size)]
            await asyncio.gather(*(self._part(asker, part, told) for part in parts))
        for heard in told.values():
            if not heard.answers and heard.lacks is None:
                heard.lacks = "provider"
        return told

    async def _part(self, asker: Asker, numbers: Sequence[str], told: Mapping[str, Told]) -> None:
        if not asker.breaker.lets():
            for number in numbers:
                if asker.breaker.stopped:
                    said = Failed(number, asker.breaker.stopped, "stopped: see `sendable lookup resume`")
                    told[number].answers.append(Answer(asker.name, said, NOTHING, datetime.now(UTC), ""))
                told[number].lacks = told[number].lacks or "provider"
            return
        for number, answer in (await asker.ask(numbers)).items():
            if answer is None:
                told[number].lacks = "budget"
            else:
                told[number].answers.append(answer)


def _asks_on(heard: Told, asker: Asker) -> bool:
    """Whether this provider could still add something: anything, or the port that the others did not tell."""
    found = [a.said for a in heard.answers if isinstance(a.said, Found) and not a.said.partial]
    if any(suffices(answer.said) for answer in heard.answers):
        return False
    return not found or asker.source.provider.tells_ports
