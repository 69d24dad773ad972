"""The API's document, completed with what FastAPI cannot see: thin routes, the gateways' callbacks, every error.

And `/docs`, whose page and scripts come from here and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route, compile_path

from app.gateways import GATEWAYS
from app.models import api
from app.models.opt_in import SubscriberLine
from app.routers import answers
from app.routers.answers import JSON, NDJSON, each
from app.routers.auth import NO_KEY, lacking
from app.routers.messages import SentMessage
from app.routers.problems import MEDIA_TYPE, Problem, answer, busy
from app.services.reading import NEWEST

Document = dict[str, Any]
SCHEMAS = "#/components/schemas/{model}"

TAGS = [
    {"name": "numbers", "description": "May I text this number now, and if not, why not?"},
    {"name": "consent", "description": "What the person wants: opt-in, opt-out, who is on a list."},
    {"name": "feed", "description": "What truly changed, in commit order."},
    {"name": "receipts", "description": "Delivery receipts: gateways post them here; everybody else reads them back."},
    {"name": "messages", "description": "The register of sent messages, for receipts that carry only an id."},
    {"name": "lookups", "description": "Who serves a number now, as lookup providers tell."},
    {"name": "deactivations", "description": "What carriers and aggregators tell by file: gone, suspended, moved."},
    {"name": "held", "description": "Numbers that wait for a person."},
    {"name": "reports", "description": "How lists stand, and why people left them."},
    {"name": "codes", "description": "What vendors' codes mean, and what the policy in force does about them."},
    {"name": "operating", "description": "For those who keep it running."},
]

# Errors ------------------------------------------------------------------------------------------------------------

PROBLEMS = {
    400: "The body cannot be read at all",
    401: "No live key",
    403: "The key lacks the scope that this call needs",
    404: "There is nothing of this name",
    405: "Not with this method",
    408: "The body did not arrive in time",
    409: "Something newer stands",
    413: "The body is too large",
    422: "Something in the request is wrong; `errors` says where",
    500: "Sendable failed; the log says why",
    503: "Nothing can be read or written just now: come back after `Retry-After` seconds",
}
_CHALLENGE = {"WWW-Authenticate": {"description": "How to prove who asks", "schema": {"type": "string"}}}
_ALLOW = {"Allow": {"description": "The methods there are", "schema": {"type": "string"}}}
_HEADERS = {
    401: _CHALLENGE,
    405: _ALLOW,
    503: {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}},
}
_FIXES = {
    401: NO_KEY,
    422: "not a possible phone number: give it as E.164, for example +15555551234",
    503: busy().detail,
}
"""Examples of what an error says, where it says more than PROBLEMS does."""

_ITS_OWN = {401, 409}
"""Each call has these for a reason of its own, which its description says."""
_BY_FASTAPI = 422
"""It documents its own, of another shape."""


def _problem(status: int, description: str | None = None, detail: str | None = None) -> Document:
    detail = detail or _FIXES.get(status, PROBLEMS[status])
    example = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    content = {MEDIA_TYPE: {"schema": _ref(api.Problem), "example": example}}
    answer = {"description": description or PROBLEMS[status], "content": content}
    return answer | ({"headers": _HEADERS[status]} if status in _HEADERS else {})


def _errors(path: str, operation: Document) -> Iterator[int]:
    """Which errors a call can give: by what it asks for."""
    if operation.get("security"):
        yield from (401, 403)
    if "requestBody" in operation:
        yield from (400, 408, 413)
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", ())):
        yield 404
    if path.startswith("/v1/"):
        yield 422
    yield from (405, 500, 503)


# What FastAPI cannot see -------------------------------------------------------------------------------------------

_ANSWERS = [model for model in vars(api).values() if isinstance(model, type)]
_BY_HAND: list[type[BaseModel]] = [*_ANSWERS, SentMessage, SubscriberLine]
"""FastAPI knows most of the answers too, but takes every null out of their examples."""


def _ref(model: type[BaseModel]) -> Document:
    return {"$ref": SCHEMAS.format(model=model.__name__)}


def _text(name: str, where: str, description: str, *examples: str, **more: Any) -> Document:  # noqa: ANN401 - schema words
    schema = {"type": "string", **more} | ({"examples": [*examples]} if examples else {})
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


NUMBER_STATUS = {
    "operationId": "numberStatus",
    "tags": ["numbers"],
    "summary": "May I text this number now?",
    "description": "Of the number alone, with a sender, or with a list of that sender: `decision` answers exactly what "
    "was asked. A number nobody has spoken of is `unseen`, and sendable. With `as_of` it is what would have been "
    "answered at that moment; `waiting_for`, `until` and all of the carrier but its name are null then.",
    "security": [{"key": ["numbers:read"]}],
    "parameters": [
        _text("number", "path", "E.164; a national number is read with the default region", api.NUMBER),
        _text("sender", "query", "Short code, phone number or name", "12345") | {"example": "12345"},
        _text("list", "query", "A list of this sender", "spring") | {"example": "spring"},
        _text(
            "as_of",
            "query",
            "A moment of the past, RFC 3339: what was answered then",
            "2026-11-20T18:42:00Z",
            format="date-time",
        ),
    ],
    "responses": {"200": {"description": "The answer", "content": {JSON: {"schema": _ref(api.NumberStatus)}}}},
}

_SIGNED = (
    "Each vendor proves its origin in its own way: a signature over the body, Basic credentials, or a token as "
    "`?token=…`, `X-Sendable-Token` or Basic password. The answer is what that vendor counts as success, given once "
    "everything is committed. What cannot be read is kept and answered the same way, with `Sendable-Unread: 1`."
)
_KANNEL = {"id": "0d8f1c2e", "st": "1", "a": "id:0d8f1c2e stat:DELIVRD err:000", "to": "+15555551234", "from": "12345"}
_NATIVE = {"message_id": "0d8f1c2e", "number": api.NUMBER, "sender": "12345", "status": "undeliverable", "code": "3041"}
_BODIES = {
    JSON: {"schema": {}, "example": _NATIVE},
    NDJSON: each({"type": "object"}),
    "application/x-www-form-urlencoded": {
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        "example": {"MessageSid": "SM0d8f1c2e", "MessageStatus": "delivered", "To": api.NUMBER, "From": "12345"},
    },
    "application/xml": {"schema": {"type": "string"}},
}
_UNREAD = {
    "Sendable-Unread": {
        "description": "`1`: something in it could not be read; it is kept, and can be replayed",
        "schema": {"type": "string", "const": "1"},
    }
}


def _callback(method: str, *, account: bool) -> Document:
    calls = {"example": "kannel" if method == "get" else "native"}  # of whom the example of the receipt is
    parameters = [_text("gateway", "path", "Which vendor calls", *GATEWAYS, enum=[*GATEWAYS]) | calls]
    if account:
        parameters.append(
            _text(
                "account",
                "path",
                "`[gateways.NAME.accounts.ACCOUNT]` of the settings; of `custom` the NAME of `[gateways.custom.NAME]`",
                "eu",
            )
        )
    if method == "get":
        fields = {"type": "object", "additionalProperties": True}
        parameters.append({
            "name": "fields", "in": "query", "style": "form", "explode": True, "schema": fields, "example": _KANNEL,
            "description": "The receipt, for gateways that call by GET",
        })  # fmt: skip
    parameters.append(_text("X-Sendable-Token", "header", "The secret of a gateway that signs nothing, such as native"))
    committed = "Committed: the body is what this vendor expects; of `custom` the status is, too, as its settings say"
    taken = {"description": committed, "headers": _UNREAD,
             "content": {"text/plain": {"schema": {"type": "string"}}, JSON: {"schema": {}}}}  # fmt: skip
    refused = {
        "401": "The callback shows no credentials, of a vendor that shows them when asked (bandwidth, aws-eum)",
        "403": "The callback does not prove its origin",
        "404": "No such gateway, or it is not configured",
    }
    operation = {
        "operationId": f"{method}Receipts{'OfAccount' if account else ''}",
        "tags": ["receipts"],
        "summary": "A gateway's delivery receipts",
        "description": _SIGNED,
        "security": [],
        "parameters": parameters,
        "responses": {"200": taken} | {status: {"description": why} for status, why in refused.items()},
    }
    if method == "post":
        operation["requestBody"] = {"content": _BODIES, "description": "Up to 8 MiB after decompression (gzip)"}
    return operation


def _consent(*, account: bool) -> Document:
    """The handshake of CloudEvents: its parameters are those of the call that it asks for."""
    asked = _callback("options", account=account)
    asking = [name for name, gateway in GATEWAYS.items() if gateway.consent]
    del asked["responses"]["401"]
    asked["parameters"][0] = _text("gateway", "path", "Which vendor asks", *asking, enum=asking)
    origin = {"type": "string", "example": "eventgrid.azure.net"}
    asked["parameters"].append({
        "name": "WebHook-Request-Origin", "in": "header", "schema": origin, "description": "Who asks",
    })  # fmt: skip
    named = {"description": "May post: the origin that asked", "schema": {"type": "string"}}
    rate = {"description": "How often a minute; `*`: as it likes", "schema": {"type": "string"}}
    consented = _ALLOW | {"WebHook-Allowed-Origin": named, "WebHook-Allowed-Rate": rate}
    asked["responses"]["200"] |= {"description": "Where an origin asked: it may post", "headers": consented}
    asked["description"] = "What CloudEvents ask before they come (azure-acs); every other gateway answers 405."
    return asked | {"summary": "Whether a gateway may post"}


_SENT = {
    JSON: {"schema": {"type": "array", "items": _ref(SentMessage)}, "example": [{
        "gateway": "openmarket", "message_id": "0d8f1c2e", "number": api.NUMBER, "sender": "12345",
        "sent_at": "2026-11-21T18:42:00Z",
    }]},
    NDJSON: each(_ref(SentMessage)),
}  # fmt: skip


# The whole document ------------------------------------------------------------------------------------------------


def install(app: FastAPI) -> None:
    """Complete the document of this app, and serve it as a page."""

    def document() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    @app.exception_handler(405)
    async def not_so(request: Request, _: Exception) -> Response:
        """Routes are matched one by one and each names only its own methods: the document knows all of a path."""
        methods = ", ".join(_methods(document()["paths"], request.url.path))
        return answer(Problem(405, f"this can be asked with {methods}", headers={"Allow": methods}))

    app.openapi = document  # type: ignore[method-assign] # FastAPI's own way to extend it
    app.router.routes += [
        Route("/", _home),
        Route("/docs", _page),
        Route(f"/{_OF_PAGE}", _its_document),
        *(Route(f"/docs/{name}", _asset) for name in _ASSETS),
    ]


def _methods(paths: Document, asked: str) -> list[str]:
    """How this path may be asked; one that is written out comes before a pattern. Pages that are no API are read."""
    if asked in paths:
        return [*map(str.upper, paths[asked])]
    templates = (path for path in paths if compile_path(path)[0].match(asked))
    return next(([*map(str.upper, paths[path])] for path in templates), ["GET", "HEAD"])


def _document(app: FastAPI) -> Document:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS,
    )  # fmt: skip
    number = "/v1/numbers/{number}"  # the main question stands first
    paths = document["paths"] = {
        number: {"get": deepcopy(NUMBER_STATUS), **document["paths"].pop(number)},
        **document["paths"],
    }
    for path, account in (("/v1/receipts/{gateway}", False), ("/v1/receipts/{gateway}/{account}", True)):
        paths[path] = {method: _callback(method, account=account) for method in ("get", "post")}
        paths[path]["options"] = _consent(account=account)
    paths["/v1/messages"]["post"]["requestBody"] = {"required": True, "content": _SENT}
    for path, operation in ((path, operation) for path, methods in paths.items() for operation in methods.values()):
        if app.state.settings.auth == "off":
            operation.pop("security", None)
        _complete(path, operation)
    _, found = models_json_schema(
        [(m, "serialization") for m in _BY_HAND], ref_template=SCHEMAS.format(model="{model}")
    )
    document["components"]["schemas"] |= found["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    _mend_bounds(document)
    return document


def _mend_bounds(part: object) -> None:
    """Where an integer may have 64 bits, generators of clients must be told; and as FastAPI writes the greatest one, as
    a float, it is one more.
    """
    if isinstance(part, dict):
        if part.get("type") == "integer" and part.get("maximum", 0) >= NEWEST:
            part |= {"minimum": int(part["minimum"]), "maximum": NEWEST, "format": "int64"}
            if part.get("default", 0) >= NEWEST:  # JavaScript, and so the page, would send one more
                del part["default"]
        part = [*part.values()]
    for inner in part if isinstance(part, list) else ():
        _mend_bounds(inner)


def _complete(path: str, operation: Document) -> None:
    for parameter in (one for one in operation.get("parameters", ()) if one.get("required")):
        parameter.setdefault("example", parameter["schema"]["examples"][0])  # the page fills in that, and no other
    responses = operation["responses"]
    declared = {int(status) for status in responses if int(status) >= HTTPStatus.BAD_REQUEST}
    for status in sorted(declared | set(_errors(path, operation))):
        said = responses.get(str(status), {}).get("description") if status != _BY_FASTAPI else None
        responses[str(status)] = _problem(status, said, said if status in _ITS_OWN else None)
    if name := _scope(operation):
        lacks = _problem(403, f"The key lacks the scope `{name}`, which this call needs", lacking(name))
        responses["403"] = lacks | {"headers": _CHALLENGE}
    operation["responses"] = dict(sorted(responses.items()))


def _scope(operation: Document) -> str | None:
    """What a key must be made for to ask this; None where none is asked for."""
    return next((name for scheme in operation.get("security", ()) for names in scheme.values() for name in names), None)


# The page ----------------------------------------------------------------------------------------------------------

_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}
_OF_PAGE = "docs/openapi.json"
_FOLDER = files("fastapi_offline") / "static"
_LOOK = {
    "defaultModelsExpandDepth": 0,
    "displayRequestDuration": True,
    "docExpansion": "list",
    "filter": True,
    "persistAuthorization": True,
    "tryItOutEnabled": True,
}


async def _home(_: Request) -> Response:
    """Whoever opens the address that the start prints finds what there is."""
    return RedirectResponse("docs")


async def _page(request: Request) -> Response:
    """Everything beside itself: a proxy may have put a prefix before our paths."""
    return get_swagger_ui_html(
        openapi_url=_OF_PAGE,
        title=f"{request.app.title} API",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
        swagger_ui_parameters=_LOOK,
    )


async def _its_document(request: Request) -> Response:
    """The document, which says besides that what is tried out is asked beside the page, and tells of no keys where
    nobody needs one: the page would show a button for them. Generators of clients, who may read no such address, have
    the whole of it.
    """
    told = {**request.app.openapi(), "servers": [{"url": ".."}]}
    if request.app.state.settings.auth == "off":
        told["components"] = {name: part for name, part in told["components"].items() if name != "securitySchemes"}
    return answers.answer(told)


async def _asset(request: Request) -> Response:
    name = request.url.path.rpartition("/")[2]
    return FileResponse(str(_FOLDER / name), media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})
