"""Requests that the vendors' own libraries have signed: each is accepted, and refused when one bit of it is another.

The libraries run in environments of their own (`signer.py`, `older_signer.py`). What a signature covers stands in WAYS;
a bit that leaves every value as it was (the case of a percent escape's hex) changes nothing, and nothing is made of it.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
import pytest
from msgspec.structs import replace

from app.gateways import GATEWAYS, prove
from app.models.receipt import Callback, Link
from tests.real.programs import environment

REQUESTS = 2_000
FLIPS = 8
"""Bits that are changed, one at a time, in each covered part of each request."""

LETTERS = "abcXYZ019 -_.~&=+%/?:;,#|@é€ñ😀\u0000\u200b\n\r\t'\"\\<>()[]"
ASCII = "".join(filter(str.isascii, LETTERS))
HOSTS = ("dlr.example.net", "dlr.example.net:8443", "dlr.example.net:443", "127.0.0.1:80", "a.b:1")

Asked = dict[str, Any]
Signer = Callable[[Asked], dict[str, Any]]


def word(random: Random, letters: str = LETTERS, most: int = 12) -> str:
    return "".join(random.choices(letters, k=random.randint(0, most)))


def name(random: Random) -> str:
    return "".join(random.choices("abcdefXYZ0123-_", k=random.randint(1, 9)))


def pairs(random: Random, letters: str = LETTERS, *, repeated: bool = False) -> list[tuple[str, str]]:
    """Names and values; values may be empty, and names come again where a vendor repeats them."""
    some = [(name(random), word(random, letters)) for _ in range(random.randint(1, 9))]
    if repeated:
        return some + [(random.choice(some)[0], word(random, letters)) for _ in range(random.randint(0, 3))]
    return list(dict(some).items())


def url(random: Random, letters: str = LETTERS, *, asked: bool = True) -> str:
    query = f"?{urlencode(pairs(random, letters))}" if asked and random.random() < 0.5 else ""
    return f"{random.choice(('https', 'http'))}://{random.choice(HOSTS)}/v1/receipts/{name(random)}{query}"


def any_request(random: Random) -> Asked:
    return {
        "secret": f"s{name(random)}", "nonce": name(random), "url": url(random), "pairs": pairs(random, repeated=True),
        "method": random.choice(("GET", "POST")), "ascii": random.random() < 0.5,
    }  # fmt: skip


def posted(_: Random) -> Asked:
    return {"method": "POST"}


def by_twilio(random: Random) -> Asked:
    return {"port": random.choice(("as it is", "bare", "with a port")), "key": f"kid{name(random)}"}


def by_vonage(random: Random) -> Asked:
    """Its library of now knows four of its five methods; the older one has the fifth, MD5 with the secret behind."""
    some = pairs(random)
    how = random.choice(("query", "form", "json"))
    return {
        "how": how, "method": "GET" if how == "query" else "POST", "url": url(random, asked=False),
        "method_of_account": random.choice(("md5", "sha1", "sha256", "sha512")),
        "pairs": [pair for pair in some if pair[0] not in {"sig", "timestamp", "nonce", "token"}],
        "named": random.choice(("", "md5hash:")),
    }  # fmt: skip


def by_telesign(random: Random) -> Asked:
    """A secret may fix the customer, who is signed by nobody."""
    customer = f"C{name(random)}"
    return {"method": "POST", "customer": customer, "fixed": random.choice(("", f"{customer}:"))}


def by_plivo(random: Random) -> Asked:
    """Its library reads letters beyond ASCII in a query as Latin-1."""
    asked = url(random, ASCII)
    method = random.choice(("GET", "POST")) if "?" in asked else "POST"
    return {"url": asked, "method": method, "whose": random.choice(("", "ma-"))}


def by_messagebird(random: Random) -> Asked:
    return {"url": url(random, asked=False), "algorithm": random.choice(("HS256", "HS384", "HS512"))}


def to_the_letter(_: Callback, __: Asked) -> object:
    """What is signed is the bytes: no other ones count as the same."""
    return object()


def by_pairs(callback: Callback, asked: Asked) -> object:
    """Twilio: a form by its values, each once; the URL, without its port if the signature leaves that out."""
    where = re.sub(r"^(https?://[^/:]+):\d+", r"\1", callback.url) if asked["port"] == "bare" else callback.url
    return where, set(_pairs(callback.body.decode("latin-1"))), dict(callback.headers)


def by_parameters(callback: Callback, _: Asked) -> object:
    """Vonage: what the parameters say, wherever they stand; `sig` is hex in any case."""
    if callback.headers.get("content-type") == "application/json":
        try:
            said = orjson.loads(callback.body)
        except orjson.JSONDecodeError:
            return object()
    else:
        said = dict(_pairs(callback.query or callback.body.decode("latin-1")))
    return {key: value.lower() if key == "sig" else value for key, value in said.items()}


def by_values(callback: Callback, _: Asked) -> object:
    """Plivo V3: query and form by name and value."""
    base, question, query = callback.url.partition("?")
    said = sorted(_pairs(query)), sorted(_pairs(callback.body.decode("latin-1")))
    return base, question, said, dict(callback.headers)


def by_query(callback: Callback, _: Asked) -> object:
    """MessageBird's HMAC: the query by name and value."""
    return sorted(_pairs(callback.query)), callback.body, dict(callback.headers)


