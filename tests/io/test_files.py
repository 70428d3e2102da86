"""Temporary folders vanish, those of killed processes later; what cannot be written is named."""

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from repgan_jax.errors import UserError
from repgan_jax.io import files


def test_what_killed_processes_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, young, foreign = (tmp_path / name for name in ("repgan_jax_a", "repgan_jax_b", "other"))
    for folder in (left, young, foreign):
        folder.mkdir()
        (folder / ".lock").touch()
        (folder / "data").touch()
    for folder in (left, foreign):
        os.utime(folder, (0, 0))
    with files.temporary_folder() as first:
        assert not left.exists() and young.exists() and foreign.exists()
        os.utime(first, (0, 0))
        with files.temporary_folder() as second:
            assert first.exists() and second.exists() and first != second
    assert not first.exists() and not second.exists()


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    files.expect_writable(tmp_path, "config.out")
    files.expect_writable(tmp_path / "to/be/made", "config.out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(UserError, match="^config.out: .*file is no folder.*; choose another"):
            files.expect_writable(tmp_path / folder, "config.out")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="link is no folder"):
        files.expect_writable(tmp_path / "link", "config.out")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=f"config.out: .*made cannot .*{tmp_path} is read-only"):
        files.expect_writable(tmp_path / "to/be/made", "config.out")


def test_two_that_write_one_file_take_turns(tmp_path):
    path = tmp_path / "file"
    (tmp_path / ".file.part").write_bytes(b"left by a killed process")
    begun = threading.Event()

    def write(data: bytes) -> None:
        begun.wait()
        for _ in range(100):
            files.atomic_write(path, data)
            assert path.read_bytes() in (b"one", b"other")

    with ThreadPoolExecutor() as pool:
        with files.atomic_open(path) as file:
            writers = [pool.submit(write, data) for data in (b"one", b"other")]
            begun.set()
            file.write(b"first")
            assert not path.exists()
        for writer in writers:
            writer.result()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
