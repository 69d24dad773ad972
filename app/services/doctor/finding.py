"""One line of `sendable doctor`."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """`wrong` must be mended; a `note` is worth knowing."""

    level: Literal["ok", "note", "wrong"]
    about: str
    says: str
    mend: str | None = None


def age(seconds: float | None) -> str:
    minutes = int(seconds or 0) // 60
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2 * 24 * 60 else f"{minutes // (24 * 60)} days"
