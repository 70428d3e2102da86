"""The reader of checkpoint files: formats, real files, other files, and what reading costs."""

import json
import os
import pickle
import struct
import sys
import tarfile
import tracemalloc
import types
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden"
OTHER_FILES = {
    b"": "empty",
    b"PK": "starts with b'PK'",
    b"\x89PNG\r\n": "a picture",
    b"<!DOCTYPE html><html>": "a web page",
    b"\n <html>": "a web page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "git lfs pull",
    b"\x1f\x8b\x08" + bytes(20): "gzip: unpack it first",
    b"7z\xbc\xaf'\x1c": "unpack it first",
    b'{"error": "not found"}': "starts with b'{\"error\"'",
    b"PK\x03\x04": "corrupt",
    b"\x80\x02": "corrupt",
}


@pytest.mark.parametrize("content", OTHER_FILES)
def test_other_files_are_named(content, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        torch_file.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert OTHER_FILES[content] in str(caught.value)
    assert "PyTorch file" in str(caught.value)


def test_archives_are_named(tmp_path):
    with tarfile.open(tmp_path / "net.pt", "w") as archive:
        archive.add(__file__, "net.py")
    with pytest.raises(UserError, match="a tar archive: unpack it first"):
        torch_file.read(tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.write(__file__, "folder/net.py")
    with pytest.raises(UserError, match="no member folder/data.pkl"):
        torch_file.read(tmp_path / "net.pt")


def test_missing_files_folders_and_pipes_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.pt", tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match=f"{path}: (no such file|a folder|no ordinary file)"):
            torch_file.read(path)


def test_names_say_nothing_about_the_format(tmp_path):
    state = {"w": np.arange(3, dtype=np.float32)}
    torch_file.write(tmp_path / "net.safetensors", state)
    safetensors.numpy.save_file(state, tmp_path / "net.pkl")
    (tmp_path / "net.pt").write_bytes(pickle.dumps(state))
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(torch_file.read(path)["w"], state["w"], strict=True)


def test_damage_in_a_storage_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "net.pt"
    torch_file.write(path, np.ones(100, np.float32))
    content = bytearray(path.read_bytes())
    content[content.index(np.ones(100, np.float32).tobytes()) + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        torch_file.read(path)


@pytest.mark.parametrize("write", [torch_file.write, safetensors.numpy.save_file])
def test_weights_are_not_copied(write, tmp_path):
    state = {str(i): np.full((1 << 20,), i, np.float32) for i in range(8)}
    arguments = (tmp_path / "net", state)
    write(*(arguments if write is torch_file.write else arguments[::-1]))
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(state, 4))
    for name in ("net", "net.pkl"):
        tracemalloc.start()
        try:
            found = torch_file.read(tmp_path / name)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20  # of 32 MiB
        finally:
            tracemalloc.stop()
        assert all((found[key] == state[key]).all() for key in state)
        assert not any(array.flags.writeable for array in found.values())


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64, np.int64, np.bool_])
def test_reads_safetensors(dtype, tmp_path):
    state = {
        "b": np.ones((2, 3), dtype),
        "a": np.arange(4).astype(dtype),
        "": np.zeros((0, 2), dtype),
    }
    safetensors.numpy.save_file(state, tmp_path / "net")
    found = torch_file.read(tmp_path / "net")
    assert set(found) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (f'{{"a":{ENTRY},"a":{ENTRY}}}', 4),  # the same name twice
        (f'{{"a":{ENTRY},"b":{ENTRY}}}', 4),  # overlapping
        (f'{{"a":{ENTRY}}}', 5),
        (f'{{"a":{ENTRY}}}', 3),
        (f'{{"a":{ENTRY.replace("F32", "F8_E4M3").replace("4]", "1]")}}}', 1),
        (f'{{"a":{ENTRY.replace("[1]", "[-1,-1]")}}}', 4),
        (f'{{"a":{ENTRY.replace("[1]", "[4611686018427387904,4]")}}}', 4),
        (f'{{"a":{ENTRY.replace("[0,4]", "[4,0]")}}}', 4),
        ('{"a":' + "[" * 100_000, 0),
        ('{"a":' + "9" * 100_000 + "}", 0),
        ("{" + " " * (5 << 20) + "}", 0),
        ("{", 0),
    ],
)
def test_refuses_odd_safetensors(header, size, tmp_path, watched_read):
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(size))
    with pytest.raises(UserError, match="corrupt"):
        watched_read(path)


