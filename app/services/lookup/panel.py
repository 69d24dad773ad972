"""Asks the providers, in the order of the settings, until the question is answered; and nobody where the plan tells."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import phonenumbers
import structlog
from phonenumbers import PhoneNumberType

from app.models.lookup import Failed, Failure, Found
from app.services.connection import is_lost
from app.services.heard import suffices
from app.services.logs import error_fields
from app.services.lookup.ask import Answer, Asker
from app.services.lookup.budget import NOTHING

log = structlog.get_logger(__name__)

PLAN = "numbering-plan"
"""Who answers for numbers that no provider is paid for."""


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
            asker.breaker.stopped = stopped.get((asker.name, asker.config))

    def first(self) -> Asker | None:
        """Who would be asked now; None when nobody may be."""
        return next((asker for asker in self.askers if asker.ready()), None)

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
                said = Failed(number, *asker.why_unasked())
                told[number].answers.append(Answer(asker.name, said, NOTHING, datetime.now(UTC), ""))
                told[number].lacks = told[number].lacks or "provider"
            return
        try:
            answers = await asker.ask(numbers)
        except Exception as error:
            if not is_lost(error) or not any(told[number].answers for number in numbers):
                raise
            log.warning("another lookup provider could not be paid, and was not asked", **error_fields(error))
            for number in numbers:  # what the providers before it said has been paid for
                told[number].lacks = told[number].lacks or "provider"
            return
        for number, answer in answers.items():
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
