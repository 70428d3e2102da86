"""Latents by name, in an .npz file: of shots, and to start latent optimisation from."""

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.io import files

_ZIP, _NPY = b"PK\x03\x04", b"\x93NUMPY"  # how files of these kinds begin
_FORM = "expected w [k, D] or [k, L, D] (the generator's mapping of z) and name or seed [k]"
_HOW = "write it with np.savez(path, w=w, name=np.array(names, dtype=str))"


def read_latents(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the float32 latents [D] or [L, D] by file stem.

    Raises:
        UserError: saying whether the file is missing, may not be read, is of another kind, damaged,
            or holds something else.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    if "w" not in arrays or not {"name", "seed"} & arrays.keys():
        raise UserError(f"{path}: holds {', '.join(arrays) or 'nothing'}; {_FORM}: {_HOW}")
    names = _names(path, arrays)
    w = arrays["w"]
    if w.dtype.kind not in "fiu":
        raise UserError(f"{path}: w is of type {w.dtype}, expected numbers; {_HOW}")
    if w.ndim not in (2, 3) or len(w) != len(names):
        raise UserError(
            f"{path}: w of shape {list(w.shape)} for {len(names)} names; expected [k, D] or "
            "[k, L, D], one for each name"
        )
    w = w.astype(np.float32)
    for name, latent in zip(names, w, strict=True):
        if not np.isfinite(latent).all():
            raise UserError(f"{path}: the latent of {name!r} has infinite numbers or NaN; {_FORM}")
    return dict(zip(names, w, strict=True))


def _names(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """Returns the k file stems, each once."""
    key = "name" if "name" in arrays else "seed"
    found = arrays[key]
    if found.ndim != 1 or found.dtype.kind not in ("SUiu" if key == "name" else "iu"):
        kind = "text" if key == "name" else "whole numbers"
        raise UserError(
            f"{path}: {key} of type {found.dtype} and shape {list(found.shape)}; expected {kind}, "
            f"[k]: {_HOW}"
        )
    if key == "seed":
        names = [f"seed{seed:03d}" for seed in found.tolist()]
    else:
        names = [
            item.decode(errors="surrogateescape") if isinstance(item, bytes) else str(item)
            for item in found.tolist()
        ]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {twice[0]!r} is there twice; expected each name once")
    return names


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns what is in an .npz file, by name; no object in it is ever built."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no latents (no such file); {_FORM}") from error
    except OSError as error:
        raise files.unreadable(path, error) from error
    if not start.startswith(_ZIP):
        found = "an .npy file, of a single array" if start.startswith(_NPY) else "something else"
        raise UserError(f"{path}: no .npz file, but {found if start else 'empty'}; {_FORM}: {_HOW}")
    arrays, name = {}, ""
    try:
        with np.load(path) as archive:
            for name in archive.files:
                arrays[name] = np.asarray(archive[name])
    except OSError as error:
        raise files.unreadable(path, error) from error
    except zipfile.BadZipFile as error:
        if name:  # a member's checksum
            reason = f"{name} is damaged, as its checksum shows"
        else:
            reason = "an .npz file whose end is missing: it was cut, or is still being written"
        raise UserError(f"{path}: {reason}; copy or make it again") from error
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: {name} holds Python objects, which are never read from a file; names "
                f"must be text and w numbers: {_HOW}"
            ) from error
        raise UserError(f"{path}: {name} cannot be read ({error}); {_FORM}: {_HOW}") from error
    except Exception as error:  # whatever numpy, zipfile and zlib find in a damaged member
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: {name or 'it'} cannot be read ({reason}); compare it with the original, or "
            f"{_HOW}"
        ) from error
    return arrays
