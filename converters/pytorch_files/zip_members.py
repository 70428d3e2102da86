"""The members of a zip file without compression, each a view into the file."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from .plain_data import Allowance, expect

_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_COST = 1024  # bytes of heap that a member takes at most, its name aside
_IN_EXTRA = 0xFFFFFFFF  # stands where a number needs 64 bits


class Member(NamedTuple):
    """A member: its bytes, where in the file they start, and the checksum it was stored with."""

    data: memoryview
    start: int
    crc32: int


class _Entry(NamedTuple):
    """A member as the directory at the end of the file states it."""

    header: int
    name: bytes
    size: int
    crc32: int


def members(data: memoryview, allowance: Allowance) -> dict[str, Member]:
    """Returns the members of a zip file by their full names.

    Raises:
        ValueError: the file is damaged, or not as PyTorch writes it: a member is compressed,
            overlaps another, lies outside the first one's folder, or comes twice.
    """
    found: dict[str, Member] = {}
    directory, entries = _entries(data, allowance)
    end = 0
    for header, name, size, crc32 in sorted(entries):
        said = f"member {name[:80]!r}"
        *_, name_size, extra_size = _unpack(_LOCAL, b"PK\x03\x04", data, header)
        first = header + _LOCAL.size + name_size + extra_size
        expect(end <= header and first + size <= directory, f"{said} overlaps what follows it")
        local_name = data[header + _LOCAL.size :][:name_size]
        expect(local_name == name, f"{said} has a second name")
        end = first + size
        text = name.decode()
        expect(text not in found, f"{said} is there twice")
        parts = text.split("/")
        folder = next(iter(found), text).split("/")[0]
        inside = bool(folder) and parts[0] == folder and ".." not in parts and "\\" not in text
        expect(inside and folder[1:] != ":", f"{said} lies outside a folder {folder[:80]!r}")
        found[text] = Member(data[first:end], first, crc32)
    return found


def _entries(data: memoryview, allowance: Allowance) -> tuple[int, list[_Entry]]:
    """Returns (where the directory starts, what it states)."""
    end = len(data) - _END.size
    count, size, start = _unpack(_END, b"PK\x05\x06", data, end)[4:7]
    if data[max(end - _LOCATOR.size, 0) :][:4] == b"PK\x06\x07":
        end -= _LOCATOR.size + _END_64.size
        count, size, start = _unpack(_END_64, b"PK\x06\x06", data, end)[7:10]
    expect(start + size == end, "a directory of another size than it says")
    entries, place = [], start
    for _ in range(count):
        entry = _unpack(_ENTRY, b"PK\x01\x02", data, place)
        flags, method, crc32 = entry[3], entry[4], entry[7]
        name_size, extra_size, comment_size = entry[10:13]
        allowance.spend(_COST + 8 * name_size)
        rest = data[place + _ENTRY.size :]
        name, extra = bytes(rest[:name_size]), bytes(rest[name_size:][:extra_size])
        unpacked, packed, header = _widen(extra, (entry[9], entry[8], entry[16]))
        stored = method == 0 and flags & 1 == 0 and packed == unpacked
        expect(stored, f"member {name[:80]!r} is compressed or encrypted")
        entries.append(_Entry(header, name, packed, crc32))
        place += _ENTRY.size + name_size + extra_size + comment_size
    expect(place == end, "a directory of another size than it says")
    return start, entries


def _widen(extra: bytes, numbers: Sequence[int]) -> list[int]:
    """Returns `numbers`, those that need 64 bits taken from the field in `extra` that has them."""
    wide = b""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        wide = extra[4 : 4 + size] if kind == 1 else wide
        extra = extra[4 + size :]
    words = (int.from_bytes(wide[place:][:8], "little") for place in range(0, len(wide), 8))
    return [next(words, 0) if number == _IN_EXTRA else number for number in numbers]


def _unpack(form: struct.Struct, signature: bytes, data: memoryview, place: int) -> tuple:
    """Returns the fields of the zip header at `place`."""
    inside = 0 <= place <= len(data) - form.size
    expect(inside and data[place : place + 4] == signature, f"no zip header at byte {place}")
    return form.unpack_from(data, place)
