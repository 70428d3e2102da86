"""Objects of the library on disk: `config.json` beside `model.safetensors`, whole or absent.

Reading runs no code: JSON for the architecture, safetensors for the weights.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, checksums, json_files

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1  # of the folder; other formats are rejected
_SEPARATOR = "/"  # between the keys of nested dicts, in names of tensors


def is_object(folder: str | os.PathLike[str]) -> bool:
    """Returns whether `folder` holds an object that `write` wrote."""
    return (Path(folder) / CONFIG).is_file()


def write(
    folder: str | os.PathLike[str], kind: str, config: Mapping[str, Any], variables: Any
) -> None:
    """Writes an object to `folder`, whole or not at all; replaces an object of the same kind.

    Args:
        folder: new, empty, or holding an object of this kind.
        kind: "Generator", "Labeller" or "Segmenter".
        config: what is needed beside the weights to build the object, as JSON.
        variables: nested dicts of arrays.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    _check_target(Path(folder), kind)
    flat = traverse_util.flatten_dict(dict(variables), sep=_SEPARATOR)
    tensors = {name: np.asarray(jax.device_get(leaf), order="C") for name, leaf in flat.items()}
    with checkpoint.new_folder(folder) as partial:
        save_file(tensors, partial / WEIGHTS, metadata={"kind": kind})
        sums = {
            "sha256": _hash(partial / WEIGHTS),
            "tensors": checksums.tensor_digest(variables),
        }
        head = {"kind": kind, "format": FORMAT, "checksums": sums}
        json_files.write(partial / CONFIG, {**head, **config})


def read(folder: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, variables as nested dicts of numpy arrays) of the object in `folder`.

    Raises:
        UserError: no object there, one of another kind or format, or damaged files.
    """
    folder = Path(folder)
    config = read_config(folder, kind)
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder}: no {WEIGHTS} beside {CONFIG}; save the {kind} again")
    try:
        if _hash(path) != config["checksums"]["sha256"]:
            raise UserError(
                f"{path}: damaged (its checksum is not the one in {CONFIG}); save the {kind} again"
            )
        with safe_open(path, framework="numpy") as file:
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); check the file and the disk") from error
    return config, traverse_util.unflatten_dict(flat, sep=_SEPARATOR)


def read_config(folder: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Returns the config alone of the object in `folder`.

    Raises:
        UserError: as `read`.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder}: no {kind} here (no {CONFIG}); expected a folder that `save` wrote"
        )
    config = json_files.read(path)
    found = config.get("kind") if isinstance(config, dict) else None
    if found != kind:
        raise UserError(f"{path}: holds {found or 'no object of this library'}, expected {kind}")
    if config.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {config.get('format')}, expected {FORMAT}; save it again with this "
            "version of the library"
        )
    return config


def digest(folder: str | os.PathLike[str], kind: str) -> str:
    """Returns the `checksums.tensor_digest` of the object in `folder`, as it was written."""
    return read_config(folder, kind)["checksums"]["tensors"]


def check_shapes(folder: str | os.PathLike[str], expected: Any, found: Any) -> None:
    """Raises UserError with the first tensor that is missing, unknown or of another shape.

    Args:
        folder: named in the error.
        expected: nested dicts whose leaves have shapes.
        found: likewise.
    """
    shapes = [
        {jax.tree_util.keystr(k): np.shape(x) for k, x in jax.tree.leaves_with_path(tree)}
        for tree in (expected, found)
    ]
    for name in sorted(shapes[0] | shapes[1]):
        wanted, given = (tree.get(name) for tree in shapes)
        if wanted != given:
            raise UserError(
                f"{folder}: tensor {name} has shape "
                f"{'none (missing)' if given is None else given}, expected "
                f"{'none (unknown)' if wanted is None else wanted}; convert or save it again"
            )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_target(folder: Path, kind: str) -> None:
    """Raises UserError unless an object of `kind` may be written to `folder`."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if not names:
        return
    same = False
    if folder.is_dir() and names <= {CONFIG, WEIGHTS}:
        try:
            same = json.loads((folder / CONFIG).read_bytes()).get("kind") == kind
        except (OSError, ValueError, AttributeError):
            same = False
    if not same:
        raise UserError(
            f"{folder}: would be replaced, but holds something other than a saved {kind}; "
            "choose another folder"
        )
