"""Weights and training state on disk, through Orbax; every write is whole or absent."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from repgan_jax.errors import UserError, first_line
from repgan_jax.io import checksums, json_files
from repgan_jax.io.files import reading, unreadable
from repgan_jax.runtime.parallel import expect_backend

ARCHITECTURE = "architecture.json"
GENERATOR_FILES = (ARCHITECTURE, "variables")  # what it draws with
_OF_A_GENERATOR = (*GENERATOR_FILES, "discriminator", "samples.png")
FORMAT = 2  # of a generator's folder; a reader refuses any other
_NOT_DRAWN_WITH = ("format", "discriminator")  # in architecture.json
Tree = Mapping[str, Any]


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder beside `path` that replaces it at the end, or vanishes on an error."""
    path = Path(path).absolute()
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    try:
        with _naming_a_full_disk(path):
            partial.mkdir(parents=True)
            yield partial
            if path.is_dir():
                shutil.rmtree(path)  # only an empty folder can be replaced
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_tree(path: str | os.PathLike[str], tree: Tree) -> None:
    """Writes nested dicts of arrays as the folder `path`, replacing an older one."""
    with new_folder(path) as partial:
        _save_tree(partial, tree)


def read_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the nested dicts of numpy arrays that `write_tree` put into the folder `path`.

    Raises:
        UserError: saying whether they are missing, may not be read, are damaged, or something else.
    """
    path = Path(path).absolute()
    expect_backend()
    _expect_tree(path)
    checked = _checked(path)
    try:
        with _tree_checkpointer() as checkpointer:
            leaves = checkpointer.metadata(path / "tree").item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
            return checkpointer.restore(path / "tree", restore_args=as_numpy)
    except Exception as error:  # whatever Orbax, tensorstore or JSON find in there
        for file in path.rglob("*"):
            if not os.access(file, os.R_OK):
                reason = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
                raise unreadable(file, reason) from error
        if checked:
            hint = "its files are as they were written, perhaps by a later version of Orbax"
        else:
            hint = "it has no checksums that could tell damage from another version of Orbax"
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); {hint} (here: {ocp.__version__}): "
            "compare it with the original, or make it again in another folder"
        ) from error


def tree_digest(path: str | os.PathLike[str]) -> str:
    """Returns the `tensor_digest` of the weights in the folder `path`.

    Raises:
        UserError: what `read_tree` refuses.
    """
    path = Path(path).absolute()
    _expect_tree(path)
    return _checked(path) or _digest_as_read(path, checksums.state(path))


@functools.lru_cache(maxsize=8)
def _digest_as_read(path: Path, state: tuple) -> str:
    """Returns the `tensor_digest` of the weights in `path`, read once for every `state` of it."""
    del state
    return checksums.tensor_digest(read_tree(path))


def _expect_tree(path: Path) -> None:
    """Raises UserError unless `path` looks like what `write_tree` leaves."""
    with reading(path):
        is_file, is_tree = path.is_file(), (path / "tree").is_dir()
    if is_file:
        raise UserError(f"{path}: is a file, expected a folder of weights; check the path")
    if not is_tree:
        raise UserError(f"{path}: no weights here; run the stage or converter that writes them")


def _checked(path: Path) -> str | None:
    """Returns what `checksums.check` does; raises UserError also for files that may not be read."""
    with reading(path):
        return checksums.check(path)


def is_generator(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a converter has written `folder`."""
    with reading(folder):
        return (Path(folder) / ARCHITECTURE).is_file()


def check_target(folder: str | os.PathLike[str]) -> None:
    """Raises UserError unless a generator may be written to `folder`: nothing else is replaced."""
    folder = Path(folder)
    others = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in others if name not in _OF_A_GENERATOR]
    if others or (folder.exists() and not folder.is_dir()):
        what = f"{others[0]!r} and perhaps more" if others else "a file"
        raise UserError(
            f"{folder}: would be replaced, but is or holds something else than a generator "
            f"({what}); choose another folder"
        )


