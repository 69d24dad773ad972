"""What providers have said before: how long an answer is used again, and which ones decide what is asked now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from app.models.lookup import Failed, Failure, Found
from app.models.number import Carrier, Number
from app.services import store
from app.services.connection import Connection
from app.services.heard import DEAF, kind_of
from app.services.lookup import claims
from app.services.lookup.ask import Answer
from app.services.lookup.claims import Claim
from app.services.meaning import Meaning
from app.services.resolve import BURST
from app.services.shown import DEAD, Question, known_carrier, questions

MOVED, FIXED, UNKNOWN = timedelta(days=30), timedelta(days=90), timedelta(days=1)
"""How long an answer is used again: a port; a fixed line, or no number at all; a number not found, or no carrier."""
REFUSED = timedelta(days=3_650)
"""A refusal holds until the provider's settings change."""
REFUSALS: frozenset[Failure] = frozenset({"no_coverage", "forbidden"})
_FAILURES: Mapping[Failure, timedelta] = {
    "not_found": UNKNOWN,
    "invalid_number": FIXED,
    **dict.fromkeys(REFUSALS, REFUSED),
}
"""Those that are answers, and how long each is used again."""


class Known(NamedTuple):
    """What was known when a lookup was claimed: answers that are still good, and the facts they are judged by."""

    answers: Mapping[str, Sequence[Answer]]
    held: Mapping[str, Number]


NOTHING_KNOWN = Known({}, {})


async def known(db: Connection, mine: Sequence[Claim]) -> Known:
    answers = await claims.kept(db, [one.number for one in mine])
    return Known(answers, await store.facts(db, [*answers]) if answers else {})


def refused(kept: Sequence[Answer], configs: Mapping[str, str]) -> list[Answer]:
    """What providers have refused for this number, under the settings that they still have."""
    return [
        a
        for a in kept
        if isinstance(a.said, Failed) and a.said.error in REFUSALS and configs.get(a.provider) == a.config
    ]


def wordless(before: Known, who: str, configs: Mapping[str, str], meaning: Meaning, now: datetime) -> list[Answer]:
    """Earlier answers that named no carrier: their providers, while they have the same settings, would be paid to say
    so again. Not those from before the number's end was told: about that they have not been asked.
    """
    if (number := before.held.get(who)) is None:
        return []
    stored = known_carrier(number, meaning.policy)
    asked = questions(number, meaning.policy, now)
    return [
        a
        for a in before.answers.get(who, ())
        if isinstance(a.said, Found) and kind_of(a.said, stored, meaning.carriers) == "nothing"
        if configs.get(a.provider) == a.config and not _ended(a, asked)
    ]


def still_good(before: Known, who: str, meaning: Meaning, now: datetime) -> Answer | None:
    """An earlier answer that decides all that is asked now, as of a burst of receipts about one number."""
    if (number := before.held.get(who)) is None:
        return None
    stored = known_carrier(number, meaning.policy)
    asked = questions(number, meaning.policy, now)
    for answer in sorted(before.answers.get(who, ()), key=lambda a: a.at, reverse=True):
        kind = kind_of(answer.said, stored, meaning.carriers)
        if kind in {"nothing", "gone"}:
            continue
        if now - answer.at > BURST and (kind in {"same", "first", "porting"} or _overtaken(answer, stored, asked)):
            continue
        return answer
    return None


def _overtaken(answer: Answer, stored: Carrier | None, asked: Sequence[Question]) -> bool:
    """Whether another carrier, or the number's end, was told since: an earlier port says nothing about that."""
    if isinstance(answer.said, Failed) or answer.said.line_type in DEAF:
        return False
    return bool(stored and stored.at > answer.at) or _ended(answer, asked)


def _ended(answer: Answer, asked: Sequence[Question]) -> bool:
    return any(q.state in DEAD and q.fact.at > answer.at for q in asked)


def kept_until(answer: Answer, kind: str) -> datetime | None:
    """How long an answer is used again, by its outcome. Trouble is no answer."""
    said = answer.said
    if isinstance(said, Failed):
        return answer.at + _FAILURES[said.error] if said.error in _FAILURES else None
    if said.line_type in DEAF:
        return answer.at + FIXED
    if kind == "nothing" and not said.partial:
        return answer.at + UNKNOWN
    return answer.at + (MOVED if kind == "moved" else BURST)
