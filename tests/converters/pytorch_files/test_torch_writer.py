"""The writer of PyTorch files: what it writes comes back, here and in PyTorch."""

import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.converters.pytorch_files.plain_data import Allowance
from repgan_jax.converters.pytorch_files.zip_members import members
from repgan_jax.errors import UserError

RNG = np.random.default_rng(0)
TYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", jnp.bfloat16]


@pytest.fixture
def state():
    tensors = {
        str(np.dtype(kind)): (100 * RNG.normal(size=(3, 5, 2))).astype(kind) for kind in TYPES
    }
    odd = {
        "transposed": RNG.normal(size=(3, 4)).astype("f4").T,
        "sliced": np.arange(24, dtype="f4").reshape(4, 6)[::2, 1::2],
        "reversed": np.arange(5)[::-1],
        "scalar": np.array(2.5, "f4"),
        "empty": np.zeros((0, 3), "f4"),
        "not a number": np.array([np.nan, -0.0, np.inf], "f4"),
    }
    plain = [0, -1, 255, 256, 2**40, -(2**70), 0.1, None, True, False, "é\n", (), (1, (2,)), [], {}]
    return {"g_ema": tensors, "odd": odd, "plain": plain, "twice": [odd["scalar"]] * 2, 7: "key"}


def assert_same(found, expected):
    """Compares trees: types, values, and arrays bit for bit."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    else:
        assert found == expected


def test_what_is_written_is_read(state, tmp_path):
    torch_file.write(tmp_path / "new" / "net.pt", state)
    assert_same(torch_file.read(tmp_path / "new" / "net.pt"), state)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["net.pt"]


def test_big_endian_arrays_become_little_endian(tmp_path):
    torch_file.write(tmp_path / "net.pt", np.arange(3, dtype=">f4"))
    assert_same(torch_file.read(tmp_path / "net.pt"), np.arange(3, dtype="<f4"))


def test_pytorch_reads_the_same(state, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    torch_file.write(tmp_path / "net.pt", state)
    found = torch.load(tmp_path / "net.pt", weights_only=True)

    def to_numpy(value):
        if isinstance(value, torch.Tensor):
            if value.dtype == torch.bfloat16:
                return value.view(torch.int16).numpy().view(jnp.bfloat16)
            return value.numpy()
        if isinstance(value, dict):
            return {key: to_numpy(item) for key, item in value.items()}
        return type(value)(map(to_numpy, value)) if isinstance(value, list | tuple) else value

    assert_same(to_numpy(found), state)


def test_the_zip_file_is_sound_and_its_storages_are_aligned(state, tmp_path):
    path = tmp_path / "net.pt"
    torch_file.write(path, state)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    found = members(memoryview(path.read_bytes()), Allowance(0))
    assert len(found) > 20
    assert all(member.start % 64 == 0 for member in found.values())


def test_equal_states_give_equal_files(state, tmp_path):
    for name in ("a.pt", "b.pt"):
        torch_file.write(tmp_path / name, state)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


@pytest.mark.parametrize("value", [np.array(["text"]), np.zeros(2, "u4"), {1, 2}, object(), b"a"])
def test_refuses_what_has_no_place_in_such_a_file(value, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        torch_file.write(path, {"a": [value]})
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/net\.pt: not written .* folder that can be written"):
        torch_file.write(tmp_path / "file" / "net.pt", {})


def test_holds_one_array_at_a_time(tmp_path):
    arrays = [np.ones((1 << 10, 1 << 10), "f4").T for _ in range(8)]
    tracemalloc.start()
    try:
        torch_file.write(tmp_path / "net.pt", arrays)
        assert tracemalloc.get_traced_memory()[1] < 3 * arrays[0].nbytes
    finally:
        tracemalloc.stop()
