"""Weights and training state on disk, through Orbax; every write is whole or absent."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from repgan_jax.errors import UserError
from repgan_jax.io.files import atomic_write

GENERATOR_FILES = ("architecture.json", "variables")  # what it draws with
_OF_A_GENERATOR = (*GENERATOR_FILES, "discriminator", "samples.png")
FORMAT = 2  # of a generator's folder; a reader refuses any other
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
    """Returns the nested dicts of numpy arrays that `write_tree` put into the folder `path`."""
    path = Path(path).absolute()
    if not (path / "tree").is_dir():
        raise UserError(f"{path}: no weights here; run the stage or converter that writes them")
    try:
        with _tree_checkpointer() as checkpointer:
            leaves = checkpointer.metadata(path / "tree").item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
            return checkpointer.restore(path / "tree", restore_args=as_numpy)
    except Exception as error:  # whatever Orbax, tensorstore or JSON find in a damaged folder
        raise UserError(_damaged(path, error)) from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as readable JSON."""
    atomic_write(Path(path), (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Returns the value in the JSON file `path`."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the stage that writes it") from error
    except (ValueError, OSError) as error:
        raise UserError(_damaged(Path(path), error)) from error


def is_generator(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a converter has written `folder`."""
    return (Path(folder) / "architecture.json").is_file()


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
        write_json(partial / "architecture.json", {"format": FORMAT, **architecture})
        _save_tree(partial / "variables", variables)
        if discriminator:
            _save_tree(partial / "discriminator", discriminator)


def check_generator(folder: str | os.PathLike[str]) -> None:
    """Raises UserError unless a converter has written `folder`."""
    if not is_generator(Path(folder)):
        raise UserError(
            f"{folder}: no generator here (no architecture.json); convert one first, "
            f"for example: python -m repgan_jax.converters.mobilestylegan {folder}"
        )


def read_generator(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (architecture, variables) of a generator that a converter wrote."""
    return read_architecture(folder), read_tree(Path(folder) / "variables")


def read_architecture(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the architecture alone of a generator that a converter wrote."""
    folder = Path(folder)
    check_generator(folder)
    architecture = read_json(folder / "architecture.json")
    found = architecture.get("format") if isinstance(architecture, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{folder}/architecture.json: format {found}, expected {FORMAT}; convert again"
        )
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
        except Exception as error:  # whatever Orbax or tensorstore find in a damaged folder
            raise UserError(_damaged(self._folder / str(step), error)) from error


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
    with _tree_checkpointer() as checkpointer:
        checkpointer.save(path / "tree", jax.tree.map(np.asarray, dict(tree)))


def _tree_checkpointer() -> ocp.Checkpointer:
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone())
    return ocp.Checkpointer(handler, multiprocessing_options=_alone())


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns options with which Orbax never waits for the other processes of a run."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [""])[0][:200]
    return f"{path}: cannot be read ({type(error).__name__}: {reason}); delete it and make it again"
