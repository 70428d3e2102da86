"""Masks in image files: all files of a set are read by one rule, as ids or as colours.

A grey or palette PNG may hold ids; any file may show the classes' colours. Which of the two is
meant is stated, or found out from all files of the set together ("auto"), which demands certainty:
whatever could mean something else is refused. The checks of that are in `mask_doubts`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from repgan_jax.data import mask_doubts
from repgan_jax.data.mask_pixels import MaskFile, open_mask, pack
from repgan_jax.errors import UserError
from repgan_jax.palette import IGNORE, Palette

RULES = ("auto", "ids", "colours")
UNKNOWN = -1  # what pixels of no known meaning are, until they become 255
_SAMPLE = 16  # files from which changes of a whole set are seen
_TOLERATED = 1e-3  # share of a file's pixels that may be of no known meaning

_SAVE = "save it as PNG, without smoothing, and without JPEG on the way"
_STATE = "draw in these, or state its own in the class list, as 'name #rrggbb'"


@dataclass(frozen=True, eq=False)
class Mask:
    """What a mask file says.

    Attributes:
        ids: int32 [H, W], 255 = ignore.
        unknown: how many of the pixels with 255 have no known meaning.
    """

    ids: np.ndarray
    unknown: int = 0


@dataclass(frozen=True, eq=False)
class Reader:
    """The rule by which all mask files of a set are read.

    Attributes:
        rule: "ids" or "colours".
        palette: the classes.
        stated: whether the user has stated the rule.
        unknown: pixels of unknown meaning that were met so far, by file name.
    """

    rule: str
    palette: Palette
    stated: bool = False
    unknown: dict[str, int] = field(default_factory=dict)

    def read(self, path: str | Path) -> Mask:
        """Returns what the file says; raises UserError if it says nothing by this rule."""
        file = open_mask(path)
        if self.rule == "ids":
            found = _by_ids(file, self.palette, stated=self.stated)
        else:
            found = _by_colours(file, self.palette)
        if isinstance(found, str):
            raise UserError(f"{path}: {found}")
        count = file.count(found == UNKNOWN)
        if count:
            self.unknown[Path(path).name] = count
        return Mask(np.where(found == UNKNOWN, IGNORE, found)[file.codes], count)


def choose_reader(
    paths: Iterable[str | Path], palette: Palette, rule: str = "auto", *, setting: str = "reading"
) -> Reader:
    """Returns the reader for the set of mask files `paths`.

    By "auto" the files are colours if the colours of each are the palette's, up to 0.1 % of its
    pixels; they are ids if the values of each are ids and nothing speaks against that. Where both
    are possible, both must say the same.

    Args:
        paths: the mask files.
        palette: the classes.
        rule: "ids", "colours" or "auto".
        setting: what errors call the argument `rule`.

    Raises:
        UserError: an unknown rule; by "auto", files that cannot be read, and sets that are
            neither ids nor colours, or that could be both.
    """
    if rule not in RULES:
        raise UserError(f"{setting}: {rule!r}, expected one of {', '.join(RULES)}")
    if rule != "auto":
        return Reader(rule, palette, stated=True)
    survey = _Survey(palette, setting)
    for path in paths:
        survey.add(Path(path), open_mask(path))
    return Reader(survey.choose(), palette)


class _Survey:
    """Finds out which rule is certain for a set of mask files."""

    def __init__(self, palette: Palette, setting: str) -> None:
        self._palette, self._setting = palette, setting
        self._against: dict[str, tuple[Path, str]] = {}  # the first file that is not ids, ...
        self._kinds: dict[Path, str] = {}
        self._differing: tuple[Path, int] | None = None  # the first file that means two things
        self._foreign: dict[bytes, Path] = {}  # by palette
        self._fixed: set[bytes] = set()  # palettes that are those of data sets

    def add(self, path: Path, file: MaskFile) -> None:
        """Raises UserError where neither rule is possible any more, or the file says two things."""
        self._kinds[path] = file.kind
        ids, colours = _by_ids(file, self._palette), _by_colours(file, self._palette)
        doubt = "" if isinstance(ids, str) else mask_doubts.find_doubt(file, ids, self._palette)
        if not isinstance(ids, str) and (reason := mask_doubts.find_doubt_of_colours(file)):
            colours = reason
        if doubt and file.bits:  # white may be any class that is bright, not only a white one
            colours = self._doubted(doubt)
        if not isinstance(colours, str):
            self._expect_one_meaning(path, file, colours)
            # Of doubtful indices the colours count that they show.
            if not isinstance(ids, str) and not doubt and (ids != colours).any():
                self._differing = self._differing or (path, file.count(ids != colours))
        if isinstance(ids, str) or doubt:
            self._refuse("ids", path, ids if isinstance(ids, str) else self._doubted(doubt))
        if isinstance(colours, str):
            self._refuse("colours", path, colours)
        elif mask_doubts.is_smoothed(colours[file.codes], self._palette.colours):
            text = f"its edges look smoothed; {_SAVE}; or set {self._setting}=colours, if they are "
            self._refuse("colours", path, text + "as drawn")
        if mask_doubts.shows_other_colours(file, self._palette):
            self._foreign.setdefault(file.table.tobytes(), path)
            if mask_doubts.has_spare_colours(file):
                self._fixed.add(file.table.tobytes())

    def choose(self) -> str:
        """Returns "ids" or "colours"; raises UserError where that is not certain."""
        for table in self._foreign.keys() - self._fixed:
            doubt = (
                "its palette is not the classes', and all of its colours are used: a program may "
                "have numbered them"
            )
            self._refuse("ids", self._foreign[table], self._doubted(doubt))
        if self._differing and not self._against:
            raise self._say_both(*self._differing)
        return "colours" if "ids" in self._against else "ids"

    def _expect_one_meaning(self, path: Path, file: MaskFile, colours: np.ndarray) -> None:
        """Raises UserError where pixels are of one class by colour, and of another by brightness.

        What the other files of the set are proves nothing for this one.
        """
        for greys in mask_doubts.find_grey_readings(file, self._palette):
            differing = (greys >= 0) & (greys != colours)
            if self._palette.num_classes == 2 and set(greys.tolist()) - {-1} == {0, IGNORE}:
                differing &= greys != IGNORE  # white is the one class beside the background
            if differing.any():
                raise self._say_both(path, file.count(differing), is_index=file.kind == "palette")

    def _say_both(self, path: Path, count: int, *, is_index: bool = False) -> UserError:
        """Returns the one line that says that the file means two things."""
        values, way = "values", f"{self._setting}=ids or "
        if is_index:
            values, way = "grey values", "save grey values that are ids without a palette, or set "
        return UserError(
            f"{path}: {count} pixels mean one class by their colours and another one by their "
            f"{values}; state which of them counts: {way}{self._setting}=colours"
        )

    def _doubted(self, doubt: str) -> str:
        return f"{doubt}; or set {self._setting}=ids, if its values are ids after all"

    def _refuse(self, rule: str, path: Path, reason: str) -> None:
        self._against.setdefault(rule, (path, reason))
        if len(self._against) == 2:
            raise UserError(self._say_neither())

    def _say_neither(self) -> str:
        """Returns the one line that says why the files are neither ids nor colours."""
        (ids, no_ids), (colours, no_colours) = self._against["ids"], self._against["colours"]
        kinds = self._kinds[ids], self._kinds[colours]
        if kinds == ("grey", "grey"):
            return f"{ids}: {no_ids}"
        if kinds == ("colour", "colour"):
            return f"{colours}: {no_colours}"
        if kinds == ("colour", "grey"):
            return (
                f"{ids} shows colours and {colours.name} holds grey values, but all masks of a "
                "folder are read alike; save them all as grey PNG of ids, or all in colours"
            )
        return f"{colours}: {no_colours}; nor are the values ids for certain: {ids.name}: {no_ids}"


def expect_values(paths: Sequence[str | Path], *, setting: str = "reading") -> None:
    """Raises UserError where the values of a set of mask files, whose meaning is stated, changed.

    Programs number the colours of a palette anew, and smoothing makes values between those drawn.
    Either changes the whole set, so some of the files are enough to see it.

    Args:
        paths: the mask files.
        setting: what errors call the argument that states how masks are read.
    """
    some = [Path(paths[i]) for i in np.unique(np.linspace(0, len(paths) - 1, _SAMPLE).astype(int))]
    files = {path: open_mask(path) for path in some}
    way_out = f"or set {setting}=ids, if the values are as they were drawn"
    if all(f.kind == "palette" and not mask_doubts.has_spare_colours(f) for f in files.values()):
        raise UserError(
            f"{some[0]}: all colours of its palette are used: a program may have numbered them, "
            f"so that the values are not those that class_map names; {_SAVE}; {way_out}"
        )
    for path, file in files.items():
        values = np.where(file.opaque, file.values, IGNORE)[file.codes]
        if values.max() <= IGNORE and mask_doubts.is_smoothed(values, np.arange(IGNORE)[:, None]):
            raise UserError(
                f"{path}: its edges look smoothed: between two values lie others; resize masks by "
                f"the nearest pixel; {way_out}"
            )


def read_values(path: str | Path) -> np.ndarray:
    """Returns the int32 values [H, W] of a grey or palette PNG; raises UserError without any."""
    file = open_mask(path)
    opaque = file.opaque | (file.kind == "palette")
    if reason := _no_values(file) or _too_clear(file, opaque):
        raise UserError(f"{path}: {reason}")
    return np.where(opaque, file.values, IGNORE)[file.codes]


def describe(masks: Mapping[str, Mask], palette: Palette) -> str:
    """Returns in which masks the classes are, and what share of the pixels counts for none."""
    shown = [set(np.unique(mask.ids).tolist()) for mask in masks.values()]
    counts = [sum(k in found for found in shown) for k in range(palette.num_classes)]
    pixels = sum(mask.ids.size for mask in masks.values())
    ignored = sum(int((mask.ids == IGNORE).sum()) for mask in masks.values())
    text = ", ".join(f"{name} in {n}" for name, n in zip(palette.names, counts, strict=True) if n)
    if ignored:
        text += f"; {ignored} of {pixels} pixels ignored"
    return text + describe_unknown({n: mask.unknown for n, mask in masks.items() if mask.unknown})


def describe_unknown(counts: Mapping[str, int]) -> str:
    """Returns in which files pixels had no known meaning, "" where `counts` is empty."""
    if not counts:
        return ""
    return (
        f", {sum(counts.values())} of them because their colour is no class's "
        f"(in {', '.join(counts)})"
    )


def _by_ids(file: MaskFile, palette: Palette, *, stated: bool = False) -> np.ndarray | str:
    """Returns int32 [N], the ids that the file's kinds of pixels are, or why they are none."""
    if reason := _no_values(file):
        return reason
    # Indices are there also where the palette makes them transparent, for those who say so.
    opaque = file.opaque | (stated and file.kind == "palette")
    is_id = (file.values >= 0) & (file.values < palette.num_classes)
    strange = opaque & (file.values != IGNORE) & ~is_id
    if strange.any():
        lowest = file.values[strange].min()
        return (
            f"unknown id {lowest} in {file.count(strange & (file.values == lowest))} pixels; the "
            f"classes are {', '.join(f'{i} {name}' for i, name in enumerate(palette.names))}, "
            f"and {IGNORE} is ignored"
        )
    if reason := _too_clear(file, opaque):
        return reason
    return np.where(opaque, file.values, UNKNOWN).astype(np.int32)


