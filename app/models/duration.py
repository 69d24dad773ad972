"""Durations as people write them in settings: `30s`, `5m`, `24h`, `14d`."""

from __future__ import annotations

import re
from datetime import timedelta

LONGEST = timedelta(days=36_500)
"""Counted back from now, a thousand years more would lie before all time."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """Raises ValueError for anything but a whole number and one of s, m, h, d, and for more than a hundred years."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*([smhd])\s*", text)
    if not match:
        raise ValueError(f'"{text}" is not a duration: write a number and s, m, h or d, for example "24h"')
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if length > LONGEST:
        raise ValueError(f'"{text}" is longer than a hundred years: write "{written(LONGEST)}" at most')
    return length


def written(length: timedelta) -> str:
    """As `duration` reads it: in the largest unit that measures it whole, below a second cut off."""
    for unit, name in reversed(_UNITS.items()):
        if length and not length % timedelta(**{name: 1}):
            return f"{length // timedelta(**{name: 1})}{unit}"
    return f"{length // timedelta(seconds=1)}s"
