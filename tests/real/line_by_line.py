"""What the signers share. Each is run by the Python of an environment of its own, which finds this file beside it and
needs nothing for it but the standard library.

A line of JSON in, a line of JSON out. In: `way`, `secret`, `at` (seconds), `method`, `url`, `pairs` (names and values
in their order) and what else a way needs. Out: the finished `url`, `headers` and `body`, or the `error` that it met.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from traceback import format_exc
from typing import Any
from urllib.parse import urlencode

Asked = dict[str, Any]
Signed = dict[str, Any]
Ways = Mapping[str, Callable[[Asked], Signed]]
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


def answer_all(ways: Ways) -> None:
    """Until whoever asks closes the pipe."""
    for line in sys.stdin:
        asked = json.loads(line)
        asked["pairs"] = [(name, value) for name, value in asked["pairs"]]
        sys.stdout.write(json.dumps(_answer(ways, asked)) + "\n")
        sys.stdout.flush()


def _answer(ways: Ways, asked: Asked) -> Signed:
    try:
        return ways[asked["way"]](asked)
    except Exception:  # noqa: BLE001 - the test shows it
        return {"error": format_exc()}


def by_vonage(asked: Asked, params: dict[str, str]) -> Signed:
    """Where Vonage's parameters stand, the signature among them: in the query, a form or JSON."""
    if asked["how"] == "query":
        return {"url": f"{asked['url']}?{urlencode(params)}", "headers": {}, "body": ""}
    if asked["how"] == "form":
        return {"url": asked["url"], "headers": FORM, "body": urlencode(params)}
    return {"url": asked["url"], "headers": JSON, "body": json.dumps(params, ensure_ascii=asked["ascii"])}
