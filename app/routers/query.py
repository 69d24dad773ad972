"""Query parameters: one that is misspelt is refused, since a question without it is another question."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from app.routers.problems import Problem


class KnownQuery(APIRoute):
    """A route that takes the query parameters which it names, and no others."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        named = [field.alias for field in get_flat_params(self.dependant) if isinstance(field.field_info, Query)]

        async def known(request: Request) -> Response:
            if request.scope["query_string"]:
                refuse_others(request.query_params, named)
            return await handle(request)

        return known


def refuse_others(query: Collection[str], named: Collection[str]) -> None:
    """Raises Problem 422 for parameters that are not `named`."""
    others = [name for name in query if name not in named]
    if others:
        there = f"there are {', '.join(named)}" if named else "it takes none"
        detail = f"this call has no such parameter: {there}"
        raise Problem(422, detail, errors=[{"parameter": name, "detail": detail} for name in others])
