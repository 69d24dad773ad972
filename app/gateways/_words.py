"""The words of a message, cut out of what is kept of a callback: also of one that nobody can take apart.

By patterns, since what is kept is what no parser could read. Each takes time in proportion to the bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache

RECEIPT_TEXT = "text:"
"""No name, but a mark: behind it, in the text of an SMPP receipt, the words stand as the last field."""

NO_RECEIPT = "stat:"
"""No name either: a text without this mark is no receipt, and so is all words."""

_ENDS_IN_JSON = rb'(?:[^"\\]|\\.)*+'


def cut(raw: bytes, names: frozenset[str]) -> bytes:
    """The same bytes with nothing under these names (in lower case): of JSON, of a form, of XML."""
    for pattern in _patterns(names - {RECEIPT_TEXT, NO_RECEIPT}):
        raw = pattern.sub(rb"\1", raw)
    if RECEIPT_TEXT in names:
        is_json = raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b'"')
        raw = (_IN_JSON if is_json else _IN_FORM).sub(rb"\1", raw)
    if NO_RECEIPT in names:  # last: a `stat:` among the words makes no receipt
        raw = _NO_STAT.sub(rb"\1", raw)
    return raw


@lru_cache
def _patterns(names: frozenset[str]) -> tuple[re.Pattern[bytes], ...]:
    if not names:
        return ()
    name = b"(?:" + b"|".join(re.escape(one.encode()) for one in sorted(names)) + b")"
    cdata = rb"<!\[CDATA\[.*?(?:\]\]>|\Z)"
    return tuple(
        re.compile(pattern, re.IGNORECASE | re.DOTALL)
        for pattern in (
            rb'("' + name + rb'"\s*+:\s*+")' + _ENDS_IN_JSON,
            rb"((?:\A|[&\s])" + name + rb"=)[^&]*+",
            rb"(<(?:\w{1,40}:)?" + name + rb"(?:\s[^<>]*+)?>)(?:" + cdata + rb"|[^<])*+",
        )
    )


_IN_JSON = re.compile(rb"(\btext:)" + _ENDS_IN_JSON, re.IGNORECASE | re.DOTALL)
_NO_STAT = re.compile(
    rb'("(?:short_message|text|body|message_payload)"\s*+:\s*+")(?!(?:[^"\\]|\\.)*?\bstat:)' + _ENDS_IN_JSON,
    re.IGNORECASE | re.DOTALL,
)
_IN_FORM = re.compile(rb"((?:\b|%20|%0a)text(?::|%3a))[^&]*+", re.IGNORECASE | re.DOTALL)
