"""Who asks, and what for: a Bearer key of `sendable keys create`, with the scope that the call needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, NoReturn

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.routers.problems import Problem
from app.services.keys import Keyring

bearer = HTTPBearer(
    scheme_name="key",
    auto_error=False,
    description="A key made by `sendable keys create`, as `Authorization: Bearer sendable_…`. Each call names "
    "the scope that it needs; `admin` opens all of them. With auth off (on loopback only) no key is asked for.",
)
"""The scheme as the API's document shows it. The check itself is `require`."""


def scope(name: str) -> Callable[..., Awaitable[None]]:
    """A dependency: `Annotated[None, Security(scope("numbers:read"))]`."""
    named = Security(bearer, scopes=[name])  # the scope stands in the API's document; nothing else reads it there

    async def needs(request: Request, _: HTTPAuthorizationCredentials | None = named) -> None:
        await require(request, name)

    return needs


NO_KEY = "no key: send `Authorization: Bearer …` with a key of `sendable keys create`"
Reads = Annotated[None, Security(scope("numbers:read"))]
Admin = Annotated[None, Security(scope("admin"))]


async def require(request: Request, name: str) -> None:
    """For routes without dependencies. Raises Problem 401 without a live key, 403 for one that lacks the scope."""
    if request.app.state.settings.auth == "off":
        return
    header = request.headers.get("authorization")
    if header is None:
        _stop(401, NO_KEY, "Bearer")
    kind, _, token = header.partition(" ")
    key = await keyring(request).find(token.strip()) if kind.lower() == "bearer" else None
    if key is None:
        _stop(401, "this key is wrong, revoked or has expired: send a live one as `Authorization: Bearer …`",
              'Bearer error="invalid_token"')  # fmt: skip
    if not key.may(name):
        _stop(403, lacking(name), f'Bearer error="insufficient_scope", scope="{name}"')


def lacking(name: str) -> str:
    """What is answered to a key without this scope."""
    return f"this key lacks the scope `{name}`: use one that has it, or make one with `sendable keys create`"


def keyring(request: Request) -> Keyring:
    """The running service's keyring, made at the first request that needs it."""
    state = request.app.state
    if not hasattr(state, "keyring"):
        state.keyring = Keyring(state.quick)
    ring: Keyring = state.keyring
    return ring


def _stop(status: int, detail: str, challenge: str) -> NoReturn:
    raise Problem(status, detail, headers={"WWW-Authenticate": challenge})
