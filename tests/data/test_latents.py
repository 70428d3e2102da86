"""Latents come back by name; what cannot be read says why."""

import errno
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from repgan_jax.data import latents
from repgan_jax.errors import UserError

W = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ({"name": ["a", "b"]}, ["a", "b"]),
        ({"name": np.array([b"a", b"b"])}, ["a", "b"]),
        ({"name": [10, 20]}, ["10", "20"]),
        ({"seed": [3, 1000]}, ["seed003", "seed1000"]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_latents_come_back_by_name(tmp_path, arrays, names, dtype):
    np.savez(tmp_path / "latents.npz", w=W.astype(dtype), **arrays)
    found = latents.read_latents(tmp_path / "latents.npz")
    assert list(found) == names
    for one, expected in zip(found.values(), W, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"name": np.array(["a", "b"], object)},
            "name holds Python objects, .* names must be text",
        ),
        ({"w": np.array([W, None], object)}, "w holds Python objects"),
        ({"name": ["a", "a"]}, "'a' is there twice"),
        ({"name": [["a", "b"]]}, r"name of type <U1 and shape \[1, 2\]; expected text, \[k\]"),
        ({"name": [0.5, 1.5]}, "name of type float64 .*expected text"),
        ({"w": [["a"], ["b"]]}, "w is of type <U1, expected numbers"),
        ({"w": W + np.inf}, "the latent of 'a' has infinite numbers or NaN"),
        ({"w": W[:1]}, r"w of shape \[1, 3\] for 2 names; expected \[k, D\]"),
    ],
)
def test_arrays_of_another_kind(tmp_path, arrays, message):
    np.savez(tmp_path / "latents.npz", **{"w": W, "name": ["a", "b"], **arrays})
    with pytest.raises(UserError, match=f"latents.npz: {message}"):
        latents.read_latents(tmp_path / "latents.npz")


def test_seeds_must_be_numbers(tmp_path):
    np.savez(tmp_path / "latents.npz", w=W, seed=["1", "2"])
    with pytest.raises(UserError, match="seed of type <U1 .*expected whole numbers"):
        latents.read_latents(tmp_path / "latents.npz")


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "latents.npz"
    for content, message in (
        (b"", "no .npz file, but empty; expected w"),
        (b"0.1 0.2", "no .npz file, but something else; .* write it with np.savez"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"latents.npz: {message}"):
            latents.read_latents(path)
    with path.open("wb") as file:
        np.save(file, W)
    with pytest.raises(UserError, match="no .npz file, but an .npy file, of a single array"):
        latents.read_latents(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(UserError, match="holds a.txt; expected w"):
        latents.read_latents(path)


def test_damage_is_told_from_the_rest(tmp_path):
    path = tmp_path / "latents.npz"
    np.savez(path, w=W, name=["a", "b"])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="an .npz file whose end is missing: it was cut"):
        latents.read_latents(path)
    place = whole.index(W.tobytes())
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    with pytest.raises(UserError, match="w is damaged, as its checksum shows"):
        latents.read_latents(path)


def test_missing_or_forbidden(tmp_path, monkeypatch):
    path = tmp_path / "latents.npz"
    with pytest.raises(UserError, match="no latents .no such file."):
        latents.read_latents(path)
    with pytest.raises(UserError, match="cannot be read .Is a directory.; check the path"):
        latents.read_latents(tmp_path)

    def forbidden(self, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", forbidden)  # root may read anything
    with pytest.raises(UserError, match="latents.npz: cannot be read .Permission denied.; ask for"):
        latents.read_latents(path)
