"""Reads and writes checkpoint files without PyTorch, and runs nothing in them.

It tells them apart by their content, never by their name: the zip files of PyTorch, the streams of
pickles that came before them, the plain pickles of NVIDIA's networks, and safetensors.
"""

import json
import mmap
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
import safetensors

from repgan_jax.errors import UserError

from . import checkpoint_names, pickle_data
from .checkpoint_names import STORAGES, Storage
from .pickle_data import RefusedError, Symbol
from .plain_data import Allowance, ByteReader, check_result, expect, shown
from .torch_writer import write
from .zip_members import Member, members

__all__ = ["read", "write"]

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LONGEST_HEADER = 4 << 20
_CHUNK = 1 << 20

_SAFETENSORS_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_OTHER_FILES = (
    (b"version https://git-lfs", "the pointer of a file in Git LFS: run `git lfs pull`"),
    (b"<", "a web page: the download failed, get the file again"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"\x89HDF", "an HDF5 file: convert it to safetensors first"),
    (b"\x89PNG", "a picture"),
)


def read(path: str | os.PathLike) -> Any:
    """Returns what a checkpoint file states: plain data, its tensors as NumPy arrays.

    Plain data are dicts, lists, tuples, sets, strings, numbers, bytes, None, and
    `plain_data.Record` for objects. Arrays and long bytes are read-only views into the file, which
    is mapped and must not be changed meanwhile: what nobody touches takes no memory. The heap
    grows by at most twice the size of the file and 256 MiB, hostile files included.

    Raises:
        UserError: the file is missing, truncated, corrupt, of another format, or asks for
            anything but weights.
    """
    path = Path(path)
    try:
        if not path.is_file():
            found = "no ordinary file" if path.exists() else "no such file"
            found = "a folder" if path.is_dir() else found
            raise UserError(f"{path}: {found}; expected a PyTorch file, or safetensors")
        with path.open("rb") as file:
            return _read(path, file)
    except UserError:
        raise
    except RefusedError as error:
        raise UserError(
            f"{path}: refused: it asks for {shown(error)}, which a checkpoint of weights has no "
            "use for; nothing in it was run. Take the file from a source you trust; if it is your "
            "own, save its tensors alone"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a PyTorch file") from error
    except Exception as error:  # a corrupt file can raise anything at all
        raise UserError(
            f"{path}: truncated or corrupt ({type(error).__name__}: {shown(error)}); expected a "
            "whole PyTorch file: get it again and compare its size or checksum"
        ) from error


def _read(path: Path, file: BinaryIO) -> Any:
    """Returns the contents of a file of any of the formats."""
    if not os.fstat(file.fileno()).st_size:
        raise UserError(f"{path}: empty; expected a PyTorch file: get it again")
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = memoryview(mapped)
    allowance = Allowance(len(data))
    if data[:4] == b"PK\x03\x04":
        if mapped.rfind(b"/data.pkl") < 0 and mapped.rfind(b"PK\x05\x06") >= 0:
            raise UserError(f"{path}: a zip archive of other files: unpack it first")
        result = _read_zip(file, data, allowance)
    elif data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data):
        result = _read_safetensors(path, data)
    elif data[:1] == b"\x80" or (bytes(data[:1]) in b"(c]})" and data[-1:] == b"."):
        result = _read_pickles(data, allowance)
    else:
        raise UserError(f"{path}: {_describe(data)}; expected a PyTorch file, or safetensors")
    check_result(result)
    return result


def _describe(data: memoryview) -> str:
    """Returns what a file of no known format seems to be."""
    start = bytes(data[:512])
    for signature, what in _OTHER_FILES:
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(signature):
            return what
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    return f"starts with {start[:8]!r}"


def _read_zip(file: BinaryIO, data: memoryview, allowance: Allowance) -> Any:
    """Returns the object in `NAME/data.pkl`; the storage of key K is the member `NAME/data/K`."""
    contents = members(data, allowance)
    folder = next(iter(contents), "").split("/")[0]

    def member(name: str) -> memoryview:
        expect(f"{folder}/{name}" in contents, f"no member {folder}/{name}")
        found = contents[f"{folder}/{name}"]
        _check_sum(file, found)
        return found.data

    def locate(key: str, dtype: np.dtype, count: int) -> Storage:
        stored = member(f"data/{key}")
        expect(len(stored) == count * dtype.itemsize, f"a storage of {len(stored)} bytes")
        return Storage(dtype, count, stored)

    if f"{folder}/byteorder" in contents:
        expect(member("byteorder") == b"little", "byte order that is not little")
    source = ByteReader(member("data.pkl"))
    result = _load(source, allowance, _Storages(locate))
    expect(not source.left(), "bytes behind the pickle")
    return result


