"""Recorded cases as their files hold them: one that has `each` stands for as many as that has rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def one_by_one(cases: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for case in cases:
        for values in case.pop("each", [{}]):
            yield filled(case, values)


def filled(value: Any, values: dict[str, str]) -> Any:
    """The same with `{name}` replaced by what `each` says."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {filled(name, values): filled(inner, values) for name, inner in value.items()}
    return [filled(inner, values) for inner in value] if isinstance(value, list) else value
