"""Writes PyTorch's zip files without PyTorch."""

import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from repgan_jax.io.files import atomic_open

from .checkpoint_names import STORAGES

_NAMES = {dtype: symbol.name for symbol, dtype in STORAGES.items() if symbol.module == "torch"}
_ALIGNMENT = 64  # bytes, as PyTorch aligns storages
_FILE_HEADER = 30  # bytes before a member's name


def write(path: str | os.PathLike, state: Any) -> None:
    """Writes `state` so that `torch.load` and `torch_file.read` give it back, bit for bit.

    Args:
        path: file to write, whole or not at all.
        state: dicts, lists and tuples of NumPy arrays, numbers, strings and None.

    Raises:
        UserError: the file cannot be written.
        TypeError: something else is in `state`.
    """
    arrays: list[np.ndarray] = []
    members: dict[str, bytes | np.ndarray] = {
        "data.pkl": b"\x80\x02" + b"".join(_pickle(state, arrays)) + pickle.STOP,
        "byteorder": b"little",
        **{f"data/{key}": array for key, array in enumerate(arrays)},
        "version": b"3\n",
    }
    with atomic_open(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            _write_member(archive, f"archive/{name}", content)


def _write_member(archive: zipfile.ZipFile, name: str, content: bytes | np.ndarray) -> None:
    """Writes one member, its bytes aligned by padding that readers skip."""
    data: bytes | memoryview
    if isinstance(content, np.ndarray):  # one array at a time is brought into order
        little = content.astype(content.dtype.newbyteorder("<"), copy=False)
        data = np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
    else:
        data = content
    info = zipfile.ZipInfo(name)
    header = archive.start_dir + _FILE_HEADER + len(name) + 4
    padding = -header % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, data)


def _pickle(value: Any, arrays: list[np.ndarray]) -> Iterator[bytes]:
    """Yields the operations of protocol 2 that state `value`; puts its arrays into `arrays`."""
    if value is None or isinstance(value, bool):
        yield {None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}[value]
    elif isinstance(value, int):
        number = pickle.encode_long(value)
        yield pickle.LONG1 + bytes([len(number)]) + number
    elif isinstance(value, float):
        yield pickle.BINFLOAT + struct.pack(">d", value)
    elif isinstance(value, str):
        text = value.encode()
        yield pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    elif isinstance(value, np.ndarray):
        yield from _pickle_tensor(value, arrays)
    elif isinstance(value, dict):
        yield pickle.EMPTY_DICT + pickle.MARK
        for key, item in value.items():
            yield from _pickle(key, arrays)
            yield from _pickle(item, arrays)
        yield pickle.SETITEMS
    elif isinstance(value, list | tuple):
        is_list = isinstance(value, list)
        yield pickle.EMPTY_LIST + pickle.MARK if is_list else pickle.MARK
        for item in value:
            yield from _pickle(item, arrays)
        yield pickle.APPENDS if is_list else pickle.TUPLE
    else:
        raise TypeError(f"a {type(value).__name__} has no place in a PyTorch file of weights")


def _pickle_tensor(array: np.ndarray, arrays: list[np.ndarray]) -> Iterator[bytes]:
    """Yields a call of torch._utils._rebuild_tensor_v2 over a storage of its own."""
    kind = _NAMES.get(array.dtype.newbyteorder("="))
    if kind is None:
        raise TypeError(f"PyTorch files have no arrays of {array.dtype}")
    strides = tuple(np.cumprod((1, *array.shape[:0:-1])).tolist()[::-1]) if array.ndim else ()
    yield b"ctorch._utils\n_rebuild_tensor_v2\n" + pickle.MARK
    yield from (pickle.MARK, *_pickle("storage", arrays), f"ctorch\n{kind}\n".encode())
    key = str(len(arrays))
    arrays.append(array)
    for part in (key, "cpu", array.size):
        yield from _pickle(part, arrays)
    yield pickle.TUPLE + pickle.BINPERSID
    for item in (0, array.shape, strides, False):
        yield from _pickle(item, arrays)
    yield b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
    yield pickle.TUPLE + pickle.REDUCE
