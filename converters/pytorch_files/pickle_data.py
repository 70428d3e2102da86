"""Reads a pickle as plain data, by a machine on whose stack nothing that can be called ever stands.

A pickle is a program: it names functions and calls them. Here a name is looked up in a table of
meanings of our own, functions from plain data to plain data, and every other name is refused.
"""

import codecs
import dataclasses
import pickletools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .plain_data import Allowance, ByteReader, Record, check_key, expect

_COST = 512  # bytes of heap that no operation exceeds, texts and copies aside
_LARGEST_INT = 512  # bits

_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_TEXTS_2 = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # of Python 2
_BYTES = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}  # of the length
_OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
_VALUES = frozenset((*_NUMBERS, *_TEXTS, *_TEXTS_2, *_BYTES))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedError(Exception):
    """A pickle asks for a name that has no meaning here."""


class Symbol(NamedTuple):
    """A name in a pickle: two strings, never what they name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_RECONSTRUCTORS = (Symbol("copyreg", "_reconstructor"), Symbol("copy_reg", "_reconstructor"))


@dataclasses.dataclass(eq=False)
class Unbuilt:
    """A value that a pickle states in two steps: `build` makes it of what BUILD brings."""

    build: Callable[[Any], Any]
    memo_keys: list[int] = dataclasses.field(default_factory=list)


def load(
    source: ByteReader,
    meanings: Mapping[Symbol, Callable | str | None],
    allowance: Allowance,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Returns what the pickle at the front of `source` states, and goes on to the byte behind it.

    Long bytes are views. The result still has to pass `plain_data.check_result`.

    Args:
        source: where the pickle stands.
        meanings: all that may be named: a function that makes plain data of plain data, a string
            that stands for the name, or None for what is only ever an argument.
        allowance: what may be spent: it bounds the heap.
        persistent: makes plain data of persistent ids.

    Raises:
        RefusedError: the pickle asks for any other name.
        Exception: the pickle is corrupt; mostly a ValueError.
    """
    machine = _Machine(meanings, persistent)
    for name, argument in _operations(source):
        if name == "STOP":
            break
        allowance.spend(_COST + (sys.getsizeof(argument) if isinstance(argument, str) else 0))
        machine.step(name, argument)
    return machine.pop()


def _operations(source: ByteReader) -> Iterator[tuple[str, Any]]:
    """Yields (name, argument) of each operation; the last is STOP."""
    name = ""
    while name != "STOP":
        code = source.read(1).decode("latin-1")
        expect(code in _OPERATIONS, f"{code!r} is no operation of a pickle")
        operation = _OPERATIONS[code]
        name = operation.name
        argument: Any = None
        if name in _BYTES:
            argument = source.view(int.from_bytes(source.read(_BYTES[name]), "little"))
            if name == "SHORT_BINBYTES":
                argument = bytes(argument)
        elif name == "STRING":  # Python 2 writes bytes so, pickletools would have them ASCII
            text = pickletools.read_stringnl(source, decode=False)
            argument = codecs.escape_decode(text)[0].decode("latin-1")
        elif operation.arg:
            argument = operation.arg.reader(source)
        yield name, argument


