"""Signs requests as the vendors do, by their own libraries: run by the Python of an environment that holds them.

What is asked and answered stands in `line_by_line.py`. What a library can check itself it has checked here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from line_by_line import FORM, JSON, Asked, Signed, Ways, answer_all, by_vonage
from messagebird.request_validator import RequestValidator as MessageBirdValidator
from messagebird.signed_request import SignedRequest
from plivo.utils import validate_signature as plivo_takes_v2
from plivo.utils.signature_v3 import construct_get_url, construct_post_url, get_signature_v3
from sinch.domains.authentication.sinch_events.v1 import authentication_validation as sinch
from standardwebhooks import Webhook
from twilio.request_validator import HMAC_SHA1, HMAC_SHA256, RequestValidator, add_port, remove_port
from vonage_http_client.auth import Auth
from vonage_jwt.verify_jwt import verify_signature as vonage_takes

warnings.simplefilter("ignore")  # of keys that are short, and of a way of MessageBird that is deprecated and still met


class Values(dict[str, list[str]]):
    """Names with all their values, as Django hands them to Twilio's library."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def values(pairs: Iterable[tuple[str, str]]) -> Values:
    found = Values()
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def twilio(asked: Asked) -> Signed:
    return _twilio(asked, HMAC_SHA1, {})


def twilio_shared_key(asked: Asked) -> Signed:
    settings = f"key={asked['key']},algorithm={HMAC_SHA256}"
    return _twilio(asked, HMAC_SHA256, {"x-twilio-webhooks-signature-settings": settings})


def _twilio(asked: Asked, algorithm: str, more: dict[str, str]) -> Signed:
    url, form = asked["url"], asked["method"] == "POST"
    covered = {"as it is": url, "bare": remove_port(urlsplit(url)), "with a port": add_port(urlsplit(url))}[
        asked["port"]
    ]
    params = values(asked["pairs"]) if form else Values()
    made = RequestValidator(asked["secret"]).compute_signature(covered, params, algorithm)
    headers = more | {"x-twilio-signature": made}
    return {"url": url, "headers": headers | (FORM if form else {}), "body": urlencode(asked["pairs"]) if form else ""}


def twilio_json(asked: Asked) -> Signed:
    body = as_json(asked)
    url = f"{asked['url']}{'&' if '?' in asked['url'] else '?'}bodySHA256={sha256(body)}"
    made = RequestValidator(asked["secret"]).compute_signature(url, {})
    assert RequestValidator(asked["secret"]).validate(url, body, made)
    return {"url": url, "headers": JSON | {"x-twilio-signature": made}, "body": body}


def vonage_sms(asked: Asked) -> Signed:
    params = dict(asked["pairs"]) | {"timestamp": str(asked["at"]), "nonce": asked["nonce"]}
    auth = Auth(api_key="key", signature_secret=asked["secret"], signature_method=asked["method_of_account"])
    params["sig"] = auth.sign_params(dict(params))
    assert auth.check_signature(dict(params))
    return by_vonage(asked, params)


def vonage_messages(asked: Asked) -> Signed:
    body = as_json(asked)
    claims = {
        "iat": asked["at"],
        "jti": asked["nonce"],
        "iss": "Vonage",
        "payload_hash": sha256(body),
        "api_key": "key",
    }
    token = jwt.encode(claims, asked["secret"], algorithm="HS256")
    assert vonage_takes(token, asked["secret"])
    return {"url": asked["url"], "headers": JSON | {"authorization": f"Bearer {token}"}, "body": body}


def plivo_v3(asked: Asked) -> Signed:
    url, nonce, post = asked["url"], asked["nonce"], asked["method"] == "POST"
    pairs = asked["pairs"] if post else []
    covered = construct_post_url(url, dict(values(pairs))) if post else construct_get_url(url, {})
    made = get_signature_v3(asked["secret"].encode(), covered.decode(), nonce).decode()
    headers = {f"x-plivo-signature-{asked['whose']}v3": made, "x-plivo-signature-v3-nonce": nonce}
    return {"url": url, "headers": headers | (FORM if post else {}), "body": urlencode(pairs)}


