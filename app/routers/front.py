"""The two calls that run thousands of times a second, ahead of the app's other middlewares and its routes.

They keep their routes all the same: for other methods, for their names in the log, and for the API's document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.routers import numbers, problems, receipts
from app.services.connection import Busy

Endpoint = Callable[[Request], Awaitable[Response]]
_RECEIPTS, _NUMBERS = "/v1/receipts/", "/v1/numbers/"


class Front:
    """Answers the hot calls itself and leaves every other one to the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = _endpoint(scope) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive))
        except (problems.Problem, Busy) as error:
            response = problems.of(error, scope["path"])
        await response(scope, receive, send)


def _endpoint(scope: Scope) -> Endpoint | None:
    """The endpoint of a hot call, whose path parameters it leaves in the scope as a router would."""
    path: str = scope["path"]
    if path.startswith(_RECEIPTS) and scope["method"] in {"GET", "POST"}:
        gateway, slash, account = path.removeprefix(_RECEIPTS).partition("/")
        if "/" not in account and bool(slash) == bool(account):
            scope["path_params"] = {"gateway": gateway, "account": account} if account else {"gateway": gateway}
            scope["endpoint"] = receipts.receive
            return receipts.receive
    elif path.startswith(_NUMBERS) and scope["method"] == "GET" and "/" not in path.removeprefix(_NUMBERS):
        scope["path_params"] = {"number": path.removeprefix(_NUMBERS)}
        scope["endpoint"] = numbers.number
        return numbers.number
    return None
