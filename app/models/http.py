"""One HTTP request and its answer as plain values: what lookups, feeds and inquiries ask, whatever client sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Options = Mapping[str, Any]
"""One vendor's table of the settings, secrets as plain text."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, ready to be sent. `json` and `content` exclude each other. Never logged: it holds secrets."""

    method: Literal["GET", "POST"]
    url: str
    params: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    basic: tuple[str, str] | None = None
    json: Any = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back. `headers` have lower-case names; `cut` says that the body ended before its announced length."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False


def address(options: Options, default: str, path: str) -> str:
    """The whole URL: `base_url` of the settings stands for the vendor's own scheme and host."""
    return str(options.get("base_url") or default).rstrip("/") + path
