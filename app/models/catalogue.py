"""The words of the catalogue: what a vendor's code means, and whom a vendor's carrier text names. Facts, no policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

REASONS = frozenset({
    # on its way, or arrived
    "accepted", "in_progress", "delivered",
    # the number: gone, or no longer the same person's
    "deactivated", "disconnected", "reassigned", "number_changed", "unknown_subscriber", "invalid_number",
    "permanent_failure",
    # the number: at another carrier, or at none that we know
    "wrong_carrier", "stale_carrier", "carrier_unknown", "network_not_covered", "porting_in_progress",
    # the number: out of reach of SMS, or of this kind of sender
    "not_sms_capable", "sms_not_provisioned", "mms_not_supported", "mvno_not_supported",
    # the number: closed for now
    "suspended", "resumed", "barred",
    # passing conditions of a handset and of the network
    "absent_subscriber", "handset_full", "handset_busy", "handset_error", "roaming_not_allowed", "prepaid_no_credit",
    "expired", "not_acknowledged", "network_error", "gateway_error", "partial_failure",
    # no detail
    "unknown", "rejected_unspecified", "deleted", "cancelled",
    # what the person wants
    "opted_out", "unsubscribed", "sender_blocked_by_subscriber",
    # what others keep from the person
    "carrier_blocked_subscriber", "content_blocked_for_subscriber", "dnd_registry", "blocklisted_destination",
    "age_restricted",
    # message, sender and account: nothing about the person
    "content_blocked", "sender_blocked", "sender_not_registered", "throughput_exceeded", "quota_exceeded",
    "quota_warning", "flood_control", "fraud_blocked", "no_route", "invalid_message", "invalid_sender",
    "request_error", "account_error", "billing",
})  # fmt: skip
"""Every reason there is: those of the code tables, and three that no code means (`disconnected` from lookups,
`permanent_failure` when a number is never found again, `unsubscribed` by call)."""

LEVELS = frozenset({"message", "number", "carrier", "network", "account"})
"""What a code speaks about."""

PERMANENCES = frozenset({"permanent", "temporary", "unknown"})
"""Whether waiting alone cures it. A vendor's own flag may differ: that one speaks of the same message sent again."""

CONFIDENCES = frozenset({"verified", "unverified"})
"""Whether the row's source was seen to say so."""


class CatalogueError(ValueError):
    """A table that cannot be used. One line: file, line, and how to mend it. Stops the start."""


@dataclass(frozen=True, slots=True)
class Code:
    """What one code means inside its space. `source` is where that was read."""

    space: str
    code: str
    meaning: str
    level: str
    permanence: str
    reason: str
    confidence: str
    source: str


def is_numeric(codes: Iterable[str]) -> bool:
    """A space is numeric when all its codes are digits: there `007`, `07` and `7` are one code."""
    return all(code.isascii() and code.isdigit() for code in codes)


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """All code spaces. A code means something only inside its space: the key is (space, code)."""

    codes: Mapping[tuple[str, str], Code]
    _bare: Mapping[tuple[str, str], Code] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        numeric = {space for space in self.spaces() if is_numeric(code.code for code in self.space(space))}
        bare = {(c.space, c.code.lstrip("0")): c for c in self.codes.values() if c.space in numeric}
        object.__setattr__(self, "_bare", bare)

    def find(self, space: str | None, code: str | None) -> Code | None:
        """The code as received, else without leading zeros where the space is numeric. Asked for every receipt."""
        if not space or not code:
            return None
        return self.codes.get((space, code)) or self._bare.get((space, code.lstrip("0")))

    def spaces(self) -> list[str]:
        return list(dict.fromkeys(space for space, _ in self.codes))

    def space(self, name: str) -> list[Code]:
        """The codes of one space in the order of its table; none for a space that is not known."""
        return [code for code in self.codes.values() if code.space == name]


KINDS = frozenset({"mno", "mvno", "legacy", "other"})
"""Network, reseller on another's network, brand that has ended, and `other`: landline arms, cable and VoIP, which share
names with mobile carriers and are none."""

CERTAINTIES = frozenset({"high", "medium", "low"})
"""How sure a row of carriers.csv is."""

LONGEST_NAME = 200
"""Characters of a carrier's text that are read. Real ones stay under 100; a pattern with `.*` is slow on megabytes."""


@dataclass(frozen=True, slots=True)
class Brand:
    """One row of carriers.csv: a way in which a carrier is written, or a network code, and the carrier that it means.

    `pattern` None: a row for its network code alone. `parent` is the present owner, `successor` a carrier or free text.
    """

    pattern: re.Pattern[str] | None
    name: str
    kind: str
    parent: str
    mcc: str
    mncs: tuple[str, ...]
    successor: str
    since: str
    confidence: str
    source: str


