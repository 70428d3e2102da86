"""Plain data out of files that nobody vouches for: what may be in them, and what they may cost."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

_SPARE = 128 << 20
_LARGEST_KEY = 60  # bits: among larger integers many can be found that share one hash
_DEEPEST = 100
_LARGEST_TREE = 1_000_000
_LEAVES = (str, int, float, bool, bytes, memoryview, np.ndarray, type(None))


@dataclasses.dataclass
class Record:
    """An object of a class that is not ours: the name of the class, and its fields by name."""

    name: str
    state: dict


class Allowance:
    """Bytes of heap that may be spent on reading `size` bytes: 2 * size + 128 MiB."""

    def __init__(self, size: int):
        self._left = 2 * size + _SPARE

    def spend(self, count: int) -> None:
        """Takes `count` bytes off, or raises ValueError."""
        self._left -= count
        expect(self._left >= 0, "it unpacks to far more than its size")


class ByteReader:
    """Bytes read from front to back; long ones as views that cost no memory."""

    _LONGEST = 16 << 20  # bytes to copy at once; Python 2 wrote whole layers as text, none longer

    def __init__(self, data: memoryview):
        self._data = data
        self._place = 0

    def view(self, count: int) -> memoryview:
        """Returns the next `count` bytes, not copied."""
        expect(count <= self.left(), "it ends in the midst of a value")
        self._place += count
        return self._data[self._place - count : self._place]

    def read(self, count: int) -> bytes:
        """Returns the next `count` bytes."""
        expect(count <= self._LONGEST, f"a text of {count} bytes")
        return bytes(self.view(count))

    def readline(self) -> bytes:
        """Returns the next bytes up to a line feed, and with it."""
        length = 256
        while length <= self._LONGEST:
            line = bytes(self._data[self._place : self._place + length])
            if b"\n" in line:
                return self.read(line.index(b"\n") + 1)
            if len(line) < length:
                break
            length *= 2
        raise ValueError("a line without end")

    def copy(self) -> "ByteReader":
        """Returns a source that starts where this one is."""
        return ByteReader(self._data[self._place :])

    def left(self) -> int:
        """Returns how many bytes follow."""
        return len(self._data) - self._place


def shown(value: Any, longest: int = 200) -> str:
    """Returns text, or what a value is, fit for a message: one line of bounded length."""
    if not isinstance(value, (str, int, float, Exception, type(None))):
        return f"a {type(value).__name__}"  # the text of a nested value can be endless
    text = "".join(c if c.isprintable() else "?" for c in str(value)[: longest + 1])
    return text if len(text) <= longest else text[:longest] + "..."


def listed(names: Iterable[str], most: int = 8) -> str:
    """Returns the first names in order, fit for a message, and how many there are beyond."""
    names = sorted(map(str, names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name, 60) for name in names[:most]) + more


def expect(condition: bool, otherwise: str) -> None:
    """Raises ValueError, saying what is there `otherwise`, unless `condition` holds.

    What it says must be bounded: the text of a nested value can be endless.
    """
    if not condition:
        raise ValueError(otherwise)


def check_key(key: Any) -> None:
    """Raises ValueError unless `key` is a scalar: hashing tuples of tuples can take forever."""
    small = type(key) is int and key.bit_length() <= _LARGEST_KEY
    plain = small or type(key) in (str, float, bool, bytes, type(None))
    expect(plain, f"a key of type {type(key).__name__}, or too large")


def check_result(value: Any) -> None:
    """Raises ValueError unless `value` is plain data in a tree that can be walked at ease.

    That is at most 100 levels and a million values, those that are shared counted wherever they
    stand; hence nothing that holds itself.
    """
    measured: dict[int, tuple[int, int]] = {}

    def measure(value: Any, level: int) -> tuple[int, int]:
        """Returns (levels, values) of the tree from `value` down."""
        if type(value) in _LEAVES:
            return 0, 1
        expect(level < _DEEPEST, f"nested deeper than {_DEEPEST} levels, or in itself")
        if id(value) not in measured:
            inner = [measure(item, level + 1) for item in _items(value)]
            levels = 1 + max((levels for levels, _ in inner), default=0)
            measured[id(value)] = levels, 1 + sum(count for _, count in inner)
        levels, count = measured[id(value)]
        expect(level + levels <= _DEEPEST, f"nested deeper than {_DEEPEST} levels")
        expect(count <= _LARGEST_TREE, f"more than {_LARGEST_TREE} values")
        return levels, count

    measure(value, 0)


def _items(value: Any) -> Iterable:
    """Returns the values in a container; keys need no look, `check_key` has had one."""
    if type(value) in (list, tuple, set, frozenset):
        return value
    if type(value) is dict:
        return value.values()
    if type(value) is Record:
        return (value.state,)
    raise ValueError(f"a {type(value).__name__} that nothing uses")