class _Machine:
    """The stack of a pickle, the marks in it, and the memo."""

    def __init__(
        self,
        meanings: Mapping[Symbol, Callable | str | None],
        persistent: Callable[[Any], Any] | None,
    ):
        self._meanings = meanings
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Takes off the stack, and returns, what lies on top."""
        bottom = self._marks[-1] if self._marks else 0
        expect(len(self._stack) > bottom, "nothing is left on the stack")
        return self._stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Does one operation."""
        if name in _VALUES:
            large = isinstance(argument, int) and argument.bit_length() > _LARGEST_INT
            expect(not large, f"an integer of more than {_LARGEST_INT} bits")
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        elif name not in ("PROTO", "FRAME"):
            self._act(name, argument)

    def _act(self, name: str, argument: Any) -> None:
        """Does one of the operations that read the stack or the memo."""
        stack = self._stack
        match name:
            case "MARK":
                self._marks.append(len(stack))
            case "POP" if self._marks and self._marks[-1] == len(stack):
                self._marks.pop()
            case "POP":
                self.pop()
            case "POP_MARK":
                self._pop_mark()
            case "DUP":
                stack.append(self._top())
            case "MEMOIZE":
                self._put(len(self._memo))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._put(argument)
            case "GET" | "BINGET" | "LONG_BINGET":
                expect(argument in self._memo, "it uses a value that it has not stated")
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(self._name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                stack.append(self._name(module, name))
            case "PERSID":
                stack.append(self._stored(argument))
            case "BINPERSID":
                stack.append(self._stored(self.pop()))
            case _:
                self._gather(name, argument)

    def _gather(self, name: str, argument: Any) -> None:
        """Does one of the operations that make or fill a value."""
        stack = self._stack
        match name:
            case "LIST":
                stack.append(self._pop_mark())
            case "TUPLE":
                stack.append(tuple(self._pop_mark()))
            case "DICT":
                items = self._pop_mark()
                stack.append({})
                self._set_items(items)
            case "FROZENSET":
                stack.append(frozenset(_keys(self._pop_mark())))
            case "APPEND":
                item = self.pop()
                self._top(list).append(item)
            case "APPENDS":
                items = self._pop_mark()
                self._top(list).extend(items)
            case "ADDITEMS":
                items = self._pop_mark()
                self._top(set).update(_keys(items))
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._pop_mark())
            case "REDUCE" | "NEWOBJ":
                arguments, symbol = self.pop(), self.pop()
                stack.append(self._make(symbol, arguments))
            case "NEWOBJ_EX":
                named, arguments, symbol = self.pop(), self.pop(), self.pop()
                expect(type(named) is dict and not named, "arguments by name")
                stack.append(self._make(symbol, arguments))
            case "OBJ":
                symbol, *arguments = self._pop_mark()
                stack.append(self._make(symbol, tuple(arguments)))
            case "INST":
                symbol = self._name(*argument.split(" ", 1))
                stack.append(self._make(symbol, tuple(self._pop_mark())))
            case "BUILD":
                self._build(self.pop())
            case _:
                raise ValueError(f"{name} has no use in a checkpoint")

    def _top(self, kind: type = object) -> Any:
        """Returns what lies on top of the stack, which must be of exactly that type."""
        top = self.pop()
        fits = kind is object or type(top) is kind
        expect(fits, f"a {type(top).__name__} where a {kind.__name__} must be")
        self._stack.append(top)
        return top

    def _pop_mark(self) -> list:
        """Takes off the stack what lies above the last mark, and that mark."""
        expect(bool(self._marks), "no mark on the stack")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _put(self, key: int) -> None:
        check_key(key)
        self._memo[key] = self._top()
        if type(self._memo[key]) is Unbuilt:
            self._memo[key].memo_keys.append(key)

    def _name(self, module: Any, name: Any) -> Symbol | str:
        """Returns the symbol, or the string that is its meaning; refuses all that have none."""
        expect(type(module) is str and type(name) is str, "a name that is not text")
        symbol = Symbol(module, name)
        if symbol not in self._meanings:
            raise RefusedError(str(symbol))
        meaning = self._meanings[symbol]
        return meaning if isinstance(meaning, str) else symbol

    def _stored(self, persistent_id: Any) -> Any:
        if self._persistent is None:
            raise ValueError("an id of a storage where there are none")
        return self._persistent(persistent_id)

    def _set_items(self, items: list) -> None:
        """Puts keys and values, by turns, into the dict on top of the stack."""
        keys, values = _keys(items[::2]), items[1::2]
        self._top(dict).update(zip(keys, values, strict=True))

    def _make(self, symbol: Any, arguments: Any) -> Any:
        """Returns our own meaning of a call."""
        expect(type(symbol) is Symbol and type(arguments) is tuple, "a call of what is no name")
        if symbol in _RECONSTRUCTORS:  # how protocols 0 and 1 make an object: class, base, value
            expect(len(arguments) == 3, "an object of odd arguments")
            symbol, _, value = arguments
            return self._make(symbol, () if value is None else (value,))
        meaning = self._meanings[symbol]
        if meaning is None:
            raise RefusedError(f"a call of {symbol}")
        return meaning(*arguments)

    def _build(self, state: Any) -> None:
        """Brings its state to what lies on top of the stack."""
        target = self._top()
        if type(target) is Unbuilt:
            self._stack[-1] = target.build(state)
            for key in target.memo_keys:
                if self._memo[key] is target:
                    self._memo[key] = self._stack[-1]
        elif type(target) is Record and not target.state:
            expect(type(state) is dict, "an object whose state is no dict")
            target.state = state
        else:  # PyTorch hangs versions of modules on a dict of tensors: nothing to us
            known = type(state) is dict and len(state) == 1 and "_metadata" in state
            expect(type(target) is dict and known, f"a state for a {type(target).__name__}")


def _keys(items: list) -> list:
    for item in items:
        check_key(item)
    return items