def is_abroad(number: str | None) -> bool:
    """Whether it is surely none of the North American plan, whose carriers alone stand in the table."""
    return number is not None and not number.startswith("+1")


@dataclass(frozen=True, slots=True, eq=False)
class Carriers:
    """Who is meant by a vendor's carrier text or network code, and which carriers are one network."""

    brands: tuple[Brand, ...]
    _name: Callable[[str], str | None] = field(init=False, repr=False)
    _coded: Mapping[tuple[str, str], str] = field(init=False, repr=False)
    _networks: Mapping[str, str] = field(init=False, repr=False)
    _hosted: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = frozenset(brand.name for brand in self.brands)
        patterns = [(brand.pattern, brand.name) for brand in self.brands if brand.pattern]

        @lru_cache(maxsize=4_096)
        def name(raw: str) -> str | None:
            if raw in names:  # a landline arm's own name, read back, would match its mobile sister's pattern
                return raw
            return next((name for pattern, name in patterns if pattern.search(raw)), None)

        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_coded", _coded(self.brands))
        object.__setattr__(self, "_networks", _networks(self.brands))
        object.__setattr__(self, "_hosted", _hosted(self.brands, self._networks))

    def name(self, raw: str, number: str | None = None) -> str | None:
        """The one name of the carrier that a vendor's text means (the first pattern that matches), None when unknown.

        A name given back here reads as itself. The table is of North America: the carrier of a `number` from elsewhere
        is unknown, though it may be called T-Mobile, Claro, Docomo or MTS as well.
        """
        return None if is_abroad(number) else self._name(raw[:LONGEST_NAME])

    def by_network(self, mcc: str | None, mnc: str | None) -> str | None:
        """The carrier of a network code, None when unknown or shared. The mnc may have lost or gained leading zeros.

        A reseller without a code of its own rides on its host's: then this is the host.
        """
        return self._coded.get((mcc, _three_digits(mnc))) if mcc and mnc else None

    def network(self, name: str) -> str:
        """What to compare, instead of names, to know whether a number changed its network: mergers are no ports.

        The present owner of a mobile carrier's heir: one and the same for a brand, those merged into it and its own
        resellers. Landline arms and others that are not mobile stay themselves, whoever owns them; so do unknown names.
        """
        return self._networks.get(name, name)

    def is_hosted(self, name: str) -> bool:
        """Whether a carrier has no network of its own: most lookups name whoever carries it, and not the carrier."""
        return name in self._hosted


def _three_digits(mnc: str) -> str:
    return mnc.lstrip("0").zfill(3)


def _coded(brands: tuple[Brand, ...]) -> dict[tuple[str, str], str]:
    """Rows made for a code come first: the code in a row made for a name may be that of the brand's host."""
    claims = _claims(brand for brand in brands if brand.pattern)
    claims |= _claims(brand for brand in brands if not brand.pattern)
    return {code: names.pop() for code, names in claims.items() if len(names) == 1}


def _claims(brands: Iterable[Brand]) -> dict[tuple[str, str], set[str]]:
    claims: dict[tuple[str, str], set[str]] = {}
    for brand in brands:
        for mnc in brand.mncs:
            claims.setdefault((brand.mcc, _three_digits(mnc)), set()).add(brand.name)
    return claims


def _networks(brands: tuple[Brand, ...]) -> dict[str, str]:
    """Of several rows about one carrier the first counts. A successor counts where it is exactly a carrier's name."""
    mobile = [brand for brand in reversed(brands) if brand.kind != "other"]
    owners = {brand.name: brand.parent or brand.name for brand in mobile}
    heirs = {brand.name: brand.successor for brand in mobile if brand.successor in owners}
    return {name: owners[_heir(name, heirs)] for name in owners}


def _hosted(brands: tuple[Brand, ...], networks: Mapping[str, str]) -> frozenset[str]:
    """Mobile carriers whose owner has no network, or none but one that is given up."""
    owners = {brand.parent or brand.name for brand in brands
              if brand.kind == "mno" and brand.pattern and not brand.successor}  # fmt: skip
    return frozenset(name for name, owner in networks.items() if owner not in owners)


def _heir(name: str, heirs: Mapping[str, str]) -> str:
    """The last of a line of successors; a line that runs in a circle ends too."""
    for _ in heirs:
        name = heirs.get(name, name)
    return name
