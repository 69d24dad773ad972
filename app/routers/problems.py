"""Errors as RFC 9457 `application/problem+json`: what is wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.services import metrics
from app.services.connection import RETRY_AFTER, Busy, is_lost

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error. `errors` name the places: `{"pointer" or "parameter", "detail"}`."""

    def __init__(self, status: int, detail: str, *, errors: list[dict[str, Any]] | None = None,
                 headers: Mapping[str, str] | None = None, **more: Any) -> None:  # fmt: skip # noqa: ANN401
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers, self.more = status, detail, errors, headers, more


def answer(problem: Problem) -> Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    if problem.errors:
        body["errors"] = problem.errors
    return Response(
        orjson.dumps(body, option=orjson.OPT_UTC_Z), problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


def of(error: Exception, path: str) -> Response:
    """Any error as an answer."""
    if isinstance(error, Problem):
        return answer(error)
    if isinstance(error, Busy) or is_lost(error):
        metrics.BUSY.labels("receipts" if path.startswith("/v1/receipts/") else "api").inc()
        return answer(busy())
    return answer(Problem(500, "Sendable failed on this request; the log says why"))


def is_expected(error: Exception) -> bool:
    """Whether the answer says all: nothing has failed that a log should tell of."""
    return isinstance(error, Problem | Busy)


def busy() -> Problem:
    return Problem(503, "nothing can be read or written just now: come back", headers={"Retry-After": str(RETRY_AFTER)})


def not_json() -> Problem:
    return Problem(400, "the body is not JSON that can be read: send it in UTF-8, and not nested deeply")


def install(app: FastAPI) -> None:
    """Turn every error of the app into a problem."""

    @app.exception_handler(Problem)
    @app.exception_handler(Busy)
    @app.exception_handler(Exception)
    async def _any(request: Request, error: Exception) -> Response:
        return of(error, request.scope["path"])

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        if any(one["type"] == "json_invalid" for one in error.errors()):
            return answer(not_json())
        if isinstance(error.body, bytes):  # read as JSON only where the header says so
            return answer(Problem(422, "the body is not marked as JSON: send `Content-Type: application/json` with it"))
        return answer(Problem(422, "the request is not what this call takes", errors=[*map(_place, error.errors())]))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI's own, for bytes or a depth that cannot be read
            return answer(not_json())
        if error.status_code == HTTPStatus.NOT_FOUND:
            return answer(Problem(404, "there is nothing at this path: /docs lists every call"))
        return answer(Problem(error.status_code, str(error.detail), headers=error.headers))


NO_OBJECT = ("missing", "model_type", "model_attributes_type")
"""Pydantic's types of error where an object should stand, and nothing or something else does."""


def _place(error: Mapping[str, Any]) -> dict[str, Any]:
    where, *path = error["loc"]
    detail = error["msg"].removeprefix("Value error, ")
    if path == ["after"]:
        detail = "not a place in these pages: send the `next` of the page before as it came"
    elif r"\x00" in error.get("ctx", {}).get("pattern", ""):
        detail = "must not be empty, nor hold NUL characters"
    elif not path and error["type"] in NO_OBJECT:
        detail = "the body must be a JSON object"
    if where == "body":
        return {"pointer": "".join(f"/{step}" for step in path), "detail": detail}
    return {"parameter": ".".join(map(str, path)), "detail": detail}
