"""Runs whose folder is on Google Cloud Storage, as gs://bucket/run, through `etils.epath`.

They work on a local folder in its place; `pull` and `push` move what changed, and do nothing for
a folder that is local anyway. Shards are large: here they are holes, files of the right size that
take no room, until `fetch` brings their bytes.
"""

import contextlib
import functools
import logging
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
from etils import epath
from tqdm import tqdm

from repgan_jax.errors import UserError
from repgan_jax.io import files

SCHEME = "gs://"
LAST = "stage.json"  # says that the other files are there, so it is sent after them
_SHARD = ".array_record-"  # in the names of files that are holes here
_KEPT = ".kept.tar"  # all files of an unfinished folder
_THREADS = 16  # that wait for the network
_CHUNK = 2**24  # bytes

State = tuple[int, int]  # size and time of change


@dataclass(frozen=True)
class _Mirror:
    """A local folder in place of a remote one.

    Attributes:
        local: the folder.
        remote: what it stands for.
        known: local files that are there in the same state.
        holes: those of them whose bytes are only there.
    """

    local: Path
    remote: epath.Path
    known: dict[Path, State] = field(default_factory=dict)
    holes: dict[Path, State] = field(default_factory=dict)

    def there(self, path: Path) -> epath.Path:
        return self.remote / path.relative_to(self.local).as_posix()

    def dig(self, path: Path, size: int) -> None:
        """Makes `path` a hole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
        self.known[path] = self.holes[path] = _state(path)


_mirrors: ContextVar[tuple[_Mirror, ...]] = ContextVar("_mirrors", default=())


def is_remote(path: Path) -> bool:
    """Returns whether `path` is in place of a remote one."""
    return _mirror_of(path) is not None


@contextlib.contextmanager
def working_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the folder in which to work on `path`: itself, or a temporary one where it is remote.

    Errors that name the temporary one name `path` instead.
    """
    if not str(path).startswith(SCHEME):
        yield Path(path).expanduser()
        return
    os.environ.setdefault("EPATH_USE_TF", "false")  # one way to the bucket, whatever is installed
    for logger in ("gcsfs", "google.auth"):  # what is wrong will be raised as well
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # others write, too
    remote = epath.Path(str(path))
    with files.temporary_folder() as temporary:
        local = temporary / remote.name
        local.mkdir()
        token = _mirrors.set((*_mirrors.get(), _Mirror(local, remote)))
        try:
            yield local
        except UserError as error:
            raise UserError(str(error).replace(str(local), str(remote))) from error
        finally:
            _mirrors.reset(token)


def name(path: Path) -> str:
    """Returns what to call `path`: that which it stands for, or itself."""
    mirror = _mirror_of(path)
    return str(mirror.there(path) if mirror else path)


def find(path: Path) -> list[Path]:
    """Returns the local names of all files that are remotely below `path`; none where it is local.

    Names with a dot in front are left out.
    """
    if not (mirror := _mirror_of(path)):
        return []
    top, found = None, []
    with _reaching(path):
        for root, _, names in mirror.there(path).walk(on_error=_raise_unless_missing):
            top = top or root  # not always what was asked for: some backends leave gs:// out
            found += [path.joinpath(*root.relative_to(top).parts, item) for item in names]
    return sorted(file for file in found if _is_visible(file.relative_to(path)))


def pull(path: Path) -> None:
    """Makes the file or folder `path` what it is remotely, but shards holes."""
    if not (mirror := _mirror_of(path)):
        return
    found = find(path) or ([] if path.is_dir() else [path])
    before = [file for file in mirror.known if file.is_relative_to(path)]  # some may be gone
    _in_parallel(functools.partial(_get, mirror), {*found, *before})


def push(path: Path) -> None:
    """Sends what has changed at or below `path` since it was pulled or pushed; shards become holes.

    Shards go first, the record of a stage last, for each says that what went before is there.
    """
    if not (mirror := _mirror_of(path)):
        return
    present = [path] if path.is_file() else _files(path)
    changed = [file for file in present if mirror.known.get(file) != _state(file)]
    gone = [file for file in mirror.known if file.is_relative_to(path) and not file.exists()]
    send = functools.partial(_send, mirror)
    _in_parallel(send, [file for file in changed if _SHARD in file.name])
    _in_parallel(send, [f for f in changed if _SHARD not in f.name and f.name != LAST])
    _in_parallel(send, [file for file in changed if file.name == LAST])
    _in_parallel(functools.partial(_remove, mirror), gone)


