"""Settings: one frozen value, read once. Environment first (`SENDABLE_*`), then the file that SENDABLE_CONFIG names.

Whatever is wrong stops the start with one line that says which key, and how to mend it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from app.models.database_url import database_url
from app.models.described import Description
from app.models.duration import duration
from app.models.number import Scope
from app.models.phone import REGIONS, sender_id
from app.models.policy import Mode
from app.models.receipt import Link


class SettingsError(ValueError):
    """One line: which setting is wrong, and how to mend it."""


def _with_unit(value: object) -> timedelta:
    """A bare number is refused: whoever writes 90 means days, and would be taken to mean seconds."""
    return value if isinstance(value, timedelta) else duration(str(value))


Duration = Annotated[timedelta, BeforeValidator(_with_unit)]
SHORTEST_KEY = 24
LONGEST_WINDOW = timedelta(days=7)
_FOREIGN = ("SENDABLE_TEST_", "SENDABLE_SERVICE_", "SENDABLE_PORT_")
"""Names that others put there: the tests, and Kubernetes for a service called `sendable`."""


def is_absolute(url: object) -> bool:
    """Whether requests can be made to it, or below it."""
    if not isinstance(url, str) or any(map(str.isspace, url)):
        return False
    parts = urlsplit(url)
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and not parts.query and not parts.fragment


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LinkTable(_Table):
    """`[gateways.NAME]`, and `[gateways.NAME.accounts.ACCOUNT]`, which takes over what it does not name."""

    secrets: tuple[SecretStr, ...] = ()
    window: Duration | None = None
    public_url: str | None = None
    sender: str | None = None
    timezone: str | None = None
    code_space: str | None = None
    codes: dict[str, str] = {}
    reconcile: dict[str, Any] = {}

    @field_validator("secrets")
    @classmethod
    def _not_blank(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(not secret.get_secret_value().strip() for secret in secrets):
            raise ValueError("a secret must not be blank: anyone could forge what it signs")
        return secrets

    @field_validator("window")
    @classmethod
    def _remembered(cls, window: timedelta | None) -> timedelta | None:
        if window is not None and not timedelta(0) < window <= LONGEST_WINDOW:
            raise ValueError("must be more than 0s and at most 7d: nonces are remembered for 8 days")
        return window

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, url: str | None) -> str | None:
        if url and not is_absolute(url):
            raise ValueError('must be an absolute URL without a query, for example "https://dlr.example.com"')
        if url and "/v1/receipts/" in url:
            raise ValueError('must end before `/v1/receipts/…`, which is added: for example "https://dlr.example.com"')
        return url.rstrip("/") if url else None

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        try:
            return None if name is None else ZoneInfo(name).key
        except (KeyError, ValueError, OSError) as error:
            raise ValueError('is no time zone: write a name such as "America/New_York" or "UTC"') from error

    @field_validator("sender")
    @classmethod
    def _a_sender(cls, sender: str | None) -> str | None:
        """It is brought into its form where it is used, by the region of the settings."""
        if sender:
            sender_id(sender)
        return sender


class GatewayTable(LinkTable):
    accounts: dict[str, LinkTable] = {}

    @field_validator("accounts")
    @classmethod
    def _addressable(cls, accounts: dict[str, LinkTable]) -> dict[str, LinkTable]:
        if any(not name or "/" in name for name in accounts):
            raise ValueError("must have names that can stand in an address: neither empty nor with a slash")
        return accounts


class CustomTable(LinkTable, Description):
    """`[gateways.custom.NAME]`: how it is connected, and how it reads."""

    @model_validator(mode="after")
    def _keys(self) -> Self:
        """A key that cannot be read would refuse every callback."""
        if self.signature:
            for secret in self.secrets:
                self.signature.key_of(secret.get_secret_value())
        return self


class GatewaysTable(_Table):
    """`[gateways]`: a table for each gateway by its name, and below `custom` one for each that is described."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, GatewayTable] = Field(init=False)

    custom: dict[str, CustomTable] = {}

    @field_validator("custom", mode="before")
    @classmethod
    def _by_name(cls, tables: object) -> object:
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if not isinstance(table, dict) or not re.fullmatch(r"[a-z0-9-]+", name):
                raise ValueError(
                    f"describes no gateway by {name!r}: write [gateways.custom.NAME], a name of a-z, 0-9 and -"
                )
        return tables

    def __getitem__(self, name: str) -> GatewayTable:
        return self.__pydantic_extra__[name]

    def tables(self) -> dict[str, LinkTable]:
        return {**self.__pydantic_extra__, **{f"custom/{name}": table for name, table in self.custom.items()}}


