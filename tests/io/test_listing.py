"""What is an image is taken, the rest is named, and no result has the place of another."""

import os
import unicodedata
from pathlib import PurePath

import numpy as np
import pytest
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.io import listing

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8))


def _save(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIXELS.save(path, kind)
    return path


def test_content_or_suffix_makes_a_photo(tmp_path):
    kinds = {
        "a.jfif": "JPEG",
        "b.jpe": "JPEG",
        "c.mpo": "MPO",
        "d.JPG": "JPEG",
        "e": "PNG",
        "f.txt": "BMP",
        "g.2024": "TIFF",
        "h.tga": "TGA",
    }
    for name, kind in kinds.items():
        _save(tmp_path / name, kind)
    for name in ("i.PNG", "j.heic", "k.NEF"):  # will be reported by the reader
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").write_text("two noses\n")
    (tmp_path / "empty").touch()
    _save(tmp_path / ".hidden.png")
    PIXELS.save(tmp_path / "drawing.eps")  # which takes Ghostscript
    found = listing.find_photos(tmp_path)
    assert list(found.files) == [*kinds, "i.PNG", "j.heic", "k.NEF"]
    assert all(path == tmp_path / name for name, path in found.files.items())
    assert found.passed_over == ["drawing.eps", "empty", "notes.txt"]
    assert found.describe_passed_over() == (
        "3 files or folders passed over: drawing.eps, empty, notes.txt"
    )


def test_companions_of_photos_are_not_passed_over(tmp_path):
    _save(tmp_path / "a.png")
    for name in ("a.JSON", "b.json", "a.txt"):
        (tmp_path / name).touch()
    found = listing.find_photos(tmp_path, companions=(".json",))
    assert found.passed_over == ["a.txt", "b.json"]


def test_one_file_is_itself(tmp_path):
    path = _save(tmp_path / "a.png")
    found = listing.find_photos(path)
    assert found.files == {"a.png": path} and found.describe_passed_over() == ""


def test_no_photos_says_what_there_is_instead(tmp_path):
    with pytest.raises(UserError, match="no photos in this folder; expected JPEG"):
        listing.find_photos(tmp_path)
    for i in range(7):
        (tmp_path / f"{i}.csv").write_text("x")
    with pytest.raises(
        UserError,
        match=r"no photos in this folder \(7 files or folders passed over: "
        r"0.csv, 1.csv, 2.csv, 3.csv, 4.csv and 2 more\); expected JPEG",
    ):
        listing.find_photos(tmp_path)
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        listing.find_photos(tmp_path / "nowhere")


def test_folders_are_entered_on_request(tmp_path):
    for name in ("b.png", "x/a.png", "x/y/c.png", ".hidden/d.png"):
        _save(tmp_path / name)
    flat = listing.find_photos(tmp_path)
    assert list(flat.files) == ["b.png"] and flat.passed_over == ["x/"]
    deep = listing.find_photos(tmp_path, recursive=True)
    assert list(deep.files) == ["b.png", "x/a.png", "x/y/c.png"] and not deep.passed_over


def test_links_end_and_each_folder_is_entered_once(tmp_path):
    _save(tmp_path / "in/real/a.png")
    _save(tmp_path / "far/b.png")
    for link, target in (
        ("real/up", ".."),
        ("itself", "itself"),
        ("again", "real"),
        ("far", "../far"),
        ("gone.txt", "nothing"),
        ("gone.jpg", "nothing"),
    ):
        os.symlink(target, tmp_path / "in" / link)
    os.mkfifo(tmp_path / "in/pipe")
    found = listing.find_photos(tmp_path / "in", recursive=True)
    assert list(found.files) == ["far/b.png", "gone.jpg", "real/a.png"]
    assert found.passed_over == ["again/", "gone.txt", "itself", "pipe", "real/up/"]


def test_results_are_not_taken_as_photos(tmp_path):
    for name in ("a.png", "masks/b.png", "out/masks/a.png", "out/overlays/a.png"):
        _save(tmp_path / name)
    found = listing.find_photos(tmp_path, recursive=True, without=[tmp_path / "out"])
    assert list(found.files) == ["a.png", "masks/b.png"] and found.passed_over == ["out/"]
    (tmp_path / "out/areas.csv").touch()  # of another run
    _save(tmp_path / "run/sample/sheet.png")
    (tmp_path / "run/sample/stage.json").touch()
    found = listing.find_photos(tmp_path, recursive=True)
    assert list(found.files) == ["a.png", "masks/b.png"]
    assert found.passed_over == ["out/areas.csv", "out/masks/", "out/overlays/", "run/sample/"]
    assert list(listing.find_photos(tmp_path / "run/sample").files) == ["sheet.png"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.jpg", "b.png"], ["a", "b"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg", "a.jpg.png", "a.png"]),
        (["a", "a.jpg"], ["a", "a.jpg"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["A.jpg", "a.jpg"], ["A.jpg", "a.jpg-2"]),
        (["A.jpg", "a.png"], ["A.jpg", "a.png"]),
        (["a.jpg", "a.png/b.jpg"], ["a.jpg", "a.png/b"]),
    ],
)
def test_result_names(paths, names):
    assert listing.result_names(paths) == dict(zip(paths, names, strict=True))


def test_no_two_results_have_one_name():
    """Even where the file system ignores case and the spelling of accents."""
    rng = np.random.default_rng(0)
    parts = ["a", "A", "\u00e9", "e\u0301", "a.png", "a.jpg", "b-2", "-2"]
    suffixes = ["", ".jpg", ".png", ".JPG", ".npz", ".png.png", ".jpg-2"]
    for _ in range(500):
        paths = set()
        for _ in range(rng.integers(1, 12)):
            folders = rng.choice(parts, rng.integers(0, 3))
            paths.add("/".join([*folders, rng.choice(parts) + rng.choice(suffixes)]))
        # a file is no folder
        paths = {path for path in paths if not any(p.startswith(f"{path}/") for p in paths)}
        names = listing.result_names(paths)
        assert names.keys() == paths
        for suffix in (".png", ".npz"):
            written = {_fold(name + suffix) for name in names.values()}
            assert len(written) == len(paths)
            folders = {_fold(parent.as_posix()) for p in paths for parent in PurePath(p).parents}
            assert not written & folders
        for path, name in names.items():
            assert PurePath(path).parent == PurePath(name).parent
            assert PurePath(name).name.startswith(PurePath(path).stem)
        assert listing.result_names(sorted(paths, reverse=True)) == names


def _fold(name):
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def test_masks_are_found_whatever_the_case_of_their_suffix(tmp_path):
    for name in ("a.PNG", "b.png", "b.Tif", "c.jpg", ".d.png", "e\u0301.png"):
        (tmp_path / name).touch()
    found = listing.index(tmp_path, listing.MASK_SUFFIXES)
    assert found == {
        "a": [tmp_path / "a.PNG"],
        "b": [tmp_path / "b.Tif", tmp_path / "b.png"],
        "\u00e9": [tmp_path / "e\u0301.png"],
    }
    assert listing.the_one(found["a"], "it") == tmp_path / "a.PNG"
    with pytest.raises(UserError, match=r"2 files for the mask of b: b.Tif, b.png; expected one"):
        listing.the_one(found["b"], "the mask of b")
    assert listing.index(tmp_path / "nowhere", listing.MASK_SUFFIXES) == {}