def fetch(path: Path) -> None:
    """Brings the bytes of all shards at or below `path` that are holes."""
    if not (mirror := _mirror_of(path)):
        return
    holes = [file for file in mirror.holes if file.is_relative_to(path)]
    holes = [file for file in holes if file.exists() and _state(file) == mirror.holes[file]]
    with tqdm(total=len(holes), desc="fetch", unit="shard", disable=len(holes) < 2) as bar:

        def fill(file: Path) -> None:
            with files.atomic_open(file) as copy:
                for chunk in _chunks(mirror, file):
                    copy.write(chunk)
            mirror.known[file] = _state(file)
            bar.update()

        _in_parallel(fill, holes)


@contextlib.contextmanager
def fetched(path: Path) -> Iterator[None]:
    """Has the bytes of the shard `path` here, while it lasts."""
    mirror = _mirror_of(path)
    if not mirror or not path.exists():
        yield
        return
    mirror.dig(path, path.stat().st_size)  # those that are there are meant, whatever is here
    try:
        fetch(path)
        yield
    finally:
        mirror.dig(path, path.stat().st_size)


def keep(folder: Path) -> None:
    """Sends an unfinished `folder` as one object, for `restore` anywhere; whole, or as before."""
    if not is_remote(folder):
        return
    with files.atomic_open(folder / _KEPT) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for path in _files(folder):
            if path.name != LAST:
                tar.add(path, path.relative_to(folder))
    push(folder / _KEPT)


def restore(folder: Path) -> None:
    """Makes an unfinished `folder` what it was when it was kept."""
    pull(folder / _KEPT)
    if (folder / _KEPT).exists():
        with tarfile.open(folder / _KEPT) as tar:
            tar.extractall(folder, filter="data")


def finish(folder: Path) -> None:
    """Sends a finished `folder`; what was kept of it before is not needed any more."""
    (folder / _KEPT).unlink(missing_ok=True)
    push(folder)


def _mirror_of(path: Path) -> _Mirror | None:
    return next((m for m in _mirrors.get() if path.is_relative_to(m.local)), None)


def _state(path: Path) -> State:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if _is_visible(path.relative_to(folder)))


def _is_visible(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def _in_parallel(work: Callable[[Path], None], paths: Iterable[Path]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, paths))  # raises what one of them has raised


def _get(mirror: _Mirror, path: Path) -> None:
    """Makes the file `path` what it is remotely: other bytes, a hole, or gone."""
    try:
        with _reaching(path):
            if _SHARD in path.name:
                size = mirror.there(path).stat().length
                here = _state(path) if path.exists() else (-1, 0)
                if here != mirror.known.get(path) or here[0] != size:
                    mirror.dig(path, size)
                return
            content = mirror.there(path).read_bytes()
    except FileNotFoundError:
        path.unlink(missing_ok=True)
        mirror.known.pop(path, None)
        return
    files.atomic_write(path, content)
    mirror.known[path] = _state(path)


def _chunks(mirror: _Mirror, path: Path) -> Iterator[bytes]:
    with _reaching(path), mirror.there(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _send(mirror: _Mirror, path: Path) -> None:
    """Copies the file `path` to a name of its own, which is then renamed: it is whole or not there.

    A write that fails may leave its first part; two runs must not write to one name.
    """
    target, state = mirror.there(path), _state(path)
    partial = target.with_name(f".{secrets.token_hex(8)}.part")  # brackets would be a pattern
    try:
        with _reaching(path):
            with path.open("rb") as file, partial.open("wb") as copy:
                shutil.copyfileobj(file, copy, _CHUNK)
            partial.replace(target)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not written, for there is no such bucket; create it") from error
    mirror.known[path] = state
    if _SHARD in path.name:
        mirror.dig(path, state[0])


def _remove(mirror: _Mirror, path: Path) -> None:
    with _reaching(path):
        mirror.there(path).unlink(missing_ok=True)
    del mirror.known[path]


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextlib.contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """Says in one line why `path` cannot be reached remotely; what is missing is the caller's."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except ImportError as error:
        raise UserError(f'{path}: needs gcsfs; pip install "repgan-jax[gcs]"') from error
    except Exception as error:  # of whatever stands below epath: gcsfs, aiohttp, Google's own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: not reached ({reason}); check the network, that you are logged in "
            "(gcloud auth application-default login), and what you may do in that bucket"
        ) from error