class PolicyTable(_Table):
    mode: Mode | None = None
    revocation_scope: Scope | None = None


class SenderTable(_Table):
    kind: Literal["short_code", "long_code", "toll_free", "alphanumeric"] | None = None
    policy: Mode | None = None
    revocation_scope: Scope | None = None


class LookupTable(_Table):
    """`[lookup]`; its other keys are tables, `[lookup.NAME]`, which wiring.py reads as each provider needs them."""

    model_config = ConfigDict(extra="allow")

    providers: tuple[str, ...] = ()
    budget_per_day: Decimal | None = Field(None, ge=0)
    budget_per_number: Decimal | None = Field(None, ge=0)
    timetable: tuple[Duration, ...] | None = None

    @field_validator("timetable")
    @classmethod
    def _from_now_on(cls, steps: tuple[timedelta, ...] | None) -> tuple[timedelta, ...] | None:
        if steps is not None and (not steps or steps[0] or list(steps) != sorted(set(steps))):
            raise ValueError(
                'must begin with "0s" and go on with longer and longer ones, for example ["0s", "4h", "1d"]'
            )
        return steps

    def tables(self) -> dict[str, Any]:
        return self.model_extra or {}


class RndTable(_Table):
    """`[rnd]`: the account at the Reassigned Numbers Database, for `sendable rnd check`. Files need none."""

    refresh_token: SecretStr
    company_id: str = Field(min_length=1)
    base_url: str | None = None

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, url: str | None) -> str | None:
        if url and not is_absolute(url):
            raise ValueError('must be an absolute URL, for example "https://api.reassigned.us"')
        return url

    def options(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True) | {"refresh_token": self.refresh_token.get_secret_value()}


class FeedsTable(_Table):
    """`[feeds]`; its other keys are tables, `[feeds.NAME]`, which wiring.py reads as each feed needs them."""

    model_config = ConfigDict(extra="allow")

    guard: float = Field(0.01, ge=0, le=1)
    guard_at_least: int = Field(3, ge=1)

    def tables(self) -> dict[str, Any]:
        return self.model_extra or {}


class Settings(_Table):
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
    senders: dict[str, SenderTable] = {}
    lookup: LookupTable | None = None
    rnd: RndTable | None = None
    feeds: FeedsTable = FeedsTable()

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        return SecretStr(database_url(url.get_secret_value()))

    @field_validator("first_key")
    @classmethod
    def _long(cls, key: SecretStr | None) -> SecretStr | None:
        """Without the blanks around it, which no header can carry."""
        if not key:
            return None
        bare = key.get_secret_value().strip()
        if len(bare) < SHORTEST_KEY:
            raise ValueError("is too short to be a key: use at least 24 random characters")
        if not bare.isascii() or not bare.isprintable():
            raise ValueError("is nothing that a request can carry: write it in ASCII, in one line")
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
    known = {*_FROM_ENVIRONMENT, "SENDABLE_CONFIG"}
    for key in sorted(named.keys() - known):
        if not key.startswith(_FOREIGN):
            raise SettingsError(f"{key} is no setting of Sendable: remove it, or use one of {', '.join(sorted(known))}")
    values = _file(named["SENDABLE_CONFIG"]) if named.get("SENDABLE_CONFIG") else {}
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
        return tomllib.loads(Path(path).read_text("utf-8"))
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
    return f"{where}{file} {_SHAPES.get(first['type']) or first['msg'].removeprefix('Value error, ')}"


_TABLE = "must be a table: write it in brackets, its keys below it"
_SHAPES = {"tuple_type": 'must be a list, for example ["…"]', "dict_type": _TABLE, "model_type": _TABLE}
"""What the library calls by the names of Python."""
