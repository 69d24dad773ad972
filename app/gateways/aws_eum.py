"""AWS End User Messaging SMS: its events, through an SNS topic (signed, or raw), or from EventBridge.

Every topic of Amazon is signed by the same certificates, so a signature proves nothing until the topic is one of ours.
A secret is therefore either the ARN of our topic, and then SNS's signature must be right, or a token in the URL.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from app.gateways import _fields, _verify
from app.gateways._fields import Said, Unreadable, an_object, count, first, moment, need
from app.models.receipt import FAILED, Broken, Callback, Gateway, Inbound, Link, Receipt, Status

# docs.aws.amazon.com/sms-voice/latest/userguide/configuration-sets-event-types.html
STATUS = {
    "TEXT_QUEUED": Status.ACCEPTED,
    "TEXT_PENDING": Status.SENT,
    "TEXT_SENT": Status.SENT,
    "TEXT_SUCCESSFUL": Status.SENT,  # taken by the carrier; where that is final, no more will come
    "TEXT_DELIVERED": Status.DELIVERED,
    "TEXT_BLOCKED": Status.UNDELIVERABLE,
    "TEXT_INVALID": Status.UNDELIVERABLE,
    "TEXT_CARRIER_UNREACHABLE": Status.UNDELIVERABLE,
    "TEXT_UNREACHABLE": Status.UNDELIVERABLE,
    "TEXT_TTL_EXPIRED": Status.EXPIRED,
    "TEXT_CARRIER_BLOCKED": Status.REJECTED,
    "TEXT_SPAM": Status.REJECTED,
    "TEXT_INVALID_MESSAGE": Status.REJECTED,
    "TEXT_PROTECT_BLOCKED": Status.REJECTED,
    "TEXT_UNKNOWN": Status.UNKNOWN,
}
# The same of an MMS, and what is wrong with its file.
STATUS |= {kind.replace("TEXT_", "MEDIA_"): became for kind, became in STATUS.items()}
STATUS |= {f"MEDIA_FILE_{wrong}": Status.REJECTED for wrong in ("INACCESSIBLE", "TYPE_UNSUPPORTED", "SIZE_EXCEEDED")}
# docs.aws.amazon.com/sms-voice/latest/userguide/rcs-events.html, and the EventType of its API
STATUS |= {
    "RCS_QUEUED": Status.ACCEPTED,
    "RCS_PENDING": Status.SENT,
    "RCS_SENT": Status.SENT,
    "RCS_FALLEN_BACK_TO_SMS": Status.SENT,
    "RCS_DELIVERED": Status.DELIVERED,
    "RCS_READ": Status.DELIVERED,
    "RCS_FAILED": Status.UNDELIVERABLE,
    "RCS_UNDELIVERABLE": Status.UNDELIVERABLE,
    "RCS_TTL_EXPIRED": Status.EXPIRED,
    "RCS_PROTECT_BLOCKED": Status.REJECTED,
    "RCS_REJECTED": Status.REJECTED,
}
NO_MESSAGE = frozenset({"messageBody", "registrationDetails"})
FINE = frozenset({Status.ACCEPTED, Status.SENT, Status.DELIVERED})

NOTIFICATION, CONFIRMATION = "Notification", "SubscriptionConfirmation"
HANDSHAKE = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
# docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html: these, in this order; Subject if there is one
SIGNED = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    CONFIRMATION: HANDSHAKE,
    "UnsubscribeConfirmation": HANDSHAKE,
}
HASHES: Mapping[str, type[HashAlgorithm]] = {"1": SHA1, "2": SHA256}
HOST = re.compile(r"sns\.[a-z0-9-]{3,}\.amazonaws\.com(?:\.cn)?")
"""Where SNS answers, and where its certificates lie."""

REPEATED = timedelta(hours=1)
"""How long SNS may repeat a message, signed when it was new: 3,600 s at most, says its page on retries."""


# What it says ------------------------------------------------------------------------------------------------------


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = an_object(_fields.json(callback.body))
    if _is_envelope(said):
        if said["Type"] != NOTIFICATION:
            return []
        said = an_object(_fields.json(need(said, "Message").encode()))
    event = said.get("detail", said)  # EventBridge puts the event under `detail`
    if _is_of_no_message(event):
        return [Inbound()]
    kind = _kind(an_object(event))
    return [Inbound() if kind.startswith("VOICE_") else receipt(an_object(event), kind)]


def _is_of_no_message(event: object) -> bool:
    """What has no event type: a two-way message, where its topic is the one of the receipts, or how far a registration
    is, where a rule of EventBridge passes on all that the service tells.
    """
    return isinstance(event, dict) and "eventType" not in event and not NO_MESSAGE.isdisjoint(event)


def _kind(event: Said) -> str:
    """The type. That an RCS message came is also the type of those that did not: there `messageStatus` says it."""
    kind = need(event, "eventType")
    return f"RCS_{first(event, 'messageStatus') or 'DELIVERED'}" if kind == "RCS_DELIVERED" else kind


def receipt(event: Said, kind: str) -> Receipt:
    became = status(kind, event.get("isFinal"))
    return Receipt(
        message_id=need(event, "messageId"),
        status=became,
        word=None if kind in STATUS else kind,
        number=first(event, "destinationPhoneNumber"),
        sender=first(event, "originationPhoneNumber"),
        code=None if became in FINE else kind,  # there are no numbers: the type is the code
        code_space="aws_eum_sms",
        carrier=first(event, "carrierName"),
        mcc=first(event, "mcc"),
        mnc=first(event, "mnc"),
        segments=count(event.get("totalMessageParts")),
        occurred_at=moment(event.get("eventTimestamp")),
        sent_at=moment(event.get("messageRequestTimestamp")),
    )


def status(kind: str, final: object) -> Status:
    """`isFinal` is to be trusted: a failure that is not final may still be followed by an arrival."""
    became = STATUS.get(kind, Status.UNKNOWN)
    if kind.endswith("_SUCCESSFUL") and final is True:
        return Status.DELIVERED
    return Status.SENT if final is False and became in FAILED else became


def _is_envelope(said: Said) -> bool:
    return said.get("Type") in SIGNED and "TopicArn" in said


# Whom it comes from ------------------------------------------------------------------------------------------------


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """A secret that is the ARN of a topic asks for SNS's signature; any other is our token."""
    if not secret.startswith("arn:"):
        return _verify.token(callback, secret, link)
    said = _envelope(callback)
    ours = _verify.same(need(said, "TopicArn").encode(), secret)
    timely = _verify.timely(said.get("Timestamp"), callback, link, late=REPEATED)
    return ours and timely and _is_signed(said, callback)


