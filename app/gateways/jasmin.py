"""Jasmin's DLR thrower (seen with 0.11.0): GET or POST form, one status a request, no number, no sender, no carrier.

Its `err` is cut to three characters, so 3041 arrives as 304. It is kept as received; the link's `codes` setting says
what a cut code really is. Messages of people, which its other thrower sends, have no `message_status`.
"""

from __future__ import annotations

from app.gateways import _verify
from app.gateways._fields import form, need
from app.gateways._smpp import COMMAND_SPACE, STAT, cause, command_status, error, local_time, some
from app.gateways._words import RECEIPT_TEXT
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Reply, Status

ACCEPTED_BY_CENTRE = "ESME_ROK"

# SMPP 3.4, 5.1.3: what the centre answered to submit_sm, by the names that Jasmin writes.
ESME = {
    "ESME_RINVMSGLEN": 0x01, "ESME_RINVCMDLEN": 0x02, "ESME_RINVCMDID": 0x03, "ESME_RINVBNDSTS": 0x04,
    "ESME_RALYBND": 0x05, "ESME_RINVPRTFLG": 0x06, "ESME_RINVREGDLVFLG": 0x07, "ESME_RSYSERR": 0x08,
    "ESME_RINVSRCADR": 0x0A, "ESME_RINVDSTADR": 0x0B, "ESME_RINVMSGID": 0x0C, "ESME_RBINDFAIL": 0x0D,
    "ESME_RINVPASWD": 0x0E, "ESME_RINVSYSID": 0x0F, "ESME_RCANCELFAIL": 0x11, "ESME_RREPLACEFAIL": 0x13,
    "ESME_RMSGQFUL": 0x14, "ESME_RINVSERTYP": 0x15, "ESME_RINVNUMDESTS": 0x33, "ESME_RINVDLNAME": 0x34,
    "ESME_RINVDESTFLAG": 0x40, "ESME_RINVSUBREP": 0x42, "ESME_RINVESMCLASS": 0x43, "ESME_RCNTSUBDL": 0x44,
    "ESME_RSUBMITFAIL": 0x45, "ESME_RINVSRCTON": 0x48, "ESME_RINVSRCNPI": 0x49, "ESME_RINVDSTTON": 0x50,
    "ESME_RINVDSTNPI": 0x51, "ESME_RINVSYSTYP": 0x53, "ESME_RINVREPFLAG": 0x54, "ESME_RINVNUMMSGS": 0x55,
    "ESME_RTHROTTLED": 0x58, "ESME_RINVSCHED": 0x61, "ESME_RINVEXPIRY": 0x62, "ESME_RINVDFTMSGID": 0x63,
    "ESME_RX_T_APPN": 0x64, "ESME_RX_P_APPN": 0x65, "ESME_RX_R_APPN": 0x66, "ESME_RQUERYFAIL": 0x67,
    "ESME_RINVOPTPARSTREAM": 0xC0, "ESME_ROPTPARNOTALLWD": 0xC1, "ESME_RINVPARLEN": 0xC2,
    "ESME_RMISSINGOPTPARAM": 0xC3, "ESME_RINVOPTPARAMVAL": 0xC4, "ESME_RDELIVERYFAILURE": 0xFE,
    "ESME_RUNKNOWNERR": 0xFF,
}  # fmt: skip


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = form(callback)
    if "message_status" not in said and "origin-connector" in said:
        return [Inbound()]
    word = need(said, "message_status").upper()
    became = status(word)
    code, space = _cause(became, word, error(said.get("err")))
    return [
        Receipt(
            message_id=need(said, "id"),  # the UUID that /send answered
            status=became,
            word=word,
            code=code,
            code_space=space,
            occurred_at=local_time(some(said.get("donedate")), became),
            sent_at=local_time(some(said.get("subdate"))),
        )
    ]


def status(word: str) -> Status:
    """By the word, never by `level`: fixtures show level 1 with DELIVRD. UNKNOWN is not final: DELIVRD may follow."""
    if word.startswith("ESME_"):
        return Status.SENT if word == ACCEPTED_BY_CENTRE else Status.REJECTED
    return STAT.get(word, Status.UNKNOWN)


def _cause(became: Status, word: str, err: str | None) -> tuple[str | None, str | None]:
    if word.startswith("ESME_") and became is Status.REJECTED:
        return (command_status(ESME[word]) if word in ESME else word), COMMAND_SPACE
    return cause(became, word, err)


gateway = Gateway(
    name="jasmin",
    docs="https://docs.jasminsms.com/en/latest/apis/http/index.html",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    reply=lambda _: Reply(body=b"ACK/Jasmin"),  # anything else is sent again, whatever the status
    hint="receipts carry no number: post what you send to /v1/messages; set `code_space` to your carrier's",
    words=frozenset({"text", "content", "binary", RECEIPT_TEXT}),
)
