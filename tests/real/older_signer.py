"""As `signer.py`, for what another environment holds: Vonage's library of before version 4, and Telesign's."""

from __future__ import annotations

import base64
import hmac
import json
import warnings

import vonage
from line_by_line import JSON, Asked, Signed, answer_all, by_vonage
from telesign.util import verify_telesign_callback_signature as telesign_takes

warnings.simplefilter("ignore")  # Vonage's library of then is no longer kept


def vonage_sms(asked: Asked) -> Signed:
    """MD5 of the parameters with the secret behind: no HMAC, and the account's default."""
    params = dict(asked["pairs"]) | {"timestamp": str(asked["at"]), "nonce": asked["nonce"]}
    client = vonage.Client(key="key", secret=asked["secret"], signature_secret=asked["secret"], signature_method=None)
    params["sig"] = client.signature(dict(params))
    assert client.check_signature(dict(params))
    return by_vonage(asked, params)


def telesign(asked: Asked) -> Signed:
    """The library checks callbacks only: what it takes is made by its own formula, and it takes it."""
    body = json.dumps(dict(asked["pairs"]), ensure_ascii=asked["ascii"])
    key = base64.b64encode(asked["secret"].encode()).decode()
    made = base64.b64encode(hmac.digest(base64.b64decode(key), body.encode(), "sha256")).decode()
    assert telesign_takes(key, made, body)
    assert not telesign_takes(key, made, body + " ")
    headers = {"authorization": f"TSA {asked['customer']}:{made}", "x-ts-authorization": made}
    return {"url": asked["url"], "headers": JSON | headers, "body": body, "secret": asked["fixed"] + key}


WAYS = {"vonage-sms, MD5 and the secret": vonage_sms, "telesign": telesign}


if __name__ == "__main__":
    answer_all(WAYS)
