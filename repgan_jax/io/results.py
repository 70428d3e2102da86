"""A stage's result, its successor in the making, and the one before it, side by side.

    NAME            the result in use; before there is one, the work on it
    NAME.next       the work on its successor, which has other settings
    NAME.previous   the last result that was replaced

A successor is in use from the moment its record says "done", which takes a single rename. `current`
finds it under either name, so the renames that follow (`settle`) may be interrupted anywhere.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from repgan_jax.errors import UserError
from repgan_jax.io import files, json_files, remote

RECORD = remote.LAST  # {"status", "seconds", "summary", "fingerprint", "fields", "inputs"}
_NEXT, _PREVIOUS = ".next", ".previous"
T = TypeVar("T")


def successor(folder: Path) -> Path:
    """Returns the folder in which the successor of the result in `folder` is made."""
    return folder.with_name(folder.name + _NEXT)


def predecessor(folder: Path) -> Path:
    """Returns the folder in which the result before the one in `folder` is kept."""
    return folder.with_name(folder.name + _PREVIOUS)


def name(folder: Path) -> str:
    """Returns the name of the result that is made in `folder`."""
    return folder.name.removesuffix(_NEXT)


def current(folder: Path) -> Path:
    """Returns where the result is that is in use as `folder`."""
    return successor(folder) if is_done(successor(folder)) else folder


def is_done(folder: Path) -> bool:
    """Returns whether `folder` holds a finished result; reads the local files alone."""
    try:
        text = (folder / RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise files.unreadable(folder / RECORD, error) from error
    try:
        return json.loads(text)["status"] == "done"
    except (ValueError, KeyError, TypeError):
        return False  # whoever needs that record says that it is damaged


def read(folder: Path, reader: Callable[[Path], T]) -> T:
    """Returns `reader(current(folder))`, all of one result: again if it was replaced meanwhile."""
    while True:
        before = _identity(folder)
        try:
            value = reader(before[0])
        except UserError:
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                return value


def read_record(folder: Path) -> dict[str, Any] | None:
    """Returns the record in `folder`, or None where nothing is.

    Raises:
        UserError: there are files but no record: the folder is not a stage's.
    """
    remote.pull(folder / RECORD)
    if (folder / RECORD).exists():
        return json_files.read(folder / RECORD, parse=_as_record)
    if any(folder.glob("[!.]*")) or remote.find(folder):
        raise UserError(
            f"{folder}: not the folder of a stage (it has no {RECORD}); "
            "move it away or choose another --config.workdir"
        )
    return None


def _as_record(found: Any) -> dict[str, Any]:
    """Returns `found`; raises KeyError or TypeError where it is no record."""
    texts = [found[key] for key in ("status", "fingerprint")]
    groups = [found[key] for key in ("fields", "inputs")]
    if not all(isinstance(x, str) for x in texts) or not all(isinstance(x, dict) for x in groups):
        raise TypeError("status, fingerprint, fields and inputs are of other types")
    return found


def outdated(workdir: Path, name: str) -> str:
    """Returns a stage that has another result now than when `name` was made, "" if none has.

    Stages whose results are not there, as in a copy of a part of a run, are not compared.
    """
    record = read_record(current(workdir / name))
    for other, recorded in (record or {}).get("inputs", {}).items():
        if other.startswith("config."):
            continue
        if not (now := read_record(current(workdir / other))):
            continue
        if now["fingerprint"] != recorded:
            return other
        if found := outdated(workdir, other):
            return found
    return ""


def settle(folder: Path) -> None:
    """Gives a finished successor the name `folder`, and what it replaces that of the previous one.

    It also ends what a killed run has begun. Only for who keeps other runs out; see `stage`.
    """
    new, old = successor(folder), predecessor(folder)
    for place in (folder, new, old):
        shutil.rmtree(_doomed(place), ignore_errors=True)
    if not is_done(new) and (folder.exists() or not new.exists()):
        return
    if is_done(folder):
        discard(old)
        os.replace(folder, old)
    discard(folder)
    os.replace(new, folder)


def bring_back(folder: Path) -> None:
    """Exchanges the result in `folder` for the previous one; unfinished work is discarded."""
    discard(successor(folder))
    os.replace(predecessor(folder), successor(folder))
    settle(folder)


def discard(folder: Path) -> None:
    """Removes `folder`, if it is there, at one stroke: no part of it is left without its record."""
    if folder.exists():
        shutil.rmtree(_doomed(folder), ignore_errors=True)  # of a killed run
        os.replace(folder, _doomed(folder))
        shutil.rmtree(_doomed(folder))


def _doomed(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _identity(folder: Path) -> tuple[Path, int]:
    """Returns where the result in use is, and a number of it that renames do not change."""
    place = current(folder)
    try:
        return place, place.stat().st_ino
    except FileNotFoundError:
        return place, 0
