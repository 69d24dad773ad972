"""Kannel, by the template that Sendable asks for: a GET of which every name is ours. Seen with Kannel 1.4.5.

    ?id=YOUR-ID&st=%d&a=%A&fid=%F&to=%p&from=%P&smsc=%i&ts=%T&token=SECRET

`%I` is no message id: it is new in every receipt. `%p` is the handset and `%P` is us, the other way round than in
sending. Only 200 and 202 are taken for success, and by default nothing is ever sent again.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from app.gateways import _verify
from app.gateways._fields import Unreadable, count, first, form, moment, need, plus
from app.gateways._smpp import COMMAND_SPACE, STAT, Report, cause, command_status, report
from app.gateways._words import RECEIPT_TEXT
from app.models.receipt import Broken, Callback, Gateway, Receipt, Status

DELIVERED, FAILED, BUFFERED, TAKEN, REFUSED, INTERMEDIATE = 1, 2, 4, 8, 16, 32
EXPIRED = FAILED | INTERMEDIATE
"""How an expiry comes when the receipt has its state as a TLV; as text it is FAILED with `stat:EXPIRED`."""

FAILURES = frozenset({Status.EXPIRED, Status.REJECTED, Status.UNDELIVERABLE, Status.UNKNOWN})
_NACK = re.compile(r"NACK/0x([0-9a-f]{1,8})(?:/|$)", re.IGNORECASE)
_META_ERR = re.compile(r"dlr_err=([^&]*)")


def parse(callback: Callback) -> list[Receipt | Broken]:
    said = form(callback)
    bits = count(need(said, "st", "status"))
    if bits is None:
        raise Unreadable("st is no number: the template wants st=%d")
    answer = said.get("a", "")
    text = report(answer)
    became = status(bits, text.stat)
    code, space = _cause(became, answer, text, said.get("meta", ""))
    return [
        Receipt(
            message_id=first(said, "id", "uuid", "fid"),
            status=became,
            word=text.stat or f"st={bits}",
            number=_address(said.get("to", "")),
            sender=_address(said.get("from", "")),
            code=code,
            code_space=space,
            # Kannel's own clock, in UTC. The receipt's dates name no zone and serve only where `ts` is missing.
            occurred_at=moment(first(said, "ts")) or text.ended(became),
            sent_at=text.submitted,
        )
    ]


def status(bits: int, stat: str | None) -> Status:
    """`%d` is a set of bits. A failure's kind stands in the text alone: EXPIRED, REJECTD and UNKNOWN all are FAILED."""
    if not 0 < bits < 2 * INTERMEDIATE:
        return Status.UNKNOWN
    if bits & DELIVERED:
        return Status.DELIVERED
    if bits & REFUSED:
        return Status.REJECTED
    if bits & EXPIRED == EXPIRED:
        return Status.EXPIRED
    if bits & FAILED:
        told = STAT.get(stat or "", Status.UNDELIVERABLE)
        return told if told in FAILURES else Status.UNDELIVERABLE
    return Status.SENT


def _cause(became: Status, answer: str, text: Report, meta: str) -> tuple[str | None, str | None]:
    """`err` of the text, whole; a refusal's SMPP answer; else the TLV in `%D`, which beside a text is cut to three."""
    if refused := _NACK.match(answer):
        return command_status(int(refused[1], 16)), COMMAND_SPACE
    return cause(became, text.stat, text.err or (None if answer else _meta_err(meta)))


def _meta_err(meta: str) -> str | None:
    """`?smpp?dlr_err=%03%0B%E1&`: one byte of network type and two of the code, escaped twice."""
    found = _META_ERR.search(meta)
    tlv = unquote_to_bytes(found[1].replace("+", " ")) if found else b""
    return str(int.from_bytes(tlv[1:])) if len(tlv) == 3 and any(tlv[1:]) else None  # noqa: PLR2004


def _address(number: str) -> str:
    """A number exactly as it was given to sendsms: `+1…`, `001…` or bare digits.

    From twelve digits on they are international: no national number is that long without its leading 0.
    """
    return plus(number) or "" if re.fullmatch(r"00[1-9][0-9]{6,}|[1-9][0-9]{11,14}", number) else number


gateway = Gateway(
    name="kannel",
    docs="https://www.kannel.org/download/1.4.5/userguide-1.4.5/userguide.html",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    hint="set `code_space` to the space of your carrier's `err` codes: without it they are kept, and act on nobody",
    words=frozenset({RECEIPT_TEXT}),
)
