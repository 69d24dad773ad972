"""A receipt as it arrived, purely: what it was taken for, and the key that recognises its repetitions."""

from __future__ import annotations

import hashlib
from datetime import datetime
from uuid import UUID

from asyncpg.pgproto import pgproto
from msgspec.structs import astuple

from app.models.receipt import FAILED, Receipt
from app.services.decide import reason_of
from app.services.meaning import Meaning
from app.services.store import Arrival


def arrival(receipt: Receipt, arrived: datetime, meaning: Meaning) -> Arrival:
    """A receipt as the tables understand its code and its carrier, whether it acts or not."""
    code = meaning.catalogue.find(receipt.code_space, receipt.code)
    brand = meaning.carriers.name(receipt.carrier, receipt.number) if receipt.carrier else None
    if brand is None and receipt.mcc:
        brand = meaning.carriers.by_network(receipt.mcc, receipt.mnc)
    failed = receipt.status in FAILED
    reason = reason_of(receipt, code) if failed else None
    unmapped = failed and code is None and receipt.code is not None
    return Arrival(receipt, key_of(receipt), arrived, reason, brand, unmapped, code.code if code else None)


def key_of(receipt: Receipt) -> UUID:
    """What recognises a repetition: never the time, but for a receipt without a message id, which has nothing else."""
    r = receipt
    if r.message_id is None:
        known = "\x1f".join(map(str, astuple(r)))
    else:
        known = f"{r.gateway}\x1f{r.account}\x1f{r.message_id}\x1f{r.number}\x1f{r.segment}\x1f{r.status}\x1f{r.code}"
    # The driver's own class: equal to the standard one, and made in an eighth of its time.
    key: UUID = pgproto.UUID(hashlib.blake2b(known.encode(), digest_size=16).digest())
    return key
