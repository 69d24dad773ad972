"""How each of six gateways writes a receipt down, as their own pages say, and not as our parsers read it."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlencode

from app.cli.demo.day import Day, Subscriber, Told
from app.models.receipt import Link, Status

BATCHES = {"infobip": 100, "native": 50}
"""How many receipts a request brings at most."""
REGISTERED = frozenset({"openmarket", "jasmin"})
"""Gateways whose receipts may name no number."""
AT_ONCE = 1_000
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Post(NamedTuple):
    """One request. `told`: how many receipts it brings; `unread`: how many things that nobody can read."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes
    told: int = 0
    unread: int = 0


class Wire(NamedTuple):
    """Where the service listens, and what it knows each gateway by."""

    base: str
    links: Mapping[str, Link]

    def link(self, gateway: str) -> Link:
        return self.links.get(gateway) or Link(gateway)

    def code(self, told: Told) -> str | None:
        """The code as it is kept: what the link's settings make of what Jasmin has cut."""
        written = err(told)
        return self.link(told.gateway).codes.get(written, written) if written else None


# The day in requests -----------------------------------------------------------------------------------------------


def opt_ins(subscribers: Iterable[Subscriber]) -> Iterator[Post]:
    for person in subscribers:
        body = {"consented_at": person.consented_at.isoformat(), "source": "web form"}
        for sender, name in person.lists:
            path = f"/v1/senders/{sender}/lists/{name}/subscribers/{person.number}"
            yield Post("PUT", path, JSON, json.dumps(body).encode())


def sent_messages(day: Day, *, late: bool) -> Iterator[Post]:
    """The register: what was sent by gateways whose receipts name no number. `late`: what it hears of afterwards."""
    carriers = {person.number: person.carrier for person in day.subscribers}
    sent = {
        told.message_id: told for told in day.due
        if told.gateway in REGISTERED and (told.message_id in day.late) == late
    }  # fmt: skip
    entries = [_entry(told, carriers[told.number]) for told in sent.values()]
    for start in range(0, len(entries), AT_ONCE):
        yield _register(entries[start : start + AT_ONCE])


def _entry(told: Told, carrier: str) -> dict[str, str]:
    return {
        "gateway": told.gateway, "message_id": told.message_id, "number": told.number, "sender": told.sender,
        "carrier": carrier, "sent_at": told.sent_at.isoformat(),
    }  # fmt: skip


def _register(entries: Sequence[Mapping[str, str]]) -> Post:
    return Post("POST", "/v1/messages", JSON, json.dumps(entries).encode(), told=len(entries))


