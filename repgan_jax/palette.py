"""Names and colours of the classes; a class's id is its place in the list."""

import colorsys
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from repgan_jax.errors import UserError

IGNORE = 255  # the id of pixels that count nowhere, so that ids end at 254

_LINE = re.compile(r"(?P<name>.+?)(?:\s+(?P<colour>#\S*))?")
_OTHER_SIDE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_OTHER_SIDE |= {right: left for left, right in _OTHER_SIDE.items()}
_CAMEL = r"(?<=[a-z])(?=[A-Z])"  # between the words of leftEar
_SIDE = re.compile(  # a whole word
    rf"(?:(?<![^\W\d_])|{_CAMEL})(?:{'|'.join(_OTHER_SIDE)})(?:(?![^\W\d_])|{_CAMEL})"
)
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, eq=False)
class Palette:
    """K class names and their colours, uint8 [K, 3]; class 0 is the background."""

    names: tuple[str, ...]
    colours: np.ndarray

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.names)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The id that each class has in a mirrored picture: left and right trade places.

        Names tell, where there are both: "left ear" and "right ear", "l_eye" and "r_eye", "lipL"
        and "lipR". Empty where no class has another one.
        """
        ids = {name: k for k, name in enumerate(self.names)}
        others = (_SIDE.sub(lambda found: _OTHER_SIDE[found[0]], name) for name in self.names)
        mirrored = tuple(ids.get(other, k) for k, other in enumerate(others))
        return mirrored if mirrored != tuple(range(len(mirrored))) else ()

    def to_json(self) -> dict[str, list]:
        """Returns what `from_json` takes, made of lists."""
        return {"names": list(self.names), "colours": self.colours.tolist()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Palette":
        """Returns the palette that `to_json` gave."""
        return cls(tuple(found["names"]), np.array(found["colours"], np.uint8))

    def index(self, name: str) -> int:
        """Returns the id of the class `name`; raises UserError if there is none."""
        if name not in self.names:
            raise UserError(f"no class is named {name!r}; the classes are {', '.join(self.names)}")
        return self.names.index(name)


def default_colours(num_classes: int) -> np.ndarray:
    """Returns uint8 [K, 3]: black for the background, then colours as unlike as may be.

    Hues advance by the golden ratio, so that neighbours in the list are far apart on the circle;
    three lightnesses keep colours apart where hues come close.
    """
    colours = [(0.0, 0.0, 0.0)]
    for k in range(1, num_classes):
        saturation, value = ((0.75, 0.95), (0.9, 0.65), (0.45, 0.85))[k % 3]
        colours.append(colorsys.hsv_to_rgb(k * 0.618034 % 1, saturation, value))
    return np.round(np.array(colours) * 255).astype(np.uint8)


def parse_classes(text: str, source: str) -> Palette:
    """Returns the palette that `text` describes: `name [#rrggbb]` a line, the line is the id.

    Args:
        text: the lines; a class without a colour gets that of `default_colours`.
        source: what errors name, usually a path.

    Raises:
        UserError: an empty line between others, a bad colour, a name or colour given twice,
            fewer than 2 or more than 255 classes.
    """
    lines = text.strip().splitlines()
    if not 2 <= len(lines) <= IGNORE:
        raise UserError(
            f"{source}: {len(lines)} classes; expected 2 to {IGNORE}, one a line, background first"
        )
    names, colours = [], default_colours(len(lines))
    for k, line in enumerate(lines):
        match = _LINE.fullmatch(line.strip())
        name, colour = match.group("name", "colour") if match else ("", None)
        if not name or name.startswith("#"):
            raise UserError(f"{source}, line {k + 1}: no name; expected 'name' or 'name #rrggbb'")
        if name in names:
            raise UserError(f"{source}, line {k + 1}: class {name!r} is there twice; rename one")
        names.append(name)
        if colour is None:
            continue
        if not _COLOUR.fullmatch(colour):
            raise UserError(f"{source}, line {k + 1}: {colour!r} is no colour; expected #rrggbb")
        colours[k] = tuple(bytes.fromhex(colour[1:]))
    _, first, counts = np.unique(colours, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        name = names[first[counts > 1][0]]
        raise UserError(f"{source}: another class has the colour of {name!r}; choose another one")
    return Palette(tuple(names), colours)
