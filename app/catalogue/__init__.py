"""The tables, read and checked once at the start: what codes mean, and how carriers are written."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from app.models.catalogue import (
    CERTAINTIES,
    CONFIDENCES,
    KINDS,
    LEVELS,
    PERMANENCES,
    REASONS,
    Brand,
    Carriers,
    Catalogue,
    CatalogueError,
    Code,
    is_numeric,
)

__all__ = ["CODES", "FOLDER", "CatalogueError", "carriers", "load", "shipped", "spaces"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Table:
    """How a CSV must look: its first line, the column that may not be empty, the words that a column may hold."""

    columns: str
    key: str
    words: Mapping[str, Collection[str]]


CODES = Table(
    columns="code,meaning,level,permanence,reason,confidence,source",
    key="code",
    words={"level": LEVELS, "permanence": PERMANENCES, "reason": REASONS, "confidence": CONFIDENCES},
)
CARRIERS = Table(
    columns="alias_pattern,canonical_carrier,kind,parent,mcc,mnc,successor,since,confidence,source",
    key="canonical_carrier",
    words={"kind": KINDS, "confidence": CERTAINTIES},
)


def load(folder: Path = FOLDER) -> Catalogue:
    """Every `codes/<space>.csv` of the folder. Raises CatalogueError for the first line that cannot be used."""
    tables = sorted((folder / "codes").glob("*.csv"))
    if not tables:
        raise CatalogueError(f"{folder / 'codes'}: no code tables: install Sendable again, or name the right folder")
    return Catalogue({(code.space, code.code): code for path in tables for code in _space(path)})


@cache
def shipped() -> Catalogue:
    """The tables that come with this code, read once."""
    return load()


def spaces() -> list[str]:
    """The names of the code spaces, without reading their codes."""
    return sorted(path.stem for path in (FOLDER / "codes").glob("*.csv"))


@cache
def carriers(folder: Path = FOLDER) -> Carriers:
    """`carriers.csv` of the folder, read once. Raises CatalogueError for the first line that cannot be used."""
    return Carriers(tuple(_brand(where, row) for where, row in _rows(folder / "carriers.csv", CARRIERS)))


def _space(path: Path) -> Iterator[Code]:
    """The codes of one table. Where the space is numeric, two that differ in leading zeros alone are duplicates too."""
    rows = list(_rows(path, CODES))
    numeric = is_numeric(row["code"] for _, row in rows)
    first: dict[str, str] = {}
    for where, row in rows:
        earlier = first.setdefault(row["code"].lstrip("0") if numeric else row["code"], where)
        if earlier != where:
            raise CatalogueError(f"{where}: duplicate code {row['code']!r}: it stands at {earlier} already, delete one")
        yield Code(space=path.stem, **row)


def _brand(where: str, row: dict[str, str]) -> Brand:
    alias, name, mnc = row.pop("alias_pattern"), row.pop("canonical_carrier"), row.pop("mnc")
    if not alias and not mnc:
        raise CatalogueError(f"{where}: neither alias_pattern nor mnc: fill in one of them, or delete the line")
    if mnc and not re.fullmatch(r"\d{3}:\d{2,3}(;\d{2,3})*", f"{row['mcc']}:{mnc}", re.ASCII):
        raise CatalogueError(f"{where}: no network code {row['mcc']}-{mnc}: write mcc as 310, mnc as 260 or 100;110")
    mncs = tuple(mnc.split(";")) if mnc else ()
    return Brand(pattern=_pattern(where, alias) if alias else None, name=name, mncs=mncs, **row)


def _pattern(where: str, alias: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(alias, re.IGNORECASE)
    except re.error as error:
        raise CatalogueError(f"{where}: alias_pattern {alias!r} is no regular expression: {error}, mend it") from error
    if pattern.search(""):
        raise CatalogueError(f"{where}: alias_pattern {alias!r} matches every name: make it narrower")
    return pattern


def _rows(path: Path, table: Table) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row and where it stands (`smpp_stat.csv:12`), checked against the table. Empty lines are passed over."""
    names = table.columns.split(",")
    lines = _lines(path)
    if next(lines, (1, []))[1] != names:
        raise CatalogueError(f"{path.name}:1: missing or misplaced column: the first line must read {table.columns}")
    for number, cells in lines:
        where = f"{path.name}:{number}"
        if len(cells) != len(names):
            raise CatalogueError(f"{where}: {len(cells)} cells, not {len(names)}: put a cell with commas in quotes")
        row = dict(zip(names, cells, strict=True))
        _check(where, row, table)
        yield where, row


def _check(where: str, row: Mapping[str, str], table: Table) -> None:
    key = row[table.key]
    if not key or key != key.strip():
        raise CatalogueError(f"{where}: {table.key} {key!r} is empty or has blanks around it: correct it")
    for column, words in table.words.items():
        if row[column] not in words:
            near = ", ".join(get_close_matches(row[column], sorted(words), n=3, cutoff=0))
            raise CatalogueError(f"{where}: unknown {column} {row[column]!r}: write a known one, such as {near}")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV, each with the number of its last line. UTF-8, with or without a spreadsheet's mark."""
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                number = reader.line_num
                if cells:
                    yield number, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogueError(f"{path.name}:{number}: not readable as CSV in UTF-8: {error}, mend it") from error