def receipts(day: Day, wire: Wire) -> list[Post]:
    """All but the story's, in order of arrival, with what nobody can read strewn in."""
    waiting: dict[str, list[Told]] = {gateway: [] for gateway in BATCHES}
    posts: list[Post] = []
    for told in day.due:
        group = waiting.setdefault(told.gateway, [])
        group.append(told)
        if len(group) >= _size(told.gateway, len(posts)):
            posts.append(written(group, wire))
            waiting[told.gateway] = []
    posts += [written(group, wire) for group in waiting.values() if group]
    strewn = [*unreadable(day, wire)]
    for place, post in enumerate(strewn, start=1):
        posts.insert(place * len(posts) // (len(strewn) + 1), post)
    return posts


def story(day: Day, wire: Wire) -> Iterator[Post]:
    """The one number's day in order, each message registered when it is sent."""
    for step in day.story:
        if isinstance(step, Subscriber):
            yield from opt_ins([step])
            continue
        if step.gateway in REGISTERED:
            yield _register([_entry(step, day.subscribers[0].carrier)])
        yield written([step], wire)


def _size(gateway: str, turn: int) -> int:
    """Batches of all sizes, some of one."""
    most = BATCHES.get(gateway, 1)
    return 1 + turn * 7 % most


def written(group: Sequence[Told], wire: Wire) -> Post:
    """The request in which a gateway posts these receipts."""
    return WRITERS[group[0].gateway](group, wire)._replace(told=len(group))


# Vendors -----------------------------------------------------------------------------------------------------------


def err(told: Told) -> str | None:
    """The code as written. Jasmin cuts it to three characters."""
    return told.code[:3] if told.code and told.gateway == "jasmin" else told.code


def _post(gateway: str, headers: Mapping[str, str], content: bytes, wire: Wire) -> Post:
    secrets = wire.link(gateway).secrets
    token = {"x-sendable-token": secrets[0]} if secrets else {}
    return Post("POST", f"/v1/receipts/{gateway}", {**headers, **token}, content)


def _zulu(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _openmarket(group: Sequence[Told], wire: Wire) -> Post:
    (told,) = group
    if told.form == "v3":
        xml = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<deliveryReceipt ticketId="{told.message_id}">'
            f'<response code="{told.code}"/><message deliveryDate="{_zulu(told.at)}"/></deliveryReceipt>'
        )
        return _post("openmarket", {"content-type": "text/xml; charset=UTF-8"}, xml.encode(), wire)
    body = {
        "ticketId": told.message_id, "status": {"code": int(told.code or 0)}, "deliveryDate": _zulu(told.at),
        "destination": {"address": told.number[1:]}, "source": {"address": told.sender},
    }  # fmt: skip
    return _post("openmarket", JSON | {"x-api-version": "4"}, json.dumps(body).encode(), wire)


def _native(group: Sequence[Told], wire: Wire) -> Post:
    said = [
        {"message_id": told.message_id, "number": told.number, "sender": told.sender, "status": told.status.value,
         "occurred_at": told.at.isoformat(), "sent_at": told.sent_at.isoformat()}
        | ({"code": told.code} if told.code else {})
        for told in group
    ]  # fmt: skip
    if len(said) == 1:
        return _post("native", JSON, json.dumps(said[0]).encode(), wire)
    if len(said) % 2:
        lines = "\n".join(map(json.dumps, said))
        return _post("native", {"content-type": "application/x-ndjson"}, lines.encode(), wire)
    return _post("native", JSON, json.dumps(said).encode(), wire)


_INFOBIP = {
    Status.DELIVERED: (3, "DELIVERED", 5),
    Status.SENT: (1, "PENDING", 7),
    Status.UNDELIVERABLE: (2, "UNDELIVERABLE", 9),
    Status.EXPIRED: (4, "EXPIRED", 15),
    Status.REJECTED: (5, "REJECTED", 11),
}


def _infobip(group: Sequence[Told], wire: Wire) -> Post:
    return _post("infobip", JSON, json.dumps({"results": [*map(_report, group)]}).encode(), wire)


def _report(told: Told) -> dict[str, object]:
    """A failure's code is the error's id; what expired has none, and its status says it."""
    name = _INFOBIP[told.status]
    failed = told.code and told.status is not Status.EXPIRED
    return {
        "messageId": told.message_id, "to": told.number[1:], "sender": told.sender, "messageCount": 1,
        "sentAt": _zulu(told.sent_at).replace("Z", "+0000"), "doneAt": _zulu(told.at).replace("Z", "+0000"),
        "status": {"groupId": name[0], "groupName": name[1], "id": name[2]},
        "error": {"id": int(told.code or 0) if failed else 0},
    }  # fmt: skip


_TWILIO = {
    Status.DELIVERED: "delivered",
    Status.SENT: "sent",
    Status.UNDELIVERABLE: "undelivered",
    Status.REJECTED: "failed",
}


def _twilio(group: Sequence[Told], wire: Wire) -> Post:
    (told,) = group
    form = {
        "AccountSid": "AC00000000000000000000000000000000", "From": told.sender, "MessageSid": told.message_id,
        "MessageStatus": _TWILIO[told.status], "SmsSid": told.message_id, "SmsStatus": _TWILIO[told.status],
        "To": told.number, "RawDlrDoneDate": f"{told.at:%y%m%d%H%M}",
    }  # fmt: skip
    return _signed(form | ({"ErrorCode": told.code} if told.code else {}), wire)


def _signed(form: Mapping[str, str], wire: Wire) -> Post:
    """Twilio's signature: HMAC-SHA1, keyed by the auth token, of the URL and then each name and value, in order."""
    path, link = "/v1/receipts/twilio", wire.link("twilio")
    text = (link.public_url or wire.base) + path + "".join(name + form[name] for name in sorted(form))
    made = [b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode() for secret in link.secrets[:1]]
    headers = FORM | {"x-twilio-signature": made[0]} if made else FORM
    return Post("POST", path, headers, urlencode(form).encode())


_STAT = {
    Status.DELIVERED: "DELIVRD", Status.UNDELIVERABLE: "UNDELIV", Status.EXPIRED: "EXPIRED", Status.REJECTED: "REJECTD",
}  # fmt: skip


def _kannel(group: Sequence[Told], wire: Wire) -> Post:
    """The template's bits: 1 delivered, 2 failed, 8 taken by the message centre, which says `ACK/`."""
    (told,) = group
    bits, answer, fid = {Status.DELIVERED: "1", Status.SENT: "8"}.get(told.status, "2"), "ACK/", told.message_id[:10]
    if told.status is not Status.SENT:
        dates = f"submit date:{told.sent_at:%y%m%d%H%M} done date:{told.at:%y%m%d%H%M}"
        answer = f"id:{fid} sub:001 dlvrd:001 {dates} stat:{_STAT[told.status]} err:{told.code or '000'} text:"
    return _get_kannel(
        {"id": told.message_id, "st": bits, "a": answer, "fid": fid, "to": told.number, "from": told.sender,
         "smsc": "smsc1", "ts": str(int(told.at.timestamp()))}, wire,
    )  # fmt: skip


def _get_kannel(query: Mapping[str, str], wire: Wire) -> Post:
    post = _post("kannel", {}, b"", wire)
    return post._replace(method="GET", path=f"{post.path}?{urlencode(query)}")


def _jasmin(group: Sequence[Told], wire: Wire) -> Post:
    (told,) = group
    form = {"id": told.message_id, "message_status": "ESME_ROK", "level": "1", "connector": "smppc1"}
    if told.status is not Status.SENT:
        form |= {
            "level": "2", "message_status": _STAT[told.status], "err": err(told) or "000", "sub": "001", "dlvrd": "001",
            "subdate": f"{told.sent_at:%y%m%d%H%M}", "donedate": f"{told.at:%y%m%d%H%M}",
        }  # fmt: skip
    return _post("jasmin", FORM, urlencode(form).encode(), wire)


WRITERS: Mapping[str, Callable[[Sequence[Told], Wire], Post]] = {
    "openmarket": _openmarket, "native": _native, "infobip": _infobip, "twilio": _twilio, "kannel": _kannel,
    "jasmin": _jasmin,
}  # fmt: skip


# What nobody can read ----------------------------------------------------------------------------------------------


def unreadable(day: Day, wire: Wire) -> Iterator[Post]:
    """Seven things that came in place of receipts; on a large day more than once, never twice the same."""
    for turn in range(1 + len(day.told) // 10_000):
        mark = f"{day.mark}-{turn}"
        for post in (
            _post("native", JSON, f'{{"message_id": "{mark}", "number": "+1415555'.encode(), wire),
            _post("native", JSON, json.dumps({"message_id": mark, "number": "+14155550100"}).encode(), wire),
            _post("openmarket", JSON, f"<html><body>502 Bad Gateway {mark}</body></html>".encode(), wire),
            _post(
                "infobip",
                JSON,
                json.dumps({"results": [{"messageId": mark, "to": "1500", "status": {}}]}).encode(),
                wire,
            ),
            _signed({"SmsStatus": "failed", "AccountSid": f"AC{mark}", "ErrorCode": "30003"}, wire),
            _get_kannel({"id": mark, "st": "%d", "a": "%A", "to": "%p"}, wire),
            _post("jasmin", FORM, urlencode({"id": mark, "level": "1"}).encode(), wire),
        ):
            yield post._replace(unread=1)
