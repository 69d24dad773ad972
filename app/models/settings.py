"""The tables of the settings: what each key may hold, and in words for whoever wrote it what is wrong with it."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from app.models.described import Description
from app.models.duration import duration
from app.models.number import Scope
from app.models.phone import sender_id
from app.models.policy import Mode


def _with_unit(value: object) -> timedelta:
    """A bare number is refused: whoever writes 90 means days, and would be taken to mean seconds."""
    return value if isinstance(value, timedelta) else duration(str(value))


Duration = Annotated[timedelta, BeforeValidator(_with_unit)]
SUM_MOST = 10**12
"""In whatever currency: what is left of much more cannot be divided by a price."""
Sum = Annotated[Decimal, Field(ge=0, le=SUM_MOST)]
LONGEST_WINDOW = timedelta(days=7)


def is_absolute(url: object) -> bool:
    """Whether requests can be made to it, or below it."""
    if not isinstance(url, str) or any(map(str.isspace, url)):
        return False
    try:
        parts = urlsplit(url)
        somewhere = bool(parts.hostname) and parts.port != 0  # a port that is none is told only where it is read
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and somewhere and not parts.query and not parts.fragment


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LinkTable(Table):
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


class GatewaysTable(Table):
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


class PolicyTable(Table):
    mode: Mode | None = None
    revocation_scope: Scope | None = None


class SenderTable(Table):
    kind: Literal["short_code", "long_code", "toll_free", "alphanumeric"] | None = None
    policy: Mode | None = None
    revocation_scope: Scope | None = None


class LookupTable(Table):
    """`[lookup]`; its other keys are tables, `[lookup.NAME]`, which wiring.py reads as each provider needs them."""

    model_config = ConfigDict(extra="allow")

    providers: tuple[str, ...] = ()
    budget_per_day: Sum | None = None
    budget_per_number: Sum | None = None
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


class RndTable(Table):
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


class FeedsTable(Table):
    """`[feeds]`; its other keys are tables, `[feeds.NAME]`, which wiring.py reads as each feed needs them."""

    model_config = ConfigDict(extra="allow")

    guard: float = Field(0.01, ge=0, le=1)
    guard_at_least: int = Field(3, ge=1)

    @field_validator("guard", "guard_at_least", mode="before")
    @classmethod
    def _no_switch(cls, value: object) -> object:
        """`true` would be read as 1, the whole of a list: then nothing would be guarded."""
        if isinstance(value, bool):
            raise ValueError("must be a number: it is no switch")  # noqa: TRY004 - told as any wrong setting
        return value

    def tables(self) -> dict[str, Any]:
        return self.model_extra or {}