def test_a_header_of_thousands_of_tensors_keeps_to_the_bound(tmp_path):
    """4 MiB, the longest header, times 50 is less than the 256 MiB that reading may take."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(i): entry for i in range(4_000)}, separators=(",", ":")).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    tracemalloc.start()
    try:
        assert len(torch_file.read(path)) == 4_000
        assert tracemalloc.get_traced_memory()[1] < 50 * path.stat().st_size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_pytorch_writes(zipped, protocol, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    grid = torch.arange(24.0).reshape(4, 6)
    state = {
        "parameter": torch.nn.Parameter(grid),
        "transposed": grid.t()[1:3],
        "sliced": grid[::2, 1::2],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        **{
            str(kind): grid.to(kind)
            for kind in (torch.bfloat16, torch.half, torch.bool, torch.int8)
        },
    }
    network = torch.nn.Linear(3, 2)
    extra = {
        "module": network.state_dict(),
        "optimiser": torch.optim.Adam(network.parameters()).state_dict(),
        "others": [grid.shape, torch.float32, torch.device("cuda:1")],
    }
    torch.save(
        {**state, **extra},
        tmp_path / "net",
        _use_new_zipfile_serialization=zipped,
        pickle_protocol=protocol,
    )
    found = torch_file.read(tmp_path / "net")
    for name, tensor in state.items():
        assert str(tensor.dtype) == f"torch.{found[name].dtype}"
        expected = tensor.detach().double().numpy()
        np.testing.assert_array_equal(found[name].astype(np.float64), expected)
    assert np.shares_memory(found["parameter"], found["sliced"])
    assert set(found["module"]) == {"weight", "bias"}
    assert found["optimiser"]["param_groups"][0]["params"] == [0, 1]
    assert found["others"] == [(4, 6), "torch.float32", "cuda:1"]


def test_reads_files_whose_checksums_pytorch_left_out(tmp_path):
    path = tmp_path / "net.pt"
    torch_file.write(path, np.arange(3))
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x01\x02")
    while place >= 0:
        content[place + 16 : place + 20] = bytes(4)
        place = content.find(b"PK\x01\x02", place + 1)
    path.write_bytes(content)
    np.testing.assert_array_equal(torch_file.read(path), np.arange(3))


def test_reads_a_real_checkpoint():
    state = torch_file.read(GOLDEN / "rosinality_64.pt")
    assert set(state) == {"g_ema", "latent_avg"}
    assert len(state["g_ema"]) == 99
    assert state["g_ema"]["convs.7.conv.weight"].shape == (1, 16, 16, 3, 3)
    assert jnp.isfinite(state["latent_avg"]).all()


@pytest.mark.parametrize(("name", "classes"), [("64", 0), ("32_cond", 5)])
def test_reads_real_networks_of_nvidia(name, classes):
    state = torch_file.read(GOLDEN / f"nvidia_ada_{name}_nosource.pkl")
    assert list(state) == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"]
    generator = state["G_ema"]
    assert generator.name == "Generator" and "module_src" not in generator.state
    assert (generator.state["z_dim"], generator.state["c_dim"]) == (48, classes)
    mapping = generator.state["_modules"]["mapping"]
    assert mapping.name == "MappingNetwork"
    assert mapping.state["_buffers"]["w_avg"].shape == (48,)
    block = generator.state["_modules"]["synthesis"].state["_modules"]["b4"]
    const = block.state["_parameters"]["const"]
    assert const.shape == (32, 4, 4) and const.dtype == np.float32 and np.ptp(const) > 0


@pytest.mark.parametrize("protocol", range(6))
def test_reads_tensorflow_networks_of_nvidia(protocol, monkeypatch, tmp_path):
    """As the classes `Network` and `EasyDict` pickle themselves; the code of a layer is a text."""
    modules = {
        name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.util", "dnnlib.tflib.network")
    }
    for module in modules.values():
        monkeypatch.setitem(sys.modules, module.__name__, module)

    class Network:
        def __getstate__(self):
            return {"version": 4, "variables": [("w", np.ones(2, ">f4"))], "static_kwargs": easy}

    class EasyDict(dict):
        pass

    for kind, module in ((Network, "dnnlib.tflib.network"), (EasyDict, "dnnlib.util")):
        kind.__module__, kind.__qualname__ = module, kind.__name__
        setattr(modules[module], kind.__name__, kind)
    easy = EasyDict(num_channels=3)
    (tmp_path / "net").write_bytes(pickle.dumps((Network(), Network()), protocol))
    first, second = torch_file.read(tmp_path / "net")
    assert first.name == second.name == "dnnlib.tflib.network.Network"
    assert first.state["static_kwargs"] == {"num_channels": 3}
    ((name, array),) = second.state["variables"]
    assert name == "w" and (array == 1).all()


PYTHON_2 = {
    "protocol 0": b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\n"
    b"S'b'\np3\ntp4\nRp5\n(I1\n(I2\ntp6\ncnumpy\ndtype\np7\n(S'f4'\np8\nI0\nI1\ntp9\nRp10\n"
    b"(I3\nS'<'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\n"
    b"S'\\x00\\x00\\x80?\\x00\\x00 \\xc0'\np13\ntp14\nb.",
    "protocol 2": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00"
    b"\x85U\x01b\x87Rq\x03(K\x01K\x02\x85cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87Rq\x05(K\x03"
    b"U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00 \xc0tb.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_reads_arrays_of_python_2(protocol, tmp_path):
    (tmp_path / "net").write_bytes(PYTHON_2[protocol])
    expected = np.array([1, -2.5], np.float32)
    np.testing.assert_array_equal(torch_file.read(tmp_path / "net"), expected, strict=True)
