"""JSON files, and what is said about those that cannot be used."""

import errno
import os
from pathlib import Path

import pytest

from repgan_jax.errors import UserError
from repgan_jax.io import json_files
from repgan_jax.palette import Palette


def test_what_is_written_is_read(tmp_path):
    json_files.write(tmp_path / "a.json", {"a": [1, 2.5, None]})
    assert json_files.read(tmp_path / "a.json") == {"a": [1, 2.5, None]}
    assert json_files.read(tmp_path / "a.json", parse=lambda value: value["a"][1]) == 2.5


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)  # root may read anything
    with pytest.raises(UserError, match="stage.json: cannot be read .Permission denied.; ask"):
        json_files.read(tmp_path / "stage.json")


@pytest.mark.parametrize(
    "parse",
    [lambda value: value["b"], lambda value: value["a"][3], lambda value: 1 // value["zero"]],
)
def test_errors_of_use_name_the_file(tmp_path, parse):
    json_files.write(tmp_path / "a.json", {"a": [1], "zero": 0})
    with pytest.raises(UserError, match="a.json: JSON, but not of this kind of file .*Error: "):
        json_files.read(tmp_path / "a.json", parse)


def test_errors_that_say_more_are_kept(tmp_path):
    with pytest.raises(UserError, match="^exactly this$"), json_files.parsing(tmp_path / "a.json"):
        raise UserError("exactly this")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON .*, 0 bytes; it was cut or edited"),
        (b'{"names": ["a"', "not JSON .*, 14 bytes; it was cut or edited"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[]", "JSON, but not of this kind of file .TypeError"),
        (b'{"names": 3, "colours": 3}', "JSON, but not of this kind of file .TypeError"),
        (b'{"names": ["a"]}', "JSON, but not of this kind of file .KeyError: 'colours'"),
    ],
)
def test_json_that_is_not_what_is_expected(tmp_path, content, message):
    path = tmp_path / "palette.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"palette.json: {message}") as caught:
        json_files.read(path, parse=Palette.from_json)
    assert "delete" not in str(caught.value)


def test_folder_in_place_of_json(tmp_path):
    with pytest.raises(UserError, match="cannot be read .Is a directory.; check the path"):
        json_files.read(tmp_path)
