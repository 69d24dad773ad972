"""What a provider's answer says, purely: which of several counts, and what it is against the carrier that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import phonenumbers
from msgspec.structs import replace

from app.models.catalogue import Carriers, is_abroad
from app.models.lookup import Failed, Failure, Found, LineType
from app.models.number import Carrier, Fact
from app.services.shown import network_of

AROUND = timedelta(days=14)
"""How far a port may lie from a deactivation and still explain it."""
DEAF: frozenset[LineType] = frozenset(
    {"landline", "toll_free", "premium", "shared_cost", "uan", "voicemail", "pager"}
)  # fmt: skip
NOT_MOBILE: frozenset[LineType] = DEAF | {"voip", "satellite", "personal"}
NO_SUCH: frozenset[Failure] = frozenset({"not_found", "invalid_number"})
"""Failures by which a provider says that there is no such number."""
_UNITED_STATES = ("310", "311", "312", "313", "314", "315", "316", "330", "332", "534", "535", "544")
HOME_CODES = {"US": frozenset(_UNITED_STATES), "CA": frozenset({"302"})}
"""Mobile country codes of those countries that share a calling code, and so are not told apart by it."""
PART_OF = {
    **dict.fromkeys(("PR", "VI", "GU", "MP", "AS"), "US"), **dict.fromkeys(("CC", "CX"), "AU"), "AX": "FI", "SJ": "NO",
}  # fmt: skip
"""What has two letters and area codes of its own, and is no other country."""

Kind = Literal["gone", "deaf", "porting", "moved", "same", "first", "not_found", "nothing"]
"""What the answer is, against what is stored: disconnected; unable to receive SMS; a port on its way; another network;
the same one; the first one we hear of; not found; and nothing that decides."""


class Said(NamedTuple):
    """One provider's answer."""

    provider: str
    answer: Found | Failed


# Which answer counts -----------------------------------------------------------------------------------------------


def best(answers: Sequence[Said], since: datetime | None) -> Said | None:
    """Of several providers' answers the one that decides: an explicit port newer than the receipt before an explicit
    word on ports, before a bare name, before "not found"; of equals the first. A failure only where all failed.
    """
    return max(answers, key=lambda said: _weight(said.answer, since), default=None)


def _weight(answer: Found | Failed, since: datetime | None) -> int:
    if isinstance(answer, Failed):
        return 1 if answer.error in NO_SUCH else 0
    if answer.ported and answer.ported_at and (since is None or answer.ported_at > since):
        return 5
    if answer.ported is not None or answer.porting or answer.active is False or answer.line_type in DEAF:
        return 4
    return 3 if named(answer) else 2


def named(found: Found) -> bool:
    return found.carrier is not None or (found.mcc is not None and found.mnc is not None)


def suffices(answer: Found | Failed) -> bool:
    """Whether no other provider need be asked: it tells about the port, or what no port can change."""
    if isinstance(answer, Failed):
        return answer.error in NO_SUCH
    return _weight(answer, None) > 3 and not answer.partial  # noqa: PLR2004


# What it says ------------------------------------------------------------------------------------------------------


def kind_of(answer: Found | Failed, stored: Carrier | None, carriers: Carriers) -> Kind:
    """The answer against the stored carrier. Mergers are applied: one network under two names is the same."""
    if isinstance(answer, Failed):
        return "not_found" if answer.error in NO_SUCH else "nothing"
    if answer.active is False:
        return "gone"
    if answer.line_type in DEAF:
        return "deaf"
    if answer.porting:
        return "porting"
    return _beside(stored, answer, carriers) if named(answer) else "nothing"


def _beside(stored: Carrier | None, found: Found, carriers: Carriers) -> Kind:
    if stored and is_abroad(found.number):  # what the table once said of it spoke of another company
        stored = replace(stored, name=None, name_raw=stored.name_raw or stored.name)
    same = stored and _is_one(stored, carrier_of(found, "", stored.at, carriers), carriers)
    if same is None:
        return "moved" if found.ported or found.ported_at else "first"
    return "same" if same else "moved"


def _is_one(stored: Carrier, new: Carrier, carriers: Carriers) -> bool | None:
    """Whether both are one network; None where nothing is told of both that could be compared. Abroad one provider
    tells its name in its own spelling, and the other its code.
    """
    if network_of(stored) is None:
        return None
    if network(stored, carriers) == network(new, carriers):
        return True
    if _in_table(stored, carriers) or _in_table(new, carriers):
        return False
    codes = [(one.mcc, int(one.mnc)) for one in (stored, new) if one.mcc and one.mnc]
    if len(codes) == 2:  # noqa: PLR2004 - of both
        return codes[0] == codes[1]
    return False if all(one.name_raw for one in (stored, new)) else None


def _in_table(carrier: Carrier, carriers: Carriers) -> str | None:
    return carrier.name or carriers.by_network(carrier.mcc, carrier.mnc)


def network(carrier: Carrier, carriers: Carriers) -> str:
    """What to compare instead of a carrier's name."""
    name = _in_table(carrier, carriers)
    return carriers.network(name) if name else (network_of(carrier) or "").casefold().strip()


def carrier_of(found: Found, provider: str, at: datetime, carriers: Carriers) -> Carrier:
    """The answer as a fact: the canonical name where it is known, the name as sent beside it. A fixed line is never a
    mobile carrier's, though the arm that serves it goes by the same name.
    """
    name = carriers.name(found.carrier, found.number) if found.carrier else carriers.by_network(found.mcc, found.mnc)
    if found.line_type == "landline" and name:
        name = _fixed(name, carriers)
    return Carrier(
        at, provider, name, found.carrier, found.mcc, found.mnc, found.line_type, found.ported, found.ported_at
    )


def _fixed(name: str, carriers: Carriers) -> str | None:
    """What the arm for fixed lines is called, None where the catalogue has only the mobile carrier."""
    kinds = {brand.name: brand.kind for brand in carriers.brands}
    arm = name if kinds.get(name) == "other" else f"{name} (wireline)"
    return arm if arm in kinds else None


def proven(found: Found, death: Fact, stored: Carrier | None, carriers: Carriers) -> bool:
    """Whether another network explains a death: its port lies near it, or is not dated. A name that no table knows
    proves nothing here unless the provider itself says that the number was ported; nor does a name beside a carrier
    without a network of its own, which may be that of its host.
    """
    if found.ported_at:
        return abs(found.ported_at - death.at) <= AROUND
    if found.ported is not None:
        return found.ported
    new, old = carrier_of(found, "", death.at, carriers), stored and _in_table(stored, carriers)
    return bool(new.name and old and not carriers.is_hosted(old))


def foreign(number: str, found: Found, home: str) -> bool:
    """Whether the number, or the network that serves it, belongs to another country than the senders' own."""
    try:
        region = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        region = None
    home = PART_OF.get(home, home)
    abroad = region is not None and PART_OF.get(region, region) != home
    return abroad or (found.mcc is not None and home in HOME_CODES and found.mcc not in HOME_CODES[home])


def words(answer: Found | Failed) -> str:
    if isinstance(answer, Failed):
        return answer.error
    ports = {True: "ported", False: "not ported", None: None}[answer.ported]
    when = f"on {answer.ported_at:%Y-%m-%d}" if answer.ported and answer.ported_at else None
    live = "disconnected" if answer.active is False else None
    code = f"{answer.mcc}-{answer.mnc}" if answer.mcc and answer.mnc else None
    return " ".join(filter(None, (answer.carrier or code, answer.line_type, ports, when, live))) or "nothing"
