"""Checksums beside weights: they prove damage, and tell what is in there without reading it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.io.files import atomic_write

NAME = "checksums.json"  # {"format", "tensors": digest of names and numbers, "files": {name: hash}}
_FORMAT = 1


def tensor_digest(tree: Any) -> str:
    """Returns a hexadecimal digest of names, types, shapes and numbers of arrays in nested dicts.

    It does not depend on the order of the names, nor on how a file stores the arrays.
    """
    total = hashlib.sha256()
    named = ((jax.tree_util.keystr(path), x) for path, x in jax.tree.leaves_with_path(tree))
    for name, leaf in sorted(named, key=lambda pair: pair[0]):
        array = np.asarray(leaf)
        total.update(json.dumps([name, array.dtype.name, array.shape]).encode() + b"\0")
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def write(folder: Path, tree: Any) -> None:
    """Writes into `folder` the checksums of all files below it, which hold `tree`."""
    found = {"format": _FORMAT, "tensors": tensor_digest(tree), "files": _hashes(folder)}
    atomic_write(folder / NAME, (json.dumps(found, indent=2) + "\n").encode())


def check(folder: Path) -> str | None:
    """Returns the `tensor_digest` of what `folder` holds; None where it has no checksums.

    Raises:
        UserError: files that are missing, cut or changed since they were written.
    """
    try:
        noted = json.loads((folder / NAME).read_bytes())
        expected, digest = dict(noted["files"]), str(noted["tensors"])
        known = noted["format"] == _FORMAT
    except FileNotFoundError:
        return None  # written by an earlier version
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder}: damaged ({NAME} is not what was written); delete {folder} and make it again"
        ) from error
    if not known:
        return None
    found = _hashes(folder)
    missing = sorted(name for name in expected if name not in found)
    changed = sorted(name for name in expected if found.get(name, expected[name]) != expected[name])
    if missing or changed:
        counts = ((missing, "missing"), (changed, "not as it was written"))
        what = ", ".join(f"{names[0]} {how}" for names, how in counts if names)
        more = len(missing) + len(changed) - bool(missing) - bool(changed)
        raise UserError(
            f"{folder}: damaged, as its checksums show ({what}{f', {more} more' if more else ''}); "
            "delete it and make it again"
        )
    return digest


def state(folder: Path) -> tuple:
    """Returns names, sizes and times of change of all files below `folder`."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(p), (s := p.stat()).st_size, s.st_mtime_ns) for p in found)


def _hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below `folder`, by relative name."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != NAME and not any(part.startswith(".") for part in Path(name).parts):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
