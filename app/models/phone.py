"""Numbers, senders and lists as everybody here writes them: E.164, short codes, names."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from functools import lru_cache

import phonenumbers

NANP = re.compile(r"\+1[0-9]{10}", re.ASCII)
"""A number of the North American plan in full: possible by its length alone, so nothing needs to be asked.

The library says the same of all 150,000 random ones, in 16 µs each: as much as all the rest of reading a receipt.
"""

REGIONS: frozenset[str] = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""Two letters each."""
_STRAY = re.compile(r"\D*\d[^a-zA-Z]*(?:[a-zA-Z][^a-zA-Z]*){1,2}")
"""One or two letters among the digits, which the library drops: of `+49151…O9` somebody else's number would be left."""
_WRITTEN = re.compile(r"\+?(?:[\s().-]*\d){9,}[\s().-]*")
_CODE = re.compile(r"\+?([0-9]{3,8})", re.ASCII)
"""How a short code is written: 3 to 8 digits, also behind a `+`, which some put before whatever is digits."""
LONGEST_NAME = 64
LONGEST_LIST = 128


@lru_cache(maxsize=65_536)
def e164(text: str, region: str = "US") -> str:
    """A *possible* number as E.164. A leading space stands for the `+` that a query string decoded.

    Raises ValueError, in words that do not repeat the number.
    """
    if text.startswith(" "):
        text = "+" + text.lstrip()
    while not NANP.fullmatch(text) and (written := _written(text, region)) != text:
        text = written  # until it reads as itself: behind one trunk prefix there may be another
    return text


def _written(text: str, region: str) -> str:
    if _STRAY.fullmatch(text):
        raise ValueError("not a phone number: give it as E.164, for example +15555551234")
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException as error:
        raise ValueError("not a phone number: give it as E.164, for example +15555551234") from error
    meant = _as_meant(text, number)
    if number.extension or not phonenumbers.is_possible_number(meant):
        raise ValueError("not a possible phone number: give it as E.164, for example +15555551234")
    return phonenumbers.format_number(meant, phonenumbers.PhoneNumberFormat.E164)


def _as_meant(text: str, number: phonenumbers.PhoneNumber) -> phonenumbers.PhoneNumber:
    """A number whose own calling code the library took for its first digits, as German mobiles without their `+`; and
    Mexican mobiles with the 1 that they lost in 2019, which gateways and lists still write.
    """
    digits, code = str(number.national_number), str(number.country_code)
    if digits.startswith(code) and phonenumbers.normalize_digits_only(text) == digits:
        without = _of(number, digits.removeprefix(code))
        return without if _is_mobile(without) and not _is_mobile(number) else number
    return _of(number, digits[1:]) if code == "52" and re.fullmatch(r"1\d{10}", digits) else number


def _of(number: phonenumbers.PhoneNumber, digits: str) -> phonenumbers.PhoneNumber:
    return phonenumbers.PhoneNumber(country_code=number.country_code, national_number=int(digits or 0))


def _is_mobile(number: phonenumbers.PhoneNumber) -> bool:
    return phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.MOBILE


@lru_cache(maxsize=4_096)
def sender_id(text: str, region: str = "US") -> str:
    """A sender in its one form: 3 to 8 digits as they are, longer digits as E.164, letters without case.

    Digits that are no number of the region are one of another country, whose vendor leaves the `+` away. As with
    numbers, a leading space stands for it. Raises ValueError for an empty sender, one with control characters, or one
    longer than 64 characters.
    """
    name = unicodedata.normalize("NFC", text.strip().casefold())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError("not a sender: give a short code, a phone number or a name of at most 64 characters")
    if _WRITTEN.fullmatch(name):
        name = _long(name, region, abroad=text.startswith(" "))
    code = _CODE.fullmatch(name)
    return code[1] if code else name


def _long(name: str, region: str, *, abroad: bool) -> str:
    international = f"+{name.removeprefix('00')}"
    for written in (international, name) if abroad else (name, international):
        with suppress(ValueError):
            return e164(written, region)
    return name.removeprefix("+")


def list_name(text: str) -> str:
    """The name of a list, which is kept as it is. Raises ValueError for one that is blank, too long, or holds NULs."""
    if "\0" in text or not text.strip() or len(text) > LONGEST_LIST:
        raise ValueError(f"not a list: give a name of at most {LONGEST_LIST} characters, without NUL")
    return text