def _by_colours(file: MaskFile, palette: Palette) -> np.ndarray | str:
    """Returns int32 [N], the classes of which the file's kinds of pixels show the colours.

    Or the reason why they show none.
    """
    if not file.lossless and mask_doubts.have_similar_colours(palette):
        return f"a format that changes colours, such as JPEG, for classes of similar ones; {_SAVE}"
    ids = np.full(file.colours.shape, UNKNOWN, np.int32)
    for k, wanted in enumerate(pack(palette.colours)):
        ids[file.opaque & (file.colours == wanted)] = k
    if file.kind == "palette":  # index 255 is ignored, unless its colour says something else
        ignored = file.opaque & (file.values == IGNORE)
        ids[ignored] = np.where(ids[ignored] == UNKNOWN, IGNORE, UNKNOWN)
    unknown = ids == UNKNOWN
    count, shown = file.count(unknown), unknown & file.opaque
    if count <= _TOLERATED * file.codes.size and not (file.kind == "grey" and shown.any()):
        return ids
    if reason := _too_clear(file, file.opaque):
        return reason
    colours, places = np.unique(file.colours[shown], return_inverse=True)
    counts = np.bincount(places, file.counts[shown]).astype(int)
    known = zip(pack(palette.colours), palette.names, strict=True)
    remedy = _SAVE if len(colours) > palette.num_classes or not file.lossless else _STATE
    return (
        f"{count} pixels in no class's colour, {counts.max()} of them of "
        f"{_name(colours[counts.argmax()])}; expected "
        f"{', '.join(f'{_name(colour)} {name}' for colour, name in known)}: {remedy}"
    )


def _no_values(file: MaskFile) -> str:
    """Returns why the file has no values that may be ids, or ""."""
    if file.values is None:
        return "a colour picture; expected a grey or palette PNG of ids"
    if not file.lossless:
        return "a format that changes values, such as JPEG, cannot hold ids; " + _SAVE
    return ""


def _too_clear(file: MaskFile, opaque: np.ndarray) -> str:
    """Returns why a file cannot be read of which few kinds of pixels are `opaque` [N], or ""."""
    count = file.count(~opaque)
    if count <= _TOLERATED * file.codes.size:
        return ""
    return (
        f"{count} pixels are transparent, which stands for no class; give them the background's "
        "colour or id, or the id 255 to have them ignored, and save without transparency"
    )


def _name(colour: int) -> str:
    return f"#{colour:06x}"
