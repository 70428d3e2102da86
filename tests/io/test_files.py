"""Temporary folders vanish, those of killed processes later."""

import os
import tempfile

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
