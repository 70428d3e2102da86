"""PyTorch's zip files and legacy streams, written by the tests, PyTorch's names by stand-ins."""

import argparse
import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.converters.pytorch_files.checkpoint_names import STORAGES
from repgan_jax.converters.pytorch_files.plain_data import Record
from repgan_jax.errors import UserError

KINDS = {symbol.name: dtype for symbol, dtype in STORAGES.items() if symbol.module == "torch"}
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


class Storage:
    """Stands for a storage in a pickle: type name, key, elements."""

    def __init__(self, kind, key, array, count=None):
        self.kind, self.key, self.array = kind, key, np.asarray(array)
        self.count = self.array.size if count is None else count


class Tensor:
    """Stands for a tensor in a pickle: a view into a storage."""

    def __init__(self, storage, offset, shape, strides):
        self.args = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.args


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture(autouse=True)
def torch_names(monkeypatch):
    """Modules under PyTorch's names, so that pickles can be written that refer to them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in KINDS:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def pickled(value, *, legacy):
    """Returns (pickle of `value`, its storages by key)."""
    storages = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Storage):
                return None
            storages[item.key] = item.array
            kind = getattr(sys.modules["torch"], item.kind)
            return ("storage", kind, item.key, "cpu", item.count, *([None] if legacy else []))

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(value)
    return file.getvalue(), storages


def write_zip(path, value, *, compression=zipfile.ZIP_STORED, extra=(), leave_out=()):
    data, storages = pickled(value, legacy=False)
    members = {"net/data.pkl": data, "net/byteorder": b"little", **dict(extra)}
    members |= {f"net/data/{key}": array.tobytes() for key, array in storages.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            if name not in leave_out:
                archive.writestr(name, content)
    return path


def write_legacy(path, value, *, machine=None):
    data, storages = pickled(value, legacy=True)
    head = [1001, machine or {"little_endian": True}]
    parts = [MAGIC, *(pickle.dumps(item, protocol=2) for item in head), data]
    parts.append(pickle.dumps(list(storages), protocol=2))
    parts += [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


@WRITERS
def test_reads_tensors_of_every_type_and_layout(write, tmp_path):
    numbers = {kind: np.arange(7).astype(dtype) for kind, dtype in KINDS.items()}
    state = collections.OrderedDict(
        (kind, Tensor(Storage(kind, kind, array), 1, (2, 3), (1, 2)))
        for kind, array in numbers.items()
    )
    shared = Storage("FloatStorage", "shared", np.arange(5, dtype=np.float32))
    state |= {"a": Tensor(shared, 0, (), ()), "b": Tensor(shared, 4, (1,), (1,))}
    state["empty"] = Tensor(shared, 5, (0, 3), (3, 1))
    utils = sys.modules["torch._utils"]
    state["parameter"] = Call(utils._rebuild_parameter, state["b"], True, collections.OrderedDict())
    state["args"] = argparse.Namespace(size=64)
    found = torch_file.read(write(tmp_path / "net.pt", state))
    for kind, array in numbers.items():
        assert found[kind].dtype == array.dtype
        np.testing.assert_array_equal(found[kind], array[1:].reshape(3, 2).T)
    assert found["a"] == 0 and found["b"] == found["parameter"] == 4
    assert found["empty"].shape == (0, 3)
    assert found["args"] == Record("argparse.Namespace", {"size": 64})


@WRITERS
@pytest.mark.parametrize("count", [3, 5, -1, 1 << 60])
def test_refuses_storages_of_another_size(write, count, tmp_path):
    storage = Storage("FloatStorage", "0", np.zeros(4, np.float32), count)
    with pytest.raises(UserError, match="corrupt"):
        torch_file.read(write(tmp_path / "net.pt", [Tensor(storage, 0, (1,), (1,))]))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"extra": {"../evil": b""}}, "outside"),
        ({"extra": {"net/../../evil": b""}}, "outside"),
        ({"extra": {"/evil": b""}}, "outside"),
        ({"extra": {"net/byteorder": b"big"}}, "byte order"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        ({"leave_out": ("net/data/0",)}, "net/data/0"),
        ({"leave_out": ("net/data.pkl",)}, "a zip archive of other files: unpack it first"),
    ],
)
def test_refuses_odd_zip_files(options, reason, tmp_path):
    tensor = Tensor(Storage("FloatStorage", "0", np.zeros(4, np.float32)), 0, (4,), (1,))
    with pytest.raises(UserError, match=reason):
        torch_file.read(write_zip(tmp_path / "net.pt", [tensor], **options))


def test_refuses_big_endian_legacy_files(tmp_path):
    path = write_legacy(tmp_path / "net.pt", {}, machine={"little_endian": False})
    with pytest.raises(UserError, match="little-endian"):
        torch_file.read(path)


@WRITERS
def test_a_flipped_byte_ends_in_a_value_or_a_user_error(write, tmp_path):
    tensor = Tensor(Storage("FloatStorage", "0", np.ones(4, np.float32)), 0, (4,), (1,))
    whole = write(tmp_path / "net.pt", {"w": tensor}).read_bytes()
    bad = tmp_path / "bad.pt"
    rng = np.random.default_rng(0)
    refused = 0
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= rng.integers(1, 256)
        bad.write_bytes(content)
        try:
            torch_file.read(bad)
        except UserError:
            refused += 1
    assert refused > len(whole) // 4
