"""The API's document says what is true, all of it, and its page needs nobody else."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import jsonschema_rs
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.config import Settings
from app.main import create_app
from app.models import api
from app.models.api.fields import NUMBER, WHEN
from tests.conftest import Service, Start
from tests.running import serving

HOME = Path(__file__).parents[1]
FIRST_KEY = "a-first-key-of-at-least-24-characters"
NO_API = re.compile(r"/|/docs(/.*)?|/openapi.json")
JSON = "application/json"
Document = dict[str, Any]
FILLED = {"number": "+15555551234", "sender": "12345", "list": "spring", "provider": "telnyx", "feed": "generic",
          "id": "1", "space": "openmarket", "code": "3041"}  # fmt: skip


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings(auth="on", gateways={}))


@pytest.fixture(scope="module")
def document(app: FastAPI) -> Document:
    return app.openapi()


def operations(document: Document) -> Iterator[tuple[str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


# Against the running service ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["off", "on"])
async def test_schemathesis_finds_nothing_wrong_in_the_whole_document(
    tmp_path: Path, database_url: str, auth: str
) -> None:
    settings = {"database_url": database_url, "auth": auth, "first_key": FIRST_KEY}
    async with serving(tmp_path / "log", **settings) as served:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"), "run", f"{served.url}/openapi.json",
            "--max-examples=20", "--phases=examples,coverage,fuzzing", "--warnings=off", "--no-color",
            *(["--header", f"Authorization: Bearer {FIRST_KEY}"] if auth == "on" else []),
            cwd=HOME, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert re.search(r"Tested: [1-9]", said.decode())
    assert not re.search(r"\+1\d{10}", (tmp_path / "log").read_text())


# Complete ----------------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_document(app: FastAPI, document: Document) -> None:
    served = set()
    for context in iter_route_contexts(app.routes):
        route = getattr(context, "starlette_route", None) or context
        path = re.sub(r":\w+}", "}", route.path)
        served |= {
            f"{method} {path}" for method in route.methods or () if method != "HEAD" and not NO_API.fullmatch(path)
        }
    assert served == {name for name, _ in operations(document)}


def test_every_call_says_what_it_is_for(document: Document) -> None:
    seen = set()
    known = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= known, name
        assert operation["operationId"] not in seen, name
        seen.add(operation["operationId"])
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] != "path" or parameter.get("description") or parameter["schema"].get("examples"), (
                name
            )


def test_every_error_is_a_problem_and_every_call_names_its_own(document: Document) -> None:
    for name, operation in operations(document):
        responses = operation["responses"]
        errors = {int(status) for status in responses if int(status) >= 400}
        assert errors >= {405, 500, 503}, name
        assert bool(operation.get("security")) == (401 in errors) or "{gateway}" in name
        assert 401 not in errors or 403 in errors, name
        if "requestBody" in operation:
            assert errors >= {400, 408, 413, 422}, name
        for status in errors:
            ((form, shown),) = responses[str(status)]["content"].items()
            assert (form, shown["example"]["title"]) == ("application/problem+json", HTTPStatus(status).phrase), name
        told = {(header, status) for status in errors for header in responses[str(status)].get("headers", ())}
        assert told >= {("Allow", 405), ("Retry-After", 503)}, name
        asked = {status for status in (401, 403) if status in errors and operation.get("security")}
        assert told >= {("WWW-Authenticate", status) for status in asked}, name


def test_no_name_of_a_schema_tells_where_its_code_lies(document: Document) -> None:
    assert [name for name in document["components"]["schemas"] if "__" in name] == []


def test_every_body_and_answer_has_a_schema_in_words_of_openapi_3_1(document: Document) -> None:
    """`itemSchema` is a word of 3.2: by a strict reader of 3.1 the whole document is refused."""
    assert document["openapi"].startswith("3.1.")
    for name, operation in operations(document):
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for form in (form for part in parts for form in part.get("content", {}).values()):
            assert "schema" in form, name
            assert {word for word in form if not word.startswith("x-")} <= {"schema", "example", "examples"}, name


def test_every_reference_leads_somewhere(document: Document) -> None:
    schemas = document["components"]["schemas"]
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))):
        assert name in schemas


def test_every_example_is_one(document: Document) -> None:
    shared = {"components": document["components"]}
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            jsonschema_rs.validate(shared | {"$ref": f"#/components/schemas/{name}"}, example)
    for name, operation in operations(document):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in body:
            jsonschema_rs.validate(shared | body["schema"], body["example"]), name


async def test_every_call_can_be_tried_on_the_page_as_it_stands(service: Service, document: Document) -> None:
    """What it fills in is the example of a parameter, or its default; numbers go through JavaScript, as doubles."""
    refused, schemas = {}, document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            query, sent, filled = {}, {}, path
            for one in operation.get("parameters", ()):
                value = one.get("example", one["schema"].get("default"))
                assert value is not None or not one.get("required"), (method, path, one["name"])
                if one["in"] == "path":
                    filled = filled.replace(f"{{{one['name']}}}", str(value))
                elif isinstance(value, dict):
                    query |= value
                elif one["in"] == "query" and value not in {None, ""}:
                    query[one["name"]] = int(float(value)) if type(value) is int else value
            if shown := next(iter(operation.get("requestBody", {}).get("content", {}).values()), None):
                body = shown["example"] if "example" in shown else filled_in(shown["schema"], schemas)
                sent = {"content": body} if isinstance(body, str) else {"json": body}
            answer = await service.client.request(method, filled, params=query, **sent)
            if not answer.is_success:
                refused[operation["operationId"]] = answer.status_code
    assert refused == {
        "lookUpNumber": 409, "releaseQuarantine": 404, "discardQuarantine": 404, "unreadCallback": 404,
        "getReceiptsOfAccount": 404, "postReceiptsOfAccount": 404, "optionsReceiptsOfAccount": 404,
    }, "only what an empty service does not have"  # fmt: skip


async def test_every_answer_that_is_shown_is_one_that_comes(start: Start, document: Document) -> None:
    """Each stands beside a real one. Those of a whole number and of a report are long stories, and told elsewhere."""
    schemas, compared = document["components"]["schemas"], set()

    def shown(model: str, came: Document) -> None:
        (example,) = schemas[model]["examples"]
        assert untimed(came) == untimed(example), model
        compared.add(model)

    consented = {"consented_at": "2026-03-02T09:15:00Z", "source": "web form"}
    receipt = {"number": NUMBER, "sender": "12345", "status": "undeliverable", "carrier": "T-Mobile USA, Inc."}
    people = "/v1/senders/12345/lists/spring/subscribers"
    async with start(lookup={"providers": ["demo"]}) as asking:
        shown("Subscribed", (await asking.client.put(f"{people}/{NUMBER}", json=consented)).json())
        shown("LookupAnswer", (await asking.client.post(f"/v1/numbers/{NUMBER}/lookup")).json())
        shown("StoredAnswer", (await asking.get("/v1/lookups", number=NUMBER))["items"][0])
    async with start() as service:

        async def post(path: str, said: Any) -> Any:
            answer = await service.client.post(path, json=said)
            return answer.json() if answer.content else None

        async def first(path: str) -> Any:
            return (await service.get(path))["items"][0]

        sent = {"gateway": "native", "message_id": "1", "number": NUMBER, "sender": "12345", "sent_at": WHEN}
        shown("Registered", await post("/v1/messages", [sent]))
        await post("/v1/receipts/native", receipt | {"message_id": "1", "code": "345"})
        shown("HeldNumber", await first("/v1/held"))
        shown("Subscriber", await first(people))
        shown("ListSize", await first("/v1/lists"))
        await post("/v1/held/release", {"number": NUMBER})
        heard = receipt | {"message_id": "0d8f1c2e", "mcc": "310", "mnc": "260", "occurred_at": WHEN}
        await post("/v1/receipts/native", heard | {"code": "3041"})
        shown("StoredReceipt", await first("/v1/receipts"))
        shown("Change", (await service.get("/v1/changes"))["items"][-1] | {"seq": 4711})
        await post("/v1/receipts/native", heard | {"code": "9999"})
        shown("UnknownWord", await first("/v1/codes/unknown"))
        shown("Alarm", await first("/v1/alarms"))
        shown("Code", await service.get("/v1/codes/twilio/21610"))
        await service.client.post("/v1/receipts/native", content="nonsense", headers={"content-type": JSON})
        shown("Unread", await first("/v1/unread"))
        shown("UnreadCallback", await service.get("/v1/unread/1") | {"headers": {"content-type": JSON}})
        await service.client.put(f"{people}/+15555550142", json=consented)
        file = {"content": "15555550142\n15555550177\nnobody\n", "params": {"date": "2026-11-20"}}
        shown("DeactivationOutcome", (await service.client.post("/v1/deactivations/twilio", **file)).json())
        left = (await service.client.delete(f"{people}/+15555550199")).json() | {"number": NUMBER}
        assert untimed(left) == untimed(api.LEFT)
        await post("/v1/receipts/native", [
            receipt | {"message_id": f"m{n}", "number": f"+155555502{n}", "code": "561"} for n in range(10, 61)
        ])  # fmt: skip
        shown("Quarantine", await first("/v1/quarantine"))
    questions = {"Choice", "OfGateway", "UnreadChoice"}
    assert {name for name, schema in schemas.items() if "examples" in schema} == compared | questions | {
        "NumberStatus", "OptOutReport",
    }  # fmt: skip


def untimed(answer: Document) -> Document:
    return json.loads(re.sub(r'"\d{4}-\d\d-\d\dT[\d:.]+Z"', '"a time"', json.dumps(answer)))


def filled_in(schema: Document, shared: Document) -> Any:
    """A body as the page makes it of a schema."""
    schema = shared[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "properties" in schema and "examples" not in schema:
        return {name: filled_in(part, shared) for name, part in schema["properties"].items()}
    return schema["examples"][0] if "examples" in schema else datetime.now(UTC).isoformat()


def test_a_place_in_pages_has_64_bits_and_no_bound_is_beyond_them(document: Document) -> None:
    """Generators of clients take an integer that says nothing for one of 32 bits: there is a change behind those."""
    for name, schema in integers(document):
        assert {type(schema.get(bound, 0)) for bound in ("minimum", "maximum")} == {int}, name
        if name in {"seq", "next", "id", "ids", "after"}:
            assert (schema["format"], schema.get("maximum", 2**63 - 1)) == ("int64", 2**63 - 1), name


def integers(part: Any, name: str = "") -> Iterator[tuple[str, Document]]:
    """Every schema of an integer, with the name of what it is of."""
    if isinstance(part, list):
        for inner in part:
            yield from integers(inner, name)
    elif isinstance(part, dict):
        if part.get("type") == "integer":
            yield name, part
        named = part.get("name") if "in" in part else None
        for key, inner in part.items():
            yield from integers(inner, named or (name if key in {"anyOf", "items"} else key))


def test_the_receipt_routes_are_documented_for_every_gateway(document: Document) -> None:
    for path in ("/v1/receipts/{gateway}", "/v1/receipts/{gateway}/{account}"):
        for operation in (document["paths"][path][method] for method in ("get", "post")):
            gateway = next(one for one in operation["parameters"] if one["name"] == "gateway")
            assert set(gateway["schema"]["enum"]) >= {"openmarket", "native", "twilio", "infobip", "kannel", "jasmin"}
            assert {"200", "403", "404", "503"} <= operation["responses"].keys()
            assert "Sendable-Unread" in operation["responses"]["200"]["headers"]
            assert ("X-Sendable-Token", False) in {
                (one["name"], one.get("required")) for one in operation["parameters"]
            }
            assert not operation["security"]
        assert "413" in document["paths"][path]["post"]["responses"]
        asks = document["paths"][path]["options"]
        assert asks["parameters"][0]["schema"]["enum"] == ["azure-acs"]
        assert {*asks["responses"]["200"]["headers"]} == {"Allow", "WebHook-Allowed-Origin", "WebHook-Allowed-Rate"}
        assert not asks["security"]


def test_with_auth_off_no_key_is_asked_for() -> None:
    open_to_all = create_app(Settings(auth="off")).openapi()
    assert not any(operation.get("security") for _, operation in operations(open_to_all))


@pytest.mark.parametrize("auth", ["off", "on"])
async def test_the_page_has_a_button_for_a_key_where_one_is_asked_for(start: Start, auth: str) -> None:
    """The document tells how a key is shown in any case."""
    async with start(auth=auth) as service:
        of_page, whole = [
            (await service.client.get(path)).json()["components"] for path in ("/docs/openapi.json", "/openapi.json")
        ]
    assert ("securitySchemes" in of_page, "securitySchemes" in whole) == (auth == "on", True)
    assert of_page["schemas"] == whole["schemas"]


# The edge ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v2", 404, None),
        ("PUT", "/v1/numbers/+15555551234", 405, {"GET", "DELETE"}),
        ("PUT", "/v1/numbers/status", 405, {"POST"}),
        ("POST", "/v1/senders/12345/lists/spring/subscribers/+15555551234", 405, {"PUT", "DELETE"}),
        ("PATCH", "/v1/receipts/native", 405, {"GET", "POST", "OPTIONS"}),
        ("POST", "/docs", 405, {"GET", "HEAD"}),
    ],
)
async def test_what_is_not_there_is_a_problem_too(
    service: Service, method: str, path: str, status: int, allow: set[str] | None
) -> None:
    answer = await service.client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert allow is None or set(answer.headers["allow"].split(", ")) == allow


async def test_a_parameter_that_no_call_has_is_refused_and_nothing_is_done(service: Service) -> None:
    """A question whose sender or filter is misspelt is another question; a file whose dry run is, would be taken in."""
    number, body = "/v1/numbers/+15555551234", {"consented_at": "2026-01-02T03:04:05Z", "source": "form"}
    subscriber = "/v1/senders/12345/lists/spring/subscribers/+15555551234"
    assert (await service.client.put(subscriber, json=body)).status_code == 200
    for path, methods in service.app.openapi()["paths"].items():
        if not path.startswith("/v1/") or "{gateway}" in path:
            continue
        plain = re.sub(r"\{(\w+)\}", lambda found: FILLED[found[1]], path)
        for method, operation in methods.items():
            answer = await service.client.request(method, plain, params={"sende": "12345", "dryrun": "true"})
            named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            assert (method, path, answer.status_code) == (method, path, 422)
            assert [error["parameter"] for error in answer.json()["errors"]] == ["sende", "dryrun"]
            assert answer.json()["detail"].endswith(f"there are {', '.join(named)}" if named else "it takes none")
    told = (await service.client.get(number, params={"sender": "12345", "list": "spring"})).json()
    assert told["decision"]["sendable"] is True


@pytest.mark.parametrize("address", ["http://test", "http://test/"])
async def test_whoever_opens_the_address_of_the_service_finds_the_page(service: Service, address: str) -> None:
    page = await service.client.get(address, follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/docs")


@pytest.mark.parametrize("before", ["", "/sms"])
async def test_the_page_takes_everything_from_here_whatever_a_proxy_has_before_it(
    service: Service, before: str
) -> None:
    page = await service.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"""["'(](?:https?:)?//[^"')]+""", page.text)
    links = set(re.findall(r"""(?:src=|href=|url: )["']([^"']+)["']""", page.text))
    assert len(links) == 4
    for link in links:
        path = urljoin(f"{before}/docs", link)
        assert path.startswith(f"{before}/")
        asset = await service.client.get(path.removeprefix(before))
        assert asset.status_code == 200, path
        assert asset.content
    (document,) = (urljoin(f"{before}/docs", link) for link in links if link.endswith(".json"))
    told = (await service.client.get(document.removeprefix(before))).json()
    assert [urljoin(document, server["url"]) for server in told.pop("servers")] == [f"{before}/"]
    whole = (await service.client.get("/openapi.json")).json()
    del whole["components"]["securitySchemes"]  # no key is asked for here
    assert told == whole
