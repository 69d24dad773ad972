"""Infobip's delivery reports: up to 2,000 a request, JSON or XML, of the present and the older API.

The Messages API, one for all channels, writes `destination` for `to` and names the channel. What a chat says of a
person says nothing of the number for SMS: it is answered, and not taken.

Read the status by group *and* id: id 2 stands in the group DELIVERED but only says that the operator has it, and id 87
stands in two groups.
"""

from __future__ import annotations

import orjson
from lxml import etree

from app.gateways import _fields, _verify
from app.gateways._fields import Said, Unreadable, batch, count, each, first, is_xml, moment, origin, part, plus
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

ERRORS, STATUSES = "infobip_error", "infobip_status"

# infobip.com/docs/essentials/api-essentials/response-status-and-error-codes
GROUPS = {
    0: Status.ACCEPTED,
    1: Status.SENT,
    2: Status.UNDELIVERABLE,
    3: Status.DELIVERED,
    4: Status.EXPIRED,
    5: Status.REJECTED,
}
NAMES = {"OK": 0, "ACCEPTED": 0, "PENDING": 1, "UNDELIVERABLE": 2, "DELIVERED": 3, "EXPIRED": 4, "REJECTED": 5}
IDS = {
    (1, 26): Status.ACCEPTED,  # PENDING_ACCEPTED: not forwarded yet
    (2, 4): Status.REJECTED,  # REJECTED_OPERATOR
    (3, 2): Status.SENT,  # DELIVERED_TO_OPERATOR: more may follow
    (4, 29): Status.UNKNOWN,  # EXPIRED_DLR_UNKNOWN: no report ever came
    (4, 87): Status.REJECTED,  # SIGNALS_BLOCKED
}
FINE = frozenset({Status.ACCEPTED, Status.SENT, Status.DELIVERED})
SMS, PHONES, DELIVERY = "SMS", frozenset({"SMS", "MMS", "RCS"}), "DELIVERY"

# The vendor's page says that a profile may sign with an HMAC, not in which header nor over what: these are guesses.
SIGNED_IN = ("x-infobip-signature", "x-hub-signature-256", "x-hub-signature", "x-signature")


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    if is_xml(callback):
        return each(map(_fields.said_by, _results(callback)), report)
    said = _fields.json(callback.body)
    return batch(said.get("results", said) if isinstance(said, dict) else said, report)


def report(said: Said) -> Receipt | Inbound:
    if "status" not in said and "receivedAt" in said:  # of a person: it has words, and was received
        return Inbound()
    channel = (first(said, "channel") or SMS).upper()
    if channel not in PHONES or (first(said, "event") or DELIVERY) != DELIVERY:  # a chat; or that it was seen
        return Inbound()
    became = status(part(said, "status"))
    code, space = cause(became, part(said, "status"), part(said, "error"))
    network = first(said, "mccMnc") or ""
    return Receipt(
        message_id=first(said, "messageId"),
        status=became,
        word=_word(part(said, "status")),
        number=plus(first(said, "to", "destination")),
        sender=origin(first(said, "sender", "from")),
        code=code,
        code_space=space if channel == SMS else None,  # that a handset takes no MMS says nothing about SMS
        mcc=network[:3],
        mnc=network[3:],
        segments=count(said.get("messageCount") or said.get("smsCount")),
        occurred_at=moment(said.get("doneAt")),
        sent_at=moment(said.get("sentAt")),
    )


def _word(said: Said) -> str | None:
    """A status that stands in no table; id 29 does: there no report ever came."""
    told = [first(said, name) for name in ("groupId", "groupName", "id", "name")]
    return None if told[2] == "29" else "/".join(filter(None, told))


def status(said: Said) -> Status:
    group = count(said.get("groupId"))
    if group is None:
        group = NAMES.get((first(said, "groupName") or "").upper())
    if not said:
        raise Unreadable("no status")
    if group is None:
        return Status.UNKNOWN
    return IDS.get((group, count(said.get("id")) or 0)) or GROUPS.get(group, Status.UNKNOWN)


def cause(became: Status, status: Said, error: Said) -> tuple[str | None, str | None]:
    """The error's id; where it is 0 (none), a refusal is told by the status's own id (no credit, blocklisted)."""
    for said, space in ((error, ERRORS), (status, STATUSES)):
        code = first(said, "id")
        if code and code.strip("0"):
            return code, space
        if became in FINE:
            break
    return None, None


def _results(callback: Callback) -> list[etree._Element]:
    found = _fields.outermost(_fields.xml(callback.body), "result")
    if not found:
        raise Unreadable("no result")
    return found


def split(callback: Callback) -> list[bytes]:
    if is_xml(callback):
        return [etree.tostring(one, with_tail=False) for one in _results(callback)]
    said = _fields.loads(callback.body)
    said = said.get("results", said) if isinstance(said, dict) else said
    return [orjson.dumps(one) for one in said] if isinstance(said, list) else [callback.body]


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """As the notification profile has it: Basic, our token as an extra header or in the URL, or an HMAC of the body."""
    return True in [_verify.token(callback, secret, link), _verify.body_hmac(callback, secret, SIGNED_IN)]


gateway = Gateway(
    name="infobip",
    docs="https://www.infobip.com/docs/api/channels/sms/sms-messaging/logs-and-status-reports/receive-outbound-sms-message-reports-v3",
    parse=parse,
    verify=verify,
    sign=_verify.sign_basic,
    hint="Basic authentication in the notification profile: any user, the secret as password",
    split=split,
    words=frozenset({"text", "cleantext"}),
)
