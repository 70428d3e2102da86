"""Where the faces are in photos: landmarks or boxes that people or detectors wrote down."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repgan_jax.errors import UserError
from repgan_jax.inversion.alignment import Square, square_from_box, square_from_landmarks

_LARGEST = 256 * 2**20  # bytes: 68 points of more than 200 000 photos

_BOX_HEADER = ["name", "left", "top", "right", "bottom"]
_POINT_HEADERS = [
    ["name", *(f"{axis}{i}" for i in range(count) for axis in "xy")] for count in (5, 68)
]


def read_squares(path: str | Path) -> dict[str, Square]:
    """Returns the square around the face in each photo, by the photo's file name.

    A `.csv` file has a header, `name,x0,y0,x1,y1,...` with 5 or 68 points or
    `name,left,top,right,bottom`, and a line for each photo. A `.json` file maps each name to a
    list of 5 or 68 points `[x, y]`, or to `{"box": [left, top, right, bottom]}`. All are pixels
    of the photo as viewers show it, upright; `align` tells the order of the points.

    Raises:
        UserError: unreadable, another form, a photo given twice, or places that cannot be those
            of a face.
    """
    path = Path(path)
    formats = {".csv": _parse_csv, ".json": _parse_json}
    if path.suffix.lower() not in formats:
        raise UserError(f"{path}: landmarks of an unknown kind; expected a .json or .csv file")
    squares = {}
    for where, name, found in formats[path.suffix.lower()](path, _read_text(path)):
        if not name or name in squares:
            problem = f"photo {name!r} is there twice" if name else "no file name of a photo"
            raise UserError(f"{where}: {problem}; expected each photo once, by its file name")
        try:
            box = isinstance(found, dict)
            squares[name] = square_from_box(found["box"]) if box else square_from_landmarks(found)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if not squares:
        raise UserError(f"{path}: no photo in it; expected landmarks or a box for each photo")
    return squares


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: larger than {_LARGEST >> 20} MiB; split it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(
            f"{path}: no landmarks ({reason}); expected a JSON or CSV file of them"
        ) from error


def _parse_json(path: Path, text: str) -> Iterator[tuple[str, str, Any]]:
    """Yields (place for errors, photo's name, points or {"box": edges})."""
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); correct it") from error
    if not isinstance(document, dict):
        raise UserError(f'{path}: no names of photos; expected {{"photo.jpg": [[x, y], ...], ...}}')
    for name, found in document.items():
        where = f"{path}, photo {name!r}"
        if not isinstance(found, list) and not (isinstance(found, dict) and list(found) == ["box"]):
            raise UserError(
                f"{where}: neither points nor a box; "
                'expected [[x, y], ...] or {"box": [left, top, right, bottom]}'
            )
        yield where, name, found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _parse_csv(path: Path, text: str) -> Iterator[tuple[str, str, Any]]:
    """Yields (place for errors, photo's name, points or {"box": edges}), numbers still text."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        if header != _BOX_HEADER and header not in _POINT_HEADERS:
            raise UserError(
                f"{path}, line 1: unknown header; expected name,left,top,right,bottom or "
                "name,x0,y0,x1,y1,... with 5 or 68 points"
            )
        for row in filter(None, rows):
            where = f"{path}, line {rows.line_num}"
            if len(row) != len(header):
                raise UserError(f"{where}: {len(row)} cells; expected {len(header)}, as the header")
            name, *cells = row
            points = list(zip(cells[::2], cells[1::2], strict=True))
            yield where, name, {"box": cells} if header == _BOX_HEADER else points
    except csv.Error as error:
        raise UserError(
            f"{path}, line {rows.line_num}: cannot be read as CSV ({error}); correct it"
        ) from error
