"""What the settings leave out, and the room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from app.config import Settings
from app.gateways import GATEWAYS
from app.services.doctor import lookups
from app.services.doctor.finding import Finding

ROOM_LEAST = 2 * 1024**3
"""Bytes that must be free where the embedded PostgreSQL lives: its write-ahead log alone may take this much."""


def of_settings(settings: Settings) -> Iterator[Finding]:
    """What the settings leave out. What is wrong in them has stopped us before this."""
    if settings.auth == "off":
        yield Finding("note", "auth", "off: whoever reaches this address may do everything", "set SENDABLE_AUTH=on")
    links = settings.links()
    for (name, account), link in links.items():
        for_accounts = not account and any(of == name and other.secrets for (of, _), other in links.items())
        about = link.table
        if settings.auth == "on" and not link.secrets and not for_accounts:
            yield Finding("wrong", about, "has no secret, so it is answered 404", f"give it `secrets` under [{about}]")
        if link.code_space is None and name in GATEWAYS and "code_space" in GATEWAYS[name].hint:
            yield Finding("note", about, "its codes mean nothing yet", "say whose codes they are: `code_space = …`")
    if settings.auth == "on" and not any(link.secrets for link in links.values()):
        mend = (
            "give one a secret: [gateways.NAME] in the file that SENDABLE_CONFIG names; "
            "a service of `make run` takes all, since it has SENDABLE_AUTH=off: give that here, too"
        )
        yield Finding("wrong", "gateways", "no gateway can post receipts", mend)
    yield from lookups.of_settings(settings.lookup)


def of_disk(folder: Path) -> Finding:
    """The room where the embedded PostgreSQL lives."""
    free = shutil.disk_usage(folder).free
    says = f"{free / 1024**3:.1f} GiB free where PostgreSQL lives"
    if free < ROOM_LEAST:
        return Finding("wrong", "disk", says, f"make room in {folder}")
    return Finding("ok", "disk", says)
