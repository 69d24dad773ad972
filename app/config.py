"""Settings: one frozen value, read once. Environment first (`SENDABLE_*`), then the file that SENDABLE_CONFIG names.

Whatever is wrong stops the start with one line that says which key, and how to mend it.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator

from app.models.database_url import database_url
from app.models.number import Scope
from app.models.phone import REGIONS, sender_id
from app.models.policy import Mode
from app.models.receipt import Link
from app.models.settings import (
    Duration,
    FeedsTable,
    GatewaysTable,
    GatewayTable,
    LinkTable,
    LookupTable,
    PolicyTable,
    RndTable,
    SenderTable,
    Table,
)


class SettingsError(ValueError):
    """One line: which setting is wrong, and how to mend it."""


SHORTEST_KEY = 24
"""Characters."""
_FOREIGN = ("SENDABLE_TEST_", "SENDABLE_SERVICE_", "SENDABLE_PORT_")
"""Names that others put there: the tests, and Kubernetes for a service called `sendable`."""
_OF_KUBERNETES = ("tcp://", "udp://", "sctp://")
"""How begins what it puts under one of our own names, SENDABLE_PORT."""


class Settings(Table):
    """Everything that can be set. `policy_file` is SENDABLE_POLICY; `lookup` present: lookups are to be made."""

    database_url: SecretStr | None = None
    data_dir: Path = Path(".sendable")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    auth: Literal["on", "off"] = "on"
    policy_file: Path | None = None
    first_key: SecretStr | None = None
    region: str = "US"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    receipts_kept: Duration = timedelta(days=90)
    changes_kept: Duration = timedelta(days=5 * 365)
    policy: PolicyTable = PolicyTable()
    gateways: GatewaysTable = GatewaysTable()
    senders: dict[str, SenderTable] = Field(default_factory=dict)
    lookup: LookupTable | None = None
    rnd: RndTable | None = None
    feeds: FeedsTable = FeedsTable()

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        return SecretStr(database_url(url.get_secret_value().strip()))

    @field_validator("host")
    @classmethod
    def _named(cls, host: str) -> str:
        """To the system an empty one is every address there is."""
        if not host.strip():
            raise ValueError("must name an address: 127.0.0.1, or 0.0.0.0 for all of this machine")
        return host

    @field_validator("first_key")
    @classmethod
    def _long(cls, key: SecretStr | None) -> SecretStr | None:
        """Without the blanks around it, which no header can carry."""
        if not key:
            return None
        bare = key.get_secret_value().strip()
        if len(bare) < SHORTEST_KEY:
            raise ValueError(f"is too short to be a key: use at least {SHORTEST_KEY} random characters")
        if not bare.isascii() or not bare.isprintable():
            raise ValueError("cannot stand in a request: write it in ASCII, in one line")
        return SecretStr(bare)

    @field_validator("receipts_kept", "changes_kept")
    @classmethod
    def _a_day_at_least(cls, kept: timedelta) -> timedelta:
        if kept < timedelta(days=1):
            raise ValueError("must be at least 1d: what is older is deleted for good")
        return kept

    @field_validator("region")
    @classmethod
    def _known_region(cls, region: str) -> str:
        if region not in REGIONS:
            raise ValueError('is no region that has phone numbers: write its two letters, for example "US"')
        return region

    @field_validator("senders")
    @classmethod
    def _sender_names(cls, senders: dict[str, SenderTable], read: ValidationInfo) -> dict[str, SenderTable]:
        found = {sender_id(name, read.data.get("region", "US")): table for name, table in senders.items()}
        if len(found) < len(senders):
            raise ValueError("names one sender twice, in two spellings: keep one table for each")
        return found

    def links(self) -> dict[tuple[str, str], Link]:
        """How each configured gateway and account is connected, by (gateway, account)."""
        found = {}
        for name, table in self.gateways.tables().items():
            own = table.model_dump(exclude_unset=True, include={*LinkTable.model_fields})
            found[name, ""] = self._link(name, "", own)
            for account, part in table.accounts.items() if isinstance(table, GatewayTable) else ():
                found[name, account] = self._link(name, account, own | part.model_dump(exclude_unset=True))
        return found

    def _link(self, gateway: str, account: str, table: Mapping[str, Any]) -> Link:
        given = {key: value for key, value in table.items() if value is not None and key != "reconcile"}
        if "secrets" in given:
            given["secrets"] = tuple(secret.get_secret_value() for secret in given["secrets"])
        if "timezone" in given:
            given["timezone"] = ZoneInfo(given["timezone"])
        return Link(gateway=gateway, account=account, region=self.region, **given)

    def inquiries(self) -> dict[tuple[str, str], dict[str, Any]]:
        """How gateways are asked what became of messages, by (gateway, account): those that say so."""
        found = {}
        for name, table in self.gateways.tables().items():
            accounts = table.accounts if isinstance(table, GatewayTable) else {}
            for account, part in {"": table, **accounts}.items():
                if options := part.reconcile or table.reconcile:
                    found[name, account] = options
        return found

    def sender_modes(self) -> dict[str, Mode]:
        return {sender: table.policy for sender, table in self.senders.items() if table.policy}

    def sender_revocations(self) -> dict[str, Scope]:
        return {sender: table.revocation_scope for sender, table in self.senders.items() if table.revocation_scope}


_FROM_ENVIRONMENT = {
    "SENDABLE_DATABASE_URL": "database_url",
    "SENDABLE_DATA_DIR": "data_dir",
    "SENDABLE_HOST": "host",
    "SENDABLE_PORT": "port",
    "SENDABLE_AUTH": "auth",
    "SENDABLE_POLICY": "policy_file",
    "SENDABLE_FIRST_KEY": "first_key",
    "SENDABLE_REGION": "region",
    "SENDABLE_LOG_LEVEL": "log_level",
    "SENDABLE_RECEIPTS_KEPT": "receipts_kept",
    "SENDABLE_CHANGES_KEPT": "changes_kept",
}


def read_settings(environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:  # noqa: ANN401 - any setting
    """The settings: `given` (the command line's) before the environment before the file. Raises SettingsError."""
    named = {key: value for key, value in environment.items() if key.startswith("SENDABLE_")}
    if named.get("SENDABLE_PORT", "").startswith(_OF_KUBERNETES):
        del named["SENDABLE_PORT"]
    known = {*_FROM_ENVIRONMENT, "SENDABLE_CONFIG"}
    for key in sorted(named.keys() - known):
        if not key.startswith(_FOREIGN):
            raise SettingsError(f"{key} is no setting of Sendable: remove it, or use one of {', '.join(sorted(known))}")
    file = _file(named["SENDABLE_CONFIG"]) if named.get("SENDABLE_CONFIG") else {}
    values = {key: value for key, value in file.items() if value != ""}
    values |= {_FROM_ENVIRONMENT[key]: value for key, value in named.items() if key in _FROM_ENVIRONMENT and value}
    values |= {key: value for key, value in given.items() if value is not None}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_line(error, named.get("SENDABLE_CONFIG"))) from error
    if settings.auth == "off" and not is_loopback(settings.host):
        raise SettingsError(
            f'SENDABLE_AUTH is "off" but SENDABLE_HOST is {settings.host}: listen on 127.0.0.1, or set SENDABLE_AUTH=on'
        )
    return settings


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"SENDABLE_CONFIG={path} cannot be read: {error}") from error


def _line(error: ValidationError, path: str | None) -> str:
    """The first thing that is wrong, in one line, under the name that the reader wrote."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, first["loc"]))
    variable = next((env for env, field in _FROM_ENVIRONMENT.items() if field == key), None)
    where = f"{variable} (or `{key}`)" if variable else f"`{key}`"
    file = f" in {path}" if path and not variable else ""
    page = "docs/gateways/custom.md" if key.startswith("gateways.custom.") else "the README"
    if first["type"] == "extra_forbidden":
        return f"{where}{file} is no setting of Sendable: remove it, or see {page} for those there are"
    if first["type"] == "missing":
        return f"{where}{file} is missing: {page} says what it holds"
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{where}{file} {_SHAPES.get(first['type'], said)}"


_TABLE = "must be a table: write it in brackets, its keys below it"
_SHAPES = {
    "tuple_type": 'must be a list, for example ["…"]', "dict_type": _TABLE, "model_type": _TABLE,
    "path_type": "must be a path, in quotes", "decimal_type": 'must be a sum of money, for example "25.00"',
}  # fmt: skip
"""In place of what Pydantic says by the names of Python's types, by its type of error."""
