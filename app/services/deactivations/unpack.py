"""From the bytes of a file to its lines: zip, gzip or plain, in parts of bounded size, however long the file is."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

PART = 1 << 16
LINE_MOST = 1 << 20
"""Bytes of one line: a page of records may be one. A longer one is not kept."""
_LEFT_OUT = {ord("\r"): None, 0: None}
_MARK = re.compile(rb"\A(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)")
_ZIPS, _GZIP = (b"PK\x03\x04", b"PK\x05\x06"), b"\x1f\x8b"
"""A zip begins with its first member, or, when it has none, with its end."""


class NotAFile(ValueError):
    """The bytes are no file that can be unpacked. One line: why, and how to mend it."""


class Unpacked:
    """The lines of a file, None for one that is too long. `cut`: the gzip ended before it should have, and its last
    line, which may be half a number, is left out.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.cut = False

    def lines(self) -> Iterator[str | None]:
        rest, too_long = b"", False
        for part in self._parts():
            *whole, rest = (rest + part).split(b"\n")
            if too_long and whole:
                whole.pop(0)
                too_long = False
                yield None
            if whole:
                yield from b"\n".join(whole).decode("utf-8", "replace").translate(_LEFT_OUT).split("\n")
            if len(rest) > LINE_MOST:
                rest, too_long = b"", True
            elif too_long:
                rest = b""
        if too_long:
            yield None
        elif rest and not self.cut:
            yield rest.decode("utf-8", "replace").translate(_LEFT_OUT)

    def _parts(self) -> Iterator[bytes]:
        """The first bytes say what it is, whatever its name claims."""
        self._file.seek(0)
        head = self._file.read(4)
        self._file.seek(0)
        parts = self._members() if head in _ZIPS else self._inflated() if head[:2] == _GZIP else _read(self._file)
        yield from _unmarked(parts)

    def _inflated(self) -> Iterator[bytes]:
        """Whatever there is of it, up to where it is cut. Several may stand one behind the other. One that is broken
        is refused: what was read of it may hold wrong numbers.
        """
        inflate = zlib.decompressobj(wbits=31)
        for raw in _read(self._file):
            part = raw
            while part:
                yield _inflate(inflate, part)
                part = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                if inflate.eof and part:
                    if not _GZIP.startswith(part[:2]):
                        self.cut = True
                        return
                    inflate = zlib.decompressobj(wbits=31)
        while not inflate.eof and (part := _inflate(inflate, b"")):
            yield part  # what the last bytes had more of than a part
        self.cut = not inflate.eof

    def _members(self) -> Iterator[bytes]:
        """The files inside, one after the other. Without its end a zip does not say what is in it."""
        try:
            archive = zipfile.ZipFile(self._file)
            names = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX")]
        except (zipfile.BadZipFile, OSError) as error:
            raise NotAFile("the zip is cut or broken: get the file again") from error
        if not names:
            raise NotAFile("there is no file in the zip: get the file again")
        for name in names:
            try:
                with archive.open(name) as member:
                    yield from _unmarked(_read(member))
            except (RuntimeError, NotImplementedError) as error:
                raise NotAFile("the zip is encrypted, or packed in a way that is not read: unpack it first") from error
            except (zipfile.BadZipFile, EOFError, zlib.error) as error:
                raise NotAFile("the zip is cut or broken: get the file again") from error
            yield b"\n"


def _unmarked(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Without a byte order mark, that of UTF-16 as well: its NULs are left out of each line."""
    yield _MARK.sub(b"", next(parts, b""))
    yield from parts


def _inflate(inflate: zlib._Decompress, part: bytes) -> bytes:
    try:
        return inflate.decompress(part, PART)
    except zlib.error as error:
        raise NotAFile("the gzip is broken: get the file again") from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _read(file: _Readable) -> Iterator[bytes]:
    while part := file.read(PART):
        yield part
