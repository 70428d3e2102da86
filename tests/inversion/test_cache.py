"""What was found for photos is kept and read again; what is damaged is named, and made again."""

import errno
import os

import numpy as np
import pytest

from repgan_jax.errors import UserError
from repgan_jax.inversion import cache

FOUND = cache.Inversion(
    np.ones((3, 4), np.float32),
    {"conv_00": np.zeros((4, 4), np.float32)},
    np.zeros((8, 8, 3), np.uint8),
    np.zeros((4, 20, 3), np.uint8),
    0.1,
    20.0,
    1.0,
    0.5,
    7,
)


def test_missing_damaged_and_forbidden_are_told_apart(tmp_path, capsys, monkeypatch):
    store = cache.Store(tmp_path)
    assert store.read("a") is None and not capsys.readouterr().out
    store.write("a", FOUND)
    assert (store.read("a").lpips, store.read("a").steps) == (0.1, 7)
    path = tmp_path / "a.npz"
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-300] + bytes(300), b"", b"no npz"):
        path.write_bytes(damaged)
        assert store.read("a") is None
        assert f"{path}: damaged (" in capsys.readouterr().out

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(cache.np, "load", forbidden)  # root may read anything
    with pytest.raises(UserError, match="a.npz: cannot be read .Permission denied.; ask for"):
        store.read("a")


def test_memory_keeps_what_was_found():
    memory = cache.Memory()
    assert memory.read("a") is None
    memory.write("a", FOUND)
    assert memory.read("a") is FOUND and memory.read("b") is None
    assert FOUND.describe() == "LPIPS 0.100, 1.00 from the mean latent"
