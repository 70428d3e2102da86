"""JSON and CSV say the same, and what is no face is refused by file, line and photo."""

import json
from pathlib import Path

import numpy as np
import pytest

from repgan_jax.errors import UserError
from repgan_jax.inversion import alignment, landmarks
from repgan_jax.inversion.alignment import Square

FIVE = [[40.5, 50], [80, 54], [61, 70], [45, 92.25], [74, 95]]
POINT_HEADER = "name," + ",".join(f"x{i},y{i}" for i in range(5))
BOX_HEADER = "name,left,top,right,bottom"


def _refused(message: str):
    """Expects a UserError whose one line contains `message`."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z")


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _line(name: str, points) -> str:
    return ",".join([name, *(str(number) for point in points for number in point)])


def _short(text: str) -> str:
    return text[:60]


def _face_of_68() -> np.ndarray:
    points = np.random.default_rng(0).normal(60, 20, (68, 2)).round(3)
    points[36:48], points[48], points[54] = np.repeat(FIVE[:2], 6, 0), FIVE[3], FIVE[4]
    return points


@pytest.mark.parametrize("points", [np.array(FIVE), _face_of_68()], ids=len)
def test_both_formats_agree(tmp_path, points):
    others = points[:, ::-1] * (-1, 1) + (300, 0)  # the face turned by a quarter
    found = {"a.jpg": points.tolist(), "Ünal, b.png": others.tolist()}
    header = "name," + ",".join(f"x{i},y{i}" for i in range(len(points)))
    lines = [header, _line("a.jpg", points), "", _line('"Ünal, b.png"', others)]
    expected = {name: alignment.square_from_landmarks(places) for name, places in found.items()}
    for path in (
        _write(tmp_path / "found.json", json.dumps(found)),
        _write(tmp_path / "found.csv", "\n".join(lines) + "\n"),
        _write(tmp_path / "excel.CSV", "\ufeff" + "\r\n".join(lines)),
    ):
        assert landmarks.read_squares(path) == expected, path.name


def test_boxes_and_points_may_mix_in_json(tmp_path):
    found = {"a.jpg": {"box": [10, 20, 50, 60]}, "b.jpg": FIVE}
    squares = landmarks.read_squares(_write(tmp_path / "found.json", json.dumps(found)))
    assert squares == {
        "a.jpg": Square((30, 40), (20, 0)),
        "b.jpg": alignment.square_from_landmarks(FIVE),
    }
    text = f"{BOX_HEADER}\na.jpg, 10, 20, 50, 60\n"
    boxes = landmarks.read_squares(_write(tmp_path / "found.csv", text))
    assert boxes == {"a.jpg": squares["a.jpg"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ('{"a.jpg": [', "cannot be read as JSON .*line 1"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("9" * 10_000, "cannot be read as JSON"),
        ("{}", "no photo in it"),
        ("[[1, 2]]", "no names of photos"),
        ('{"a.jpg": [], "a.jpg": []}', "'a.jpg' is there twice"),
        ('{"": [[1, 2]]}', "no file name"),
        ('{"a.jpg": "here"}', "photo 'a.jpg': neither points nor a box"),
        ('{"a.jpg": {"box": [1, 2, 3, 4], "eye": 3}}', "photo 'a.jpg': neither points nor a box"),
        ('{"a.jpg": {"box": 7}}', r"photo 'a.jpg': a box of shape \[\]"),
        ('{"a.jpg": {"box": {"box": 7}}}', "photo 'a.jpg': not all are numbers"),
        ('{"a.jpg": {"box": [10, 20, 5, 60]}}', "photo 'a.jpg': a box of -5x40 pixels"),
        ('{"a.jpg": [[1, 2], [3, 4]]}', r"photo 'a.jpg': points of shape \[2, 2\]"),
        ('{"a.jpg": [[1, 2], [3]]}', "photo 'a.jpg': .*some are missing"),
        ('{"a.jpg": [[1, NaN], [3, Infinity]]}', "photo 'a.jpg': .*not finite"),
        (f'{{"a.jpg": [[1, {"9" * 400}]]}}', "photo 'a.jpg': not all are numbers"),
        ('{"a\\nb": 3}', r"photo 'a\\nb': neither"),
    ],
    ids=_short,
)
def test_bad_json_is_refused(tmp_path, text, message):
    with _refused(f"found.json.*{message}"):
        landmarks.read_squares(_write(tmp_path / "found.json", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: unknown header; expected name,left,top,right,bottom or name,x0,y0"),
        ("name,x0,y0\na.jpg,1,2\n", "line 1: unknown header"),
        (BOX_HEADER, "no photo in it"),
        (f"{BOX_HEADER}\na.jpg,1,2,3\n", "line 2: 4 cells; expected 5"),
        (f"{BOX_HEADER}\na.jpg,1,2,30,\n", "line 2: not all are numbers"),
        (f"{BOX_HEADER}\n\na.jpg,1,2,30,x\n", "line 3: not all are numbers"),
        (f"{BOX_HEADER}\na.jpg,1,2,30,nan\n", "line 2: .*not finite"),
        (f"{BOX_HEADER}\na.jpg,1,2,30,40\na.jpg,1,2,30,40\n", "line 3: photo 'a.jpg' .*twice"),
        (f"{BOX_HEADER}\n,1,2,30,40\n", "line 2: no file name"),
        (f'{BOX_HEADER}\n"a.jpg,1,2,30,40\n', "line 2: cannot be read as CSV"),
        (f"{BOX_HEADER}\n{'a' * 200_000},1,2,30,40\n", "line 2: cannot be read as CSV"),
        (f"{POINT_HEADER}\na.jpg,{','.join('1' * 10)}\n", "line 2: .*not in fractions"),
    ],
    ids=_short,
)
def test_bad_csv_is_refused(tmp_path, text, message):
    with _refused(f"found.csv.*{message}"):
        landmarks.read_squares(_write(tmp_path / "found.csv", text))


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "found.json").write_bytes(b"\xff\xfe\x00")
    with _refused("found.json: no landmarks .not UTF-8 text"):
        landmarks.read_squares(tmp_path / "found.json")
    with _refused("absent.csv: no landmarks .No such file"):
        landmarks.read_squares(tmp_path / "absent.csv")
    with _refused("found.txt: .*expected a .json or .csv file"):
        landmarks.read_squares(tmp_path / "found.txt")


def test_huge_files_are_refused_unread(tmp_path):
    with (tmp_path / "found.json").open("wb") as file:
        file.truncate(2**40)  # a hole: takes no room
    with _refused("found.json: larger than 256 MiB"):
        landmarks.read_squares(tmp_path / "found.json")
