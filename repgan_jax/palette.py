"""Names and colours of the classes; a class's id is its place in the list."""

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from repgan_jax import sides
from repgan_jax.errors import UserError

IGNORE = 255  # the id of pixels that count nowhere, so that ids end at 254

_LINE = re.compile(r"(?P<name>.+?)(?:\s+(?P<colour>#\S*))?")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, eq=False)
class Palette:
    """K class names and their colours, uint8 [K, 3]; class 0 is the background.

    Attributes:
        names: names of the classes; the position is the id.
        colours: colours of the classes, uint8 [K, 3].
        stated: pairs of ids that are swapped under horizontal flips, as the user stated them; () if
            there are none, and None to guess them from the names.
    """

    names: tuple[str, ...]
    colours: np.ndarray
    stated: sides.Pairs | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Palette) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.names)

    @property
    def pairs(self) -> sides.Pairs:
        """Pairs of ids that are swapped under horizontal flips, stated or guessed from names."""
        return sides.guess_pairs(self.names) if self.stated is None else self.stated

    @property
    def id2label(self) -> dict[int, str]:
        """{id: class name}."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """{class name: id}."""
        return {name: k for k, name in enumerate(self.names)}

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The id of each class in a mirrored image; () if no classes are swapped."""
        partners = dict(self.pairs) | {other: k for k, other in self.pairs}
        return tuple(partners.get(k, k) for k in range(self.num_classes)) if partners else ()

    def with_pairs(self, pairs: str, source: str) -> "Palette":
        """Returns the palette with the stated `pairs`, such as "left ear <-> right ear".

        Args:
            pairs: separated by commas; "none" states that there are none, "" changes nothing.
            source: name of the setting, for errors.

        Raises:
            UserError: see `sides.parse_pairs`.
        """
        if not pairs.strip():
            return self
        lines = [(source, pair.strip()) for pair in pairs.split(",")]
        return replace(self, stated=sides.parse_pairs(lines, self.names))

    def _key(self) -> tuple:
        """Returns what decides equality, so that compiled programs are shared."""
        return self.names, self.colours.tobytes(), self.pairs

    def to_json(self) -> dict[str, list]:
        """Returns lists that `from_json` reads; guessed pairs become stated ones."""
        pairs = [[self.names[k] for k in pair] for pair in self.pairs]
        return {"names": list(self.names), "colours": self.colours.tolist(), "pairs": pairs}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Palette":
        """Returns the palette that `to_json` described; version 0.1.0 stored no pairs."""
        names, pairs = tuple(found["names"]), found.get("pairs")
        if pairs is not None:
            pairs = tuple(tuple(map(names.index, pair)) for pair in pairs)
        return cls(names, np.array(found["colours"], np.uint8), pairs)

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
    """Returns the palette that `text` describes: a class per line, then pairs of left and right.

    Args:
        text: lines `name [#rrggbb]`, whose position is the id; a class without a colour gets that
            of `default_colours`. After these, lines `left ear <-> right ear`, or `<->` alone where
            there are no pairs, see `Palette.stated`.
        source: what errors name, usually a path.

    Raises:
        UserError: an empty line between others, a bad colour, a name or colour given twice,
            fewer than 2 or more than 255 classes, what `sides.parse_pairs` refuses.
    """
    lines = text.strip().splitlines()
    first = next((i for i, line in enumerate(lines) if sides.ARROW in line), len(lines))
    palette = _parse_names("\n".join(lines[:first]).rstrip().splitlines(), source)
    pairs = [(f"{source}, line {i + 1}", line.strip()) for i, line in enumerate(lines)][first:]
    for where, line in pairs:
        if line and sides.ARROW not in line:
            raise UserError(f"{where}: {line!r} after pairs of classes; expected all classes first")
    pairs = [pair for pair in pairs if pair[1]]
    return replace(palette, stated=sides.parse_pairs(pairs, palette.names)) if pairs else palette


def _parse_names(lines: Sequence[str], source: str) -> Palette:
    """Returns the palette of the lines `name [#rrggbb]`; see `parse_classes`."""
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
