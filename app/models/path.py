"""Where a field lies in what somebody else wrote, as settings say it: `data.lines.0.name`."""

from __future__ import annotations

from collections.abc import Sequence


def lies_at(value: object, path: str | Sequence[str]) -> object:
    """What lies at `data.lines.0.name`, or at the names of a list where names have dots. None where nothing does."""
    for step in path.split(".") if isinstance(path, str) else path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value