def challenge(callback: Callback, link: Link) -> str | None:
    """SNS sends the credentials of an endpoint's URL only after a 401 (its page on HTTPS endpoints). Where a topic is
    configured it signs and sends none, so nothing is gained by asking.
    """
    signs = any(secret.startswith("arn:") for secret in link.secrets)
    return None if signs else _verify.challenge(callback, link)


def sign(callback: Callback, secret: str, link: Link) -> Callback | None:
    """With our token. What SNS signs for a topic, Amazon alone can."""
    return None if secret.startswith("arn:") else _verify.sign_token(callback, secret, link)


def _envelope(callback: Callback) -> Said:
    said = an_object(_fields.json(callback.body))
    if not _is_envelope(said):
        raise Unreadable("not from SNS, or delivered raw")
    return said


def _is_signed(said: Said, callback: Callback) -> bool:
    """Against the certificate that was fetched from the address that `certificate` gave, and from no other."""
    found = x509.load_pem_x509_certificate(callback.certificate)
    key = found.public_key()
    if (
        not isinstance(key, rsa.RSAPublicKey)
        or not found.not_valid_before_utc <= callback.at <= found.not_valid_after_utc
    ):
        return False
    lines = [
        f"{name}\n{need(said, name)}\n" for name in SIGNED[need(said, "Type")] if name != "Subject" or said.get(name)
    ]
    signature = base64.b64decode(need(said, "Signature"), validate=True)
    try:
        key.verify(signature, "".join(lines).encode(), padding.PKCS1v15(), HASHES[need(said, "SignatureVersion")]())
    except InvalidSignature:
        return False
    return True


def certificate(callback: Callback, link: Link) -> str | None:
    """Where the certificate of its signature lies. Nobody is asked for one unless the topic is ours."""
    said = _envelope(callback)
    url = first(said, "SigningCertURL", "SigningCertUrl") or ""
    ours = True in [_verify.same(need(said, "TopicArn").encode(), secret) for secret in link.secrets]
    return url if ours and _is_amazons(url) and re.fullmatch(r"/[\w-]+\.pem", urlsplit(url).path) else None


def confirmation(callback: Callback) -> str | None:
    """What to call so that the subscription starts: an address of SNS, for the topic and the token that it named."""
    said = _envelope(callback)
    url = first(said, "SubscribeURL") or ""
    if said["Type"] != CONFIRMATION or not _is_amazons(url) or urlsplit(url).path not in {"", "/"}:
        return None
    wanted = {"Action": ["ConfirmSubscription"], "TopicArn": [need(said, "TopicArn")], "Token": [need(said, "Token")]}
    return url if parse_qs(urlsplit(url).query) == wanted else None


def _is_amazons(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and HOST.fullmatch(parts.netloc) is not None and not parts.fragment


gateway = Gateway(
    name="aws-eum",
    docs="https://docs.aws.amazon.com/sms-voice/latest/userguide/configuration-sets-event-format.html",
    parse=parse,
    verify=verify,
    challenge=challenge,
    sign=sign,
    code_space="aws_eum_sms",
    hint="secrets = the ARN of your SNS topic (signed), or a token that stands in the URL (raw delivery)",
    certificate=certificate,
    confirmation=confirmation,
    words=frozenset({"messagebody"}),
)