def by_signature(callback: Callback, _: Asked) -> object:
    """Telnyx: a signature's last letter in base64 has four bits that say nothing."""
    try:
        signature = b64decode(callback.headers["telnyx-signature-ed25519"], validate=True)
    except ValueError:
        return object()
    return callback.body, callback.headers["telnyx-timestamp"], signature


def _pairs(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, errors="surrogateescape")


def by_customer(callback: Callback, asked: Asked) -> object:
    """Telesign: the customer before the signature counts only where the secret names it."""
    who, _, signed = callback.headers["authorization"].rpartition(":")
    return (who.partition(" ")[0], asked["fixed"] and who, signed)


@dataclass(frozen=True, slots=True)
class Way:
    """What is drawn for it, the parts that its signature covers, what of them counts, and who signs."""

    gateway: str
    covered: tuple[str, ...]
    draw: Callable[[Random], Asked] = posted
    counts: Callable[[Callback, Asked], object] = to_the_letter
    configured: str = "{secret}"
    signer: str = "signer"


TWILIO = ("url", "body", "x-twilio-signature")
WAYS = {
    "twilio": Way("twilio", TWILIO, by_twilio, by_pairs),
    "twilio, a shared key": Way(
        "twilio", (*TWILIO, "x-twilio-webhooks-signature-settings"), by_twilio, by_pairs, "{key}:{secret}"
    ),
    "twilio, a JSON body": Way("twilio", TWILIO),
    "vonage-sms": Way("vonage-sms", ("query", "body"), by_vonage, by_parameters, "{method_of_account}:{secret}"),
    "vonage-messages": Way("vonage-messages", ("body", "token")),
    "plivo, V3": Way(
        "plivo", ("url", "body", "x-plivo-signature-{whose}v3", "x-plivo-signature-v3-nonce"), by_plivo, by_values
    ),
    "plivo, V2": Way("plivo", ("base", "x-plivo-signature-{whose}v2", "x-plivo-signature-v2-nonce"), by_plivo),
    "messagebird, a token": Way("messagebird", ("url", "body", "messagebird-signature-jwt"), by_messagebird),
    "messagebird, an HMAC": Way(
        "messagebird", ("query", "body", "messagebird-signature", "messagebird-request-timestamp"), by_messagebird,
        by_query,
    ),
    "sinch": Way("sinch", (
        "body", "x-sinch-webhook-signature", "x-sinch-webhook-signature-nonce", "x-sinch-webhook-signature-timestamp",
        "x-sinch-webhook-signature-algorithm",
    )),
    "bird": Way("bird", ("body", "webhook-id", "webhook-timestamp", "webhook-signature")),
    "vonage-sms, MD5 and the secret": Way(
        "vonage-sms", ("query", "body"), by_vonage, by_parameters, "{named}{secret}", "older_signer"
    ),
    "telesign": Way("telesign", ("body", "authorization"), by_telesign, by_customer, signer="older_signer"),
    "telnyx": Way("telnyx", ("body", "telnyx-signature-ed25519", "telnyx-timestamp"), counts=by_signature),
}  # fmt: skip


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def signer(way: str) -> Iterator[Signer]:
    """The vendors' libraries, in a process that answers line by line."""
    program = Path(__file__).with_name(f"{WAYS[way].signer}.py")
    with subprocess.Popen(
        [environment(f"{program.stem}s"), program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout

        def sign(asked: Asked) -> dict[str, Any]:
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, f"the signer ended over {asked}"
            signed = json.loads(line)
            assert "error" not in signed, signed["error"]
            return signed

        yield sign
        process.stdin.close()


def test_what_the_vendors_library_signed_is_accepted_and_with_one_bit_changed_refused(way: str, signer: Signer):
    random, how = Random(way), WAYS[way]  # noqa: S311 - requests are drawn, no secrets
    refused = dict.fromkeys(how.covered, 0)
    gateway = GATEWAYS[how.gateway]
    for _ in range(REQUESTS):  # each with a time of its own: some libraries hold it against the clock of this machine
        asked = {"way": way, "at": int(time.time())} | any_request(random) | how.draw(random)
        callback, link = received(asked, signer(asked), how)
        assert prove(gateway, callback, link), (asked, callback)
        counts = how.counts(callback, asked)
        for part in how.covered:
            for changed in flipped(random, callback, part.format(**asked)):
                if prove(gateway, changed, link):
                    assert how.counts(changed, asked) == counts, (part, asked, callback, changed)
                else:
                    refused[part] += 1
    assert min(refused.values()) > REQUESTS / 3, "a part that was never there was not tried"


def received(asked: Asked, signed: dict[str, Any], how: Way) -> tuple[Callback, Link]:
    where = signed["url"]
    callback = Callback(
        asked["method"], where, signed["headers"], where.partition("?")[2], signed["body"].encode(),
        datetime.fromtimestamp(asked["at"], UTC),
    )  # fmt: skip
    secret = signed.get("secret") or how.configured.format(**asked)
    return callback, Link(how.gateway, secrets=(secret,))


def flipped(random: Random, callback: Callback, part: str) -> Iterator[Callback]:
    """The request with one bit of this part changed, several times over; a part that is empty has none."""
    base, question, query = callback.url.partition("?")
    for _ in range(FLIPS):
        if part == "body" and callback.body:
            yield replace(callback, body=flip(random, callback.body))
        elif part == "url":
            yield called(callback, bent(random, callback.url))
        elif part == "base":
            yield called(callback, bent(random, base) + question + query)
        elif part == "query" and query:
            yield called(callback, f"{base}?{bent(random, query)}")
        elif part == "token":
            scheme, _, token = callback.header("authorization").partition(" ")
            yield headed(callback, "authorization", f"{scheme} {bent(random, token)}")
        elif part in callback.headers:
            yield headed(callback, part, bent(random, callback.header(part)))


def called(callback: Callback, where: str) -> Callback:
    return replace(callback, url=where, query=where.partition("?")[2])


def headed(callback: Callback, header: str, value: str) -> Callback:
    return replace(callback, headers={**callback.headers, header: value})


def flip(random: Random, text: bytes) -> bytes:
    place = random.randrange(len(text))
    return text[:place] + bytes([text[place] ^ 1 << random.randrange(8)]) + text[place + 1 :]


def bent(random: Random, text: str) -> str:
    return flip(random, text.encode("latin-1")).decode("latin-1")
