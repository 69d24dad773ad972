"""The two calls that run thousands of times a second, ahead of the app's middlewares and routes.

They keep their routes all the same: for other methods, for their names in the log, and for the API's document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.routers import numbers, problems, receipts

Endpoint = Callable[[Request], Awaitable[Response]]
_RECEIPTS, _NUMBERS = "/v1/receipts/", "/v1/numbers/"


class FrontedApp(FastAPI):
    """FastAPI, but the hot calls are answered at the door: its five middlewares cost a tenth of a receipt's time. And
    `state` is plain: Starlette's own asks for each name in vain before it looks into its dictionary.
    """

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - whatever FastAPI takes
        super().__init__(**given)
        self.state = SimpleNamespace()  # type: ignore[assignment]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = _endpoint(scope) if scope["type"] == "http" else None
        if endpoint is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        try:
            response = await endpoint(Request(scope, receive))
        except Exception as error:
            await problems.of(error, scope["path"])(scope, receive, send)
            if not problems.is_expected(error):
                raise
        else:
            await response(scope, receive, send)


def _endpoint(scope: Scope) -> Endpoint | None:
    """The endpoint of a hot call, whose path parameters it leaves in the scope as a router would."""
    path: str = scope["path"]
    if path.startswith(_RECEIPTS) and scope["method"] in {"GET", "POST"}:
        gateway, slash, account = path.removeprefix(_RECEIPTS).removesuffix("/").partition("/")
        if "/" not in account and bool(slash) == bool(account):
            scope["path_params"] = {"gateway": gateway, "account": account} if account else {"gateway": gateway}
            scope["endpoint"] = receipts.receive
            return receipts.receive
    elif path.startswith(_NUMBERS) and scope["method"] == "GET" and "/" not in path.removeprefix(_NUMBERS):
        scope["path_params"] = {"number": path.removeprefix(_NUMBERS)}
        scope["endpoint"] = numbers.number
        return numbers.number
    return None
