"""The folder of a stage: kept if finished, continued if interrupted, new if its inputs changed."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from repgan_jax.errors import UserError
from repgan_jax.io import json_files, remote, results
from repgan_jax.io.results import RECORD
from repgan_jax.stages import fingerprints

Say = Callable[[str], None]  # prints a line


@contextlib.contextmanager
def lock(workdir: Path, kind: int) -> Iterator[TextIO]:
    """Keeps other runs out; the system lets go of it however this process ends."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("a+") as file:  # NFS shares no lock on what cannot be read
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{workdir}: another run is working here; wait for it or choose another workdir"
            ) from error
        except OSError as error:
            raise UserError(
                f"{workdir}: its file system has no locks ({error.strerror}); choose another "
                "--config.workdir, or mount it with flock"
            ) from error
        yield file


def prepare(
    result: Path, record: Mapping[str, Any], protected: Sequence[str], say: Say
) -> tuple[Path, bool]:
    """Returns the folder in which to work on `record`, and whether nothing is left to do there."""
    results.settle(result)
    old: Mapping[str, Any] | None
    folder, old = result, results.read_record(result)
    if not _is_same(old, record) and _bring_back(result, record, protected, say):
        say("done already (same settings), kept until now as the result before")
        return result, True
    if old and not _is_same(old, record):
        folder, old = _start_again(result, old, record, protected, say)
    if old and old["status"] == "done":
        say("done already (same settings)")
        return folder, True
    json_files.write(folder / RECORD, {"status": "running", **record})
    if not old:
        remote.push(folder / RECORD)
    remote.restore(folder)
    return folder, False


def _is_same(old: Mapping[str, Any] | None, record: Mapping[str, Any]) -> bool:
    return old is not None and not any(fingerprints.changes(old, record))


def _bring_back(
    result: Path, record: Mapping[str, Any], protected: Sequence[str], say: Say
) -> bool:
    """Puts the result before this one in its place, if `record` describes it; returns whether."""
    if remote.is_remote(result):
        return False
    if not _is_same(results.read_record(results.predecessor(result)), record):
        return False
    for folder in (result, results.successor(result)):
        found = results.read_record(folder)
        if found and found["status"] != "done":
            _refuse(folder, found, record, protected)
            say(f"unfinished work of other settings is dropped ({folder})")
    results.bring_back(result)
    return True


def _start_again(
    result: Path,
    old: Mapping[str, Any],
    record: Mapping[str, Any],
    protected: Sequence[str],
    say: Say,
) -> tuple[Path, Mapping[str, Any] | None]:
    """Returns a folder for other settings than those of `old`, and the record that is in it.

    A finished result stays where it is; what is unfinished makes room.
    """
    _refuse(result, old, record, protected)
    changes = ", ".join(fingerprints.changes(old, record))
    if old["status"] != "done":
        say(f"starting again, for these changed: {changes}")
        results.discard(result)
        return result, None
    new = results.successor(result)
    unfinished = results.read_record(new)
    if _is_same(unfinished, record):
        say(f"going on with what was interrupted, where these changed: {changes}")
    else:
        if unfinished:
            _refuse(new, unfinished, record, protected)
            say(f"unfinished work of yet other settings is dropped ({new})")
            results.discard(new)
            unfinished = None
        say(f"starting again, for these changed: {changes}")
    say("the finished result stays in use until the new one is complete")
    return new, unfinished


def _refuse(
    folder: Path,
    found: Mapping[str, Any],
    record: Mapping[str, Any],
    protected: Sequence[str],
) -> None:
    """Raises UserError where `folder` must not make room for what `record` describes.

    That is so if its status is in `protected`, and there is work in it.
    """
    work = found["status"] in protected and len(list(folder.glob("[!.]*"))) > 1
    if work or remote.is_remote(folder):  # whose it is cannot be known there
        changes = ", ".join(fingerprints.changes(found, record))
        raise UserError(
            f"{folder}: made with other settings ({changes}); "
            "delete that folder or choose another --config.workdir"
        )


def expect_same(folder: Path, record: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Returns the record in `folder`; raises UserError if `who` wrote it has other settings."""
    found = results.read_record(folder)
    if not found:
        raise UserError(
            f"{folder}: not there; all processes need one --config.workdir that they share"
        )
    if changes := ", ".join(fingerprints.changes(found, record)):
        raise UserError(f"{folder}: {who} has other settings ({changes}); start all with the same")
    return found
