"""Whole files or none: the one way in which bytes reach the disk."""

import contextlib
import contextvars
import fcntl
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from repgan_jax.errors import UserError

_PREFIX, _LOCK = "repgan_jax_", ".lock"  # of temporary folders
_SETTLED = 60.0  # seconds after which the lock of a folder in use is held for sure
_waits = contextvars.ContextVar("_waits", default=True)  # for the disk, after every file
_PACKAGE = Path(__file__).parents[1]


def find_example(path: str) -> str:
    """Returns `path`, or that of the library's example if it names one and does not exist.

    "examples/face" is the folder of that name in the working folder; where there is none, as after
    `pip install`, it is the one that comes with the library.
    """
    packaged = _PACKAGE / path
    if Path(path).parts[:1] == ("examples",) and not Path(path).exists() and packaged.exists():
        return str(packaged)
    return path


def write_npz(path: str | Path, **arrays: Any) -> None:
    """Writes `arrays` by their names, compressed; as whole as `atomic_write` does."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(path, buffer.getvalue())


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path`, as `atomic_open` does."""
    with atomic_open(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yields a file of a temporary name in the same folder, which is then renamed to `path`.

    Missing folders are made. Readers see the old file or the new one, never a part of it; of two
    processes that write one file, the second waits for the first.

    Raises:
        UserError: the disk is full, the folder cannot be written, and the like; nothing is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")  # the same each time: none piles up
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_alone(temporary) as file:
            try:
                yield file
                file.flush()
                if _waits.get():
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UserError(
            f"{path}: not written ({error.strerror}); nothing was left behind: "
            "make room or choose a folder that can be written, and run the same command again"
        ) from error


def _open_alone(path: Path) -> BinaryIO:
    """Returns the file `path`, empty, which no other process has open by this function."""
    while True:
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(open(path, "wb", opener=_open_uncut))
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # the other one has renamed it
                if os.path.samestat(found := os.fstat(file.fileno()), os.stat(path)):
                    if found.st_size:  # left by a killed process
                        file.truncate()
                    opened.pop_all()
                    return file


def _open_uncut(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def expect_writable(folder: str | os.PathLike[str], field: str) -> None:
    """Raises UserError, naming the argument `field`, where no file can be written into `folder`.

    It need not be there yet, and is not made.
    """
    folder = Path(folder).absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        reason = f"{there} is no folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        reason = f"{there} is read-only, or not yours to write"
    else:
        return
    raise UserError(
        f"{field}: {folder} cannot be written ({reason}); choose another folder, or make it "
        "writable"
    )


def unreadable(path: str | os.PathLike[str], error: OSError) -> UserError:
    """Returns what to say of a file or folder that the system does not let us read."""
    if isinstance(error, PermissionError):
        advice = "ask for permission to read it (chmod, chown), or run as its owner"
    elif isinstance(error, (IsADirectoryError, NotADirectoryError)):
        advice = "check the path"
    else:
        advice = "check the disk or network folder, and try again"
    reason = error.strerror or f"{type(error).__name__}: {error}"
    return UserError(f"{error.filename or path}: cannot be read ({reason}); {advice}")


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Says in one line why the system does not let us read what is at or below `path`."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields an empty folder that vanishes at the end; also removes those of killed processes."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, someone else's, or gone by now
            if time.time() - left.stat().st_mtime > _SETTLED:
                with (left / _LOCK).open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX) as folder,
        (Path(folder) / _LOCK).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it however this process ends
        yield Path(folder).resolve()


@contextlib.contextmanager
def one_wait() -> Iterator[None]:
    """Lets the files written inside reach the disk together, before it ends.

    For many small files that count from a later one on: waiting for each takes most of the time.
    """
    token = _waits.set(False)
    try:
        yield
        os.sync()
    finally:
        _waits.reset(token)
