"""OpenMarket (now Infobip): v3 XML, v4 JSON and v4 XML. One receipt a request, one request a part of a message.

No number in v3: the sent-message register knows it by the ticket. Nothing is signed. The member names of v4 could not
be verified, so one tolerant reader serves all three.
"""

from __future__ import annotations

from app.gateways import _fields, _verify
from app.gateways._fields import Said, Unreadable, bare, batch, count, first, form, moment, origin, part, plus, text
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Reply, Status

SPACE = "openmarket"

# One number is both status and cause (OpenMarket, delivery-receipt codes of v3 and v4). What is in progress, delivered
# or expired stands here by name; REJECTED are the ranges that speak of our request, account, sender or content, and of
# 341, which the SMPP variant of the platform reports as REJECTD. With any other code the message did not arrive.
ON_ITS_WAY = {
    0: Status.SENT,  # the operator has it; the last word for landlines
    1: Status.ACCEPTED,
    2: Status.ACCEPTED,
    3: Status.SENT,
    5: Status.SENT,
    831: Status.ACCEPTED,
    2013: Status.ACCEPTED,
    4: Status.DELIVERED,
    811: Status.EXPIRED,
    2011: Status.EXPIRED,
}
REJECTED = (
    range(300, 400), range(420, 500), range(562, 565), range(570, 573), range(577, 581), range(594, 595),
    range(601, 602), range(800, 801), range(802, 804), range(1001, 1002), range(2000, 2200), range(4000, 4100),
)  # fmt: skip
ABOUT_THE_NUMBER = frozenset({345, 349, 351, 352, 2015, 2019, 2021, 2023, 2024, 2028, 2035, 2054, 4012, 4052})
ABOUT_THE_NETWORK = frozenset({374, 2016, 2017, 2027, 2045})
NOT_REJECTED = ABOUT_THE_NUMBER | ABOUT_THE_NETWORK
"""Codes inside those ranges that speak of something else."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    body = form(callback)["xml"].encode() if _is_form(callback) else bare(callback)
    is_json = body[:1] in (b"{", b"[")
    return batch(_fields.json(body) if is_json else _fields.said_by(_fields.xml(body)), receipt)


def _is_form(callback: Callback) -> bool:
    """As v3 posts what people write, and nothing else."""
    return callback.body.startswith(b"xml=")


def receipt(said: Said) -> Receipt | Inbound:
    if said.get("type") == "deliver" or "mobileOriginate" in said:  # a person's message, in v3 and in v4
        return Inbound()
    said = part(said, "deliveryReceipt") or said  # in JSON perhaps under the name that XML's root has
    message, to = part(said, "message"), part(said, "destination")
    code = _code(said)
    return Receipt(
        # The sender of a long message knows the id that it got when it sent: the parent's. Each part has a ticket too.
        message_id=first(said, "parentTicketId", "ticketId", "requestId"),
        status=status(code),
        word=code,
        number=plus(first(to, "address")),
        sender=origin(first(part(said, "source"), "address")),
        code=code,
        code_space=SPACE,
        segment=count(said.get("segmentNumber") or message.get("segmentNumber")),
        segments=count(said.get("totalSegments") or message.get("totalSegments")),
        occurred_at=moment(said.get("deliveryDate") or message.get("deliveryDate")),
    )


def _code(said: Said) -> str:
    for place in (said, *(part(said, name) for name in ("response", "status", "state"))):
        if (code := text(place.get("code"))) is not None:
            return code
    raise Unreadable("no result code")


def status(code: str) -> Status:
    """The status that a result code alone tells. A code that is no number is nobody's: unknown."""
    if not (code.isascii() and code.isdigit()):
        return Status.UNKNOWN
    number = int(code)
    if number in ON_ITS_WAY:
        return ON_ITS_WAY[number]
    if number not in NOT_REJECTED and any(number in codes for codes in REJECTED):
        return Status.REJECTED
    return Status.UNDELIVERABLE


def reply(callback: Callback) -> Reply:
    """v3 takes a 200 with `OK` alone for success, v4 an empty one; also for what we could not read."""
    return Reply(body=b"OK") if _is_v3(callback) else Reply()


def _is_v3(callback: Callback) -> bool:
    if callback.header("x-api-version"):  # v4 always sends it: `X-API-Version: 4`
        return False
    is_xml = callback.header("content-type").lower().startswith("text/xml")
    return is_xml or _is_form(callback) or b"<deliveryReceipt" in callback.body[:4096]


gateway = Gateway(
    name="openmarket",
    docs="https://www.openmarket.com/docs/Content/apis/v4http/receive-delivery-json.htm",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    reply=reply,
    code_space=SPACE,
    hint="v3 receipts carry no number: post what you send to /v1/messages",
    words=frozenset({"content", "xml"}),
)