def _check_sum(file: BinaryIO, member: Member) -> None:
    """Checks a member's checksum; read apart from the map, so that the map takes no memory yet."""
    if not member.crc32:  # PyTorch can be told not to compute it
        return
    file.seek(member.start)
    crc32, left = 0, len(member.data)
    while left:
        chunk = file.read(min(left, _CHUNK))
        expect(bool(chunk), "a member that ends too early")
        crc32, left = zlib.crc32(chunk, crc32), left - len(chunk)
    expect(crc32 == member.crc32, "a member of another checksum")


def _read_pickles(data: memoryview, allowance: Allowance, *, nested: bool = False) -> Any:
    """Returns the object in a plain pickle, or in a legacy PyTorch file, which starts as one."""
    source = ByteReader(data)
    result = _load(source, allowance, outermost=not nested)
    if type(result) is int and result == _MAGIC:
        return _read_legacy(source, allowance)
    expect(not nested, "what should be a PyTorch file within a pickle")
    expect(not source.left(), "bytes behind the pickle")
    return result


def _read_legacy(source: ByteReader, allowance: Allowance) -> Any:
    """Returns the object in a legacy file, from behind its magic number.

    Pickles follow one another: version, machine, object, list of storage keys. Then comes each
    storage as an int64 count and its elements. Where they are is known only after the object has
    been read: it is read twice.
    """
    version, machine = _load(source, allowance), _load(source, allowance)
    expect(type(version) is int and version == _LEGACY_VERSION, "an odd version")
    little = type(machine) is dict and machine.get("little_endian") is True
    expect(little, "a machine that is not little-endian")
    again = source.copy()
    storages = _Storages(lambda _, dtype, count: Storage(dtype, count, None))
    _load(source, allowance, storages)
    keys = _load(source, allowance)
    expect(type(keys) is list and all(type(key) is str for key in keys), "odd keys of storages")
    complete = len(keys) == len(storages.found) and set(keys) == set(storages.found)
    expect(complete, "other storages than its tensors need")
    located = {}
    for key in keys:
        storage = storages.found[key]
        count = int.from_bytes(source.read(8), "little")
        expect(count == storage.count, f"a storage of {count} elements")
        stored = source.view(count * storage.dtype.itemsize)
        located[key] = Storage(storage.dtype, count, stored)
    expect(not source.left(), "bytes behind the storages")
    return _load(again, allowance, _Storages(lambda key, *_: located[key]))


class _Storages:
    """The persistent ids of a PyTorch file: ("storage", type, key, device, count[, view])."""

    def __init__(self, locate: Callable[[str, np.dtype, int], Storage]):
        self._locate = locate
        self.found: dict[str, Storage] = {}

    def __call__(self, persistent_id: Any) -> Storage:
        """Returns the storage that an id names."""
        fits = type(persistent_id) is tuple and len(persistent_id) in (5, 6)
        expect(fits, "an odd id of a storage")
        kind, symbol, key, _, count, *view = persistent_id
        expect(type(kind) is str and kind == "storage", "an id that is not of a storage")
        expect(type(symbol) is Symbol and symbol in STORAGES, "a storage of odd type")
        expect(type(key) is str and type(count) is int and count >= 0, "a storage of odd size")
        expect(not view or view[0] is None, "a storage that is part of another")
        dtype = STORAGES[symbol]
        if key not in self.found:
            self.found[key] = self._locate(key, dtype, count)
        same = (self.found[key].dtype, self.found[key].count) == (dtype, count)
        expect(same, "a storage of two types or sizes")
        return self.found[key]


def _load(
    source: ByteReader,
    allowance: Allowance,
    persistent: Callable[[Any], Storage] | None = None,
    *,
    outermost: bool = False,
) -> Any:
    """Returns the object in one pickle; only the outermost may hold PyTorch files."""

    def load_from_bytes(content: Any) -> Any:
        fits = outermost and type(content) in (bytes, memoryview)
        expect(fits, "a PyTorch file within a PyTorch file")
        return _read_pickles(memoryview(content), allowance, nested=True)

    table = checkpoint_names.meanings(allowance, load_from_bytes)
    return pickle_data.load(source, table, allowance, persistent)


def _read_safetensors(path: Path, data: memoryview) -> dict[str, np.ndarray]:
    """Returns the tensors of a safetensors file by name."""
    start = 8 + int.from_bytes(data[:8], "little")
    expect(start <= _LONGEST_HEADER, "a header without end")
    tensors = {}
    with safetensors.safe_open(path, "np") as file:  # checks that they fill the file, gapless
        json.loads(bytes(data[8:start]), object_pairs_hook=_unique)
        for name in file.offset_keys():
            entry = file.get_slice(name)
            kind, shape = entry.get_dtype(), entry.get_shape()
            expect(kind in _SAFETENSORS_TYPES, f"tensor {name[:80]} of type {kind}")
            dtype = np.dtype(_SAFETENSORS_TYPES[kind])
            tensors[name] = np.ndarray(shape, dtype, data, start)
            start += tensors[name].nbytes
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object, after checking that no name comes twice."""
    result = dict(pairs)
    expect(len(result) == len(pairs), "a name that comes twice")
    return result
