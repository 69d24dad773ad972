"""Recorded bytes with something else in one place: what nobody meant to send."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

WORDS = [
    "", " ", "\0", "+1", "-1", "{", "0x", "ND", "OK", "null", "1e999", "9" * 400,
    "2026-13-45", "0001-01-01", "9999-12-31T23:59:59-12:00",
]  # fmt: skip
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(WORDS),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def bent(draw: st.DrawFn, body: bytes) -> bytes:
    """With other bytes in one place; or, where it is JSON, with another value or none."""
    return draw(st.sampled_from([_bytes, _json]))(draw, body)


def _bytes(draw: st.DrawFn, body: bytes) -> bytes:
    start, length = draw(st.integers(0, len(body))), draw(st.integers(0, 8))
    return body[:start] + draw(st.binary(max_size=8)) + body[start + length :]


def _json(draw: st.DrawFn, body: bytes) -> bytes:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    return json.dumps(_value(draw, value)).encode()


def _value(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        place = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        copy = value.copy()
        if draw(st.booleans()):
            copy[place] = _value(draw, copy[place])
        else:
            del copy[place]
        return copy
    return draw(JUNK)