def write_generator(
    folder: str | os.PathLike[str],
    architecture: Mapping[str, Any],
    variables: Tree,
    discriminator: Tree | None = None,
) -> None:
    """Writes a converted generator: architecture.json and its variables, all or nothing.

    Args:
        folder: new, empty, or holding an older conversion, which is replaced.
        architecture: as JSON.
        variables: of the generator.
        discriminator: its tensors as their source names them, for those who train on.
    """
    check_target(folder)
    with new_folder(folder) as partial:
        json_files.write(partial / ARCHITECTURE, {"format": FORMAT, **architecture})
        _save_tree(partial / "variables", variables)
        if discriminator:
            _save_tree(partial / "discriminator", discriminator)


def check_generator(folder: str | os.PathLike[str]) -> None:
    """Raises UserError unless a converter has written `folder`."""
    folder = Path(folder)
    if not is_generator(folder) and folder.is_file():
        raise UserError(
            f"{folder}: is a file, expected the folder of a converted generator; convert it first: "
            f"python -m repgan_jax.converters.stylegan2 {folder} OUT"
        )
    if not is_generator(folder):
        found = "no architecture.json" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder}: no generator here ({found}); convert one first, "
            f"for example: python -m repgan_jax.converters.mobilestylegan {folder}"
        )


def generator_digest(folder: str | os.PathLike[str]) -> str:
    """Returns a digest of what the generator in `folder` draws with: architecture and tensors.

    Converting a checkpoint again does not change it.

    Raises:
        UserError: what `read_generator` refuses.
    """
    return architecture_digest(read_architecture(folder), tree_digest(Path(folder) / "variables"))


def architecture_digest(architecture: Mapping[str, Any], tensors: str) -> str:
    """Returns a digest of a generator's `architecture` and the digest of its tensors."""
    decisive = {key: value for key, value in architecture.items() if key not in _NOT_DRAWN_WITH}
    text = json.dumps({"architecture": decisive, "tensors": tensors}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_generator(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (architecture, variables) of a generator that a converter wrote."""
    return read_architecture(folder), read_tree(Path(folder) / "variables")


def read_architecture(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the architecture alone of a generator that a converter wrote."""
    folder = Path(folder)
    check_generator(folder)
    path = folder / ARCHITECTURE
    architecture = json_files.read(path)
    found = architecture.get("format") if isinstance(architecture, dict) else None
    if found != FORMAT:
        later = isinstance(found, int) and found > FORMAT
        advice = "was converted by a later version: install that, or " if later else ""
        raise UserError(f"{path}: format {found}, expected {FORMAT}; {advice}convert again")
    return architecture


class Checkpoints:
    """The newest states of a training run; after a kill the last whole one is found again."""

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2):
        self._folder = Path(folder).absolute()  # with a relative one Orbax fails late and silently
        self._folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,  # refused together with the last one
            enable_async_checkpointing=False,
            multiprocessing_options=_alone(),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, tree: Any) -> None:
        """Writes `tree`, any pytree of arrays, as the state after `step` steps."""
        with _naming_a_full_disk(self._folder):
            self._manager.save(step, args=ocp.args.StandardSave(tree))

    def latest(self) -> int | None:
        """Returns the newest whole step, or None before the first."""
        return self._manager.latest_step()

    def restore(self, like: Any, *, step: int | None = None) -> Any:
        """Returns the state at `step` (the newest), in structure, type and placement as `like`."""
        step = self.latest() if step is None else step
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:  # whatever Orbax or tensorstore find in there
            path = self._folder / str(step)
            raise UserError(
                f"{path}: cannot be read ({first_line(error)}); it is damaged, or of other "
                f"settings or another version of Orbax (here: {ocp.__version__}): move it away to "
                "go on from the state before it"
            ) from error


@contextlib.contextmanager
def _naming_a_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        # Orbax passes on tensorstore's ValueError, with the system's words inside.
        if isinstance(error, OSError) or "No space left" in str(error):
            reason = getattr(error, "strerror", None) or "No space left on device"
            raise UserError(
                f"{path}: not written ({reason}); make room or choose another folder"
            ) from error
        raise


def _save_tree(path: Path, tree: Tree) -> None:
    arrays = jax.tree.map(np.asarray, dict(tree))
    with _tree_checkpointer() as checkpointer:
        checkpointer.save(path / "tree", arrays)
    checksums.write(path, arrays)


def _tree_checkpointer() -> ocp.Checkpointer:
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone())
    return ocp.Checkpointer(handler, multiprocessing_options=_alone())


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns options with which Orbax never waits for the other processes of a run."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
