"""Reads PyTorch checkpoint files without PyTorch, and without running anything in them.

A `.pt` file is a pickle with raw storages beside it, and a pickle is a program: it names functions
and calls them. This reader knows the few names that a checkpoint of weights needs, gives each a
harmless meaning of its own (`_Unpickler.find_class`), and refuses every other. It reads the zip
format (PyTorch 1.6 and later) and the stream of pickles that came before it.
"""

import collections
import io
import math
import os
import pickle
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from repgan_jax.errors import UserError

_ZIP_START = b"PK\x03\x04"
_LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_LEGACY_VERSION = 1001

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def read(path: str | os.PathLike) -> Any:
    """Returns the object in a PyTorch file, its tensors as NumPy arrays.

    Raises:
        UserError: if the file is missing, truncated, corrupt, of another format, or asks for
            anything but weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_START))
            if start.startswith(_ZIP_START):
                return _read_zip(file)
            if start == _LEGACY_START:
                return _read_legacy(file)
    except _RefusedError as error:
        raise UserError(
            f"{path}: refused: it asks for {error}, which a checkpoint of weights has no use for; "
            "nothing in it was run. Take the file from a source you trust"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a PyTorch file") from error
    except Exception as error:  # a corrupt pickle can raise anything at all
        raise UserError(
            f"{path}: truncated or corrupt ({type(error).__name__}: {error}); expected a whole "
            "PyTorch file: get it again and compare its size or checksum"
        ) from error
    raise UserError(f"{path}: starts with {start[:8]!r}; expected a PyTorch file, zip or legacy")


def _read_zip(file: BinaryIO) -> Any:
    """Returns the object in `NAME/data.pkl`; the storage of key K is the member `NAME/data/K`."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        folder = members[0].filename.split("/")[0]
        for member in members:
            parts = member.filename.split("/")
            if parts[0] != folder or ".." in parts:
                raise ValueError(f"member {member.filename!r} lies outside {folder!r}")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"member {member.filename!r} is compressed")
        if sum(member.file_size for member in members) > _size(file):
            raise ValueError("the members are larger than the file")
        if (byteorder := f"{folder}/byteorder") in archive.namelist():
            _check("byte order", archive.read(byteorder), b"little")

        def load(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            data = archive.read(f"{folder}/data/{key}")
            _check(f"bytes of storage {key}", len(data), count * dtype.itemsize)
            return np.frombuffer(data, dtype)

        return _Unpickler(io.BytesIO(archive.read(f"{folder}/data.pkl")), load).load()


def _read_legacy(file: BinaryIO) -> Any:
    """Returns the object in a legacy file, from behind its magic number.

    Pickles follow one another: version, machine, object, list of storage keys. Then comes each
    storage as an int64 count and its elements: tensors are views that get filled at the end.
    """
    storages: dict[str, np.ndarray] = {}
    free = _size(file)

    def reserve(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        nonlocal free
        free -= count * dtype.itemsize
        if count < 0 or free < 0:
            raise ValueError("the storages are larger than the file")
        storages[key] = np.zeros(count, dtype)
        return storages[key]

    def unpickle() -> Any:
        return _Unpickler(file, reserve).load()

    _check("version", unpickle(), _LEGACY_VERSION)
    _check("little-endian", unpickle()["little_endian"], True)
    result, keys = unpickle(), unpickle()
    _check("storages", sorted(keys), sorted(storages))
    for key in keys:
        storage = storages[key]
        _check(f"elements of storage {key}", int.from_bytes(file.read(8), "little"), storage.size)
        data = file.read(storage.nbytes)
        _check(f"bytes of storage {key}", len(data), storage.nbytes)
        storage[:] = np.frombuffer(data, storage.dtype)
    return result


class _RefusedError(Exception):
    """A pickle asks for a name that is not allowed."""


class _Unpickler(pickle._Unpickler):
    """Builds containers, numbers, strings and tensors; knows no other object.

    What `find_class` hands out must stay harmless whatever a pickle does with it: call it with any
    arguments, or set attributes on it. Strings, built-in types and bound methods refuse the latter.
    Derives from the unpickler in Python, since the one in C sets aside whatever memory a corrupt
    file's memo index asks for.
    """

    def __init__(self, file: BinaryIO, load: Callable[[str, np.dtype, int], np.ndarray]):
        super().__init__(file)
        self._load = load
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns our own meaning of a global name."""
        if module == "torch" and name in _STORAGES:
            return name
        meanings = {
            "collections.OrderedDict": collections.OrderedDict,
            "argparse.Namespace": types.SimpleNamespace,  # rosinality's training options
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
        }
        if f"{module}.{name}" not in meanings:
            raise _RefusedError(f"{module}.{name}")
        return meanings[f"{module}.{name}"]

    def persistent_load(self, pid: tuple) -> np.ndarray:
        """Returns the storage that ("storage", type, key, device, count[, view]) names."""
        kind, storage_type, key, _, count, *view = pid
        _check("kind", (kind, view in ([], [None])), ("storage", True))
        dtype = np.dtype(_STORAGES[storage_type])
        if key not in self._storages:
            self._storages[key] = self._load(key, dtype, count)
        storage = self._storages[key]
        _check(f"type of storage {key}", (storage.dtype, storage.size), (dtype, count))
        return storage

    def _tensor(
        self, storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any
    ) -> np.ndarray:
        """Returns a view into `storage`, after checking that it lies inside."""
        if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
            raise ValueError(f"tensor with offset {offset}, shape {shape}, strides {strides}")
        last = offset + sum(stride * (n - 1) for n, stride in zip(shape, strides, strict=True))
        # a stride of 0 could make a small storage look endless: hence the second comparison
        count = math.prod(shape)
        if count and (last >= storage.size or count > storage.size):
            raise ValueError(f"tensor {shape} reaches outside its storage of {storage.size}")
        steps = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)

    def _parameter(self, tensor: np.ndarray, *_: Any) -> np.ndarray:
        return tensor


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _check(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(f"{what}: found {found!r}, expected {expected!r}")
