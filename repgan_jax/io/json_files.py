"""JSON files: written whole or not at all; what cannot be read is named in one line."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, overload

from repgan_jax.errors import UserError, first_line
from repgan_jax.io.files import atomic_write, unreadable

T = TypeVar("T")


def write(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as readable JSON."""
    atomic_write(Path(path), (json.dumps(value, indent=2) + "\n").encode())


@overload
def read(path: str | os.PathLike[str]) -> Any: ...
@overload
def read(path: str | os.PathLike[str], parse: Callable[[Any], T]) -> T: ...
def read(path, parse=lambda value: value):
    """Returns the value in the JSON file `path`, as `parse` makes it.

    Raises:
        UserError: missing, may not be read, not JSON, or nothing that `parse` takes.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the stage that writes it") from error
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not JSON ({first_line(error)}), {len(content)} bytes; it was cut or edited: "
            "bring back a copy, or move it away and run again what writes it"
        ) from error
    with parsing(path):
        return parse(value)


@contextlib.contextmanager
def parsing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises UserError about the JSON file `path` where its value is used as what it is not."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{path}: JSON, but not of this kind of file ({first_line(error)}); it was edited or "
            "is of another version: bring back a copy, or move it away and run again what writes it"
        ) from error