def plivo_v2(asked: Asked) -> Signed:
    """The library checks V2 only: what it takes is found by its own formula, and it takes it."""
    nonce, base = asked["nonce"], asked["url"].partition("?")[0]
    made = _base64(hmac.digest(asked["secret"].encode(), (base + nonce).encode(), "sha256"))
    assert plivo_takes_v2(asked["url"], nonce, made, asked["secret"])
    headers = {f"x-plivo-signature-{asked['whose']}v2": made, "x-plivo-signature-v2-nonce": nonce}
    return {"url": asked["url"], "headers": headers | FORM, "body": urlencode(asked["pairs"])}


def messagebird_token(asked: Asked) -> Signed:
    url, at = f"{asked['url']}?{urlencode(asked['pairs'])}", asked["at"]
    body = as_json(asked) if asked["method"] == "POST" else ""
    claims = {"iss": "MessageBird", "nbf": at, "exp": at + 60, "jti": asked["nonce"], "url_hash": sha256(url)}
    if body:
        claims["payload_hash"] = sha256(body)
    token = jwt.encode(claims, asked["secret"], algorithm=asked["algorithm"])
    MessageBirdValidator(asked["secret"]).validate_signature(token, url, body.encode())
    return {"url": url, "headers": {"messagebird-signature-jwt": token}, "body": body}


def messagebird_hmac(asked: Asked) -> Signed:
    query, at = urlencode(asked["pairs"]), str(asked["at"])
    body = as_json(asked) if asked["method"] == "POST" else ""
    named = dict(values(parse_qsl(query, keep_blank_values=True)))
    bare = SignedRequest("", at, body.encode().decode("latin-1"), named)
    made = _base64(hmac.digest(asked["secret"].encode(), bare._build_payload().encode("latin-1"), "sha256"))
    assert SignedRequest(made, at, body.encode().decode("latin-1"), named).verify(asked["secret"])
    headers = {"messagebird-signature": made, "messagebird-request-timestamp": at}
    return {"url": f"{asked['url']}?{query}", "headers": headers, "body": body}


def sinch_events(asked: Asked) -> Signed:
    body, at = as_json(asked), str(asked["at"])
    data = sinch.compute_signed_data(body, asked["nonce"], at)
    headers = {
        "x-sinch-webhook-signature": sinch.calculate_sinch_event_signature(data, asked["secret"]),
        "x-sinch-webhook-signature-nonce": asked["nonce"],
        "x-sinch-webhook-signature-timestamp": at,
        "x-sinch-webhook-signature-algorithm": "HmacSHA256",
    }
    assert sinch.validate_sinch_event_signature_with_nonce(asked["secret"], headers, body)
    return {"url": asked["url"], "headers": JSON | headers, "body": body}


def bird(asked: Asked) -> Signed:
    """Bird names the specification that it signs by, and its own library only checks."""
    body, name = as_json(asked), asked["nonce"]
    secret = f"whsec_{_base64(asked['secret'].encode())}"
    made = Webhook(secret).sign(name, datetime.fromtimestamp(asked["at"], UTC), body)
    headers = {"webhook-id": name, "webhook-timestamp": str(asked["at"]), "webhook-signature": made}
    Webhook(secret).verify(body, headers)
    return {"url": asked["url"], "headers": JSON | headers, "body": body, "secret": secret}


def telnyx(asked: Asked) -> Signed:
    """The key is made of the secret; what we are configured with is its public half."""
    body, at = as_json(asked), str(asked["at"])
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(asked["secret"].encode()).digest())
    made = _base64(key.sign(f"{at}|{body}".encode()))
    public = _base64(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    headers = {"telnyx-signature-ed25519": made, "telnyx-timestamp": at}
    return {"url": asked["url"], "headers": JSON | headers, "body": body, "secret": public}


def as_json(asked: Asked) -> str:
    return json.dumps(dict(asked["pairs"]), ensure_ascii=asked["ascii"])


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _base64(signature: bytes) -> str:
    return base64.b64encode(signature).decode()


WAYS: Ways = {
    "twilio": twilio, "twilio, a shared key": twilio_shared_key, "twilio, a JSON body": twilio_json,
    "vonage-sms": vonage_sms, "vonage-messages": vonage_messages, "plivo, V3": plivo_v3, "plivo, V2": plivo_v2,
    "messagebird, a token": messagebird_token, "messagebird, an HMAC": messagebird_hmac, "sinch": sinch_events,
    "bird": bird, "telnyx": telnyx,
}  # fmt: skip


if __name__ == "__main__":
    answer_all(WAYS)
