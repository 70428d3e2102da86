"""What speaks against the values of a mask file being ids.

Nothing here proves anything: these are the ways in which files were seen to hold valid ids that
mean something else, after a change of mode or palette, resampling, or a habit of other tools.
"""

import numpy as np

from repgan_jax.data.mask_pixels import MaskFile, pack
from repgan_jax.palette import IGNORE, Palette

_NEAR = 16  # difference in each of R, G, B up to which a colour may be a class's that was changed
_STEP = 6  # pixels to which resizing by 4 smooths an edge
_SMALL = 144  # pixels of a side
_LUMINANCE = (299, 587, 114)  # of 1000: what R, G and B contribute to a grey value


def find_doubt(file: MaskFile, ids: np.ndarray, palette: Palette) -> str:
    """Returns why the values of `file` may not be the `ids` [N] that they could be, or ""."""
    values = set(file.values[file.opaque].tolist())
    if values == {0, IGNORE}:
        return (
            f"its values are 0 and {IGNORE} alone: {IGNORE} is ignored here, and means the object "
            "in a mask of black and white; give the object its class's id"
        )
    if file.bits and palette.num_classes > 2 and 1 in values:
        return (
            f"a mask of black and white for {palette.num_classes} classes: white may be any of "
            "them; save ids as a grey PNG of 8 bits"
        )
    doubt = _doubt_grey(file, values, palette) or _doubt_palette(file, palette)
    if doubt:
        return doubt
    if is_smoothed(ids[file.codes], np.arange(palette.num_classes)[:, None]):
        return (
            "its edges look smoothed: between two classes lie the ids between theirs; resize "
            "masks by the nearest pixel"
        )
    return ""


def _doubt_grey(file: MaskFile, values: set[int], palette: Palette) -> str:
    """Returns why grey `values` may be the brightness of the classes' colours, or ""."""
    if file.kind != "grey" or values <= {0, IGNORE}:
        return ""
    if np.isin(file.colours[file.opaque], pack(palette.colours)).all():
        return ""  # where all colours are classes', that counts
    exact = palette.colours @ np.array(_LUMINANCE) / 1000
    looks = [{int(x), int(x + 0.5)} for x in exact.tolist()]  # programs cut off, or round
    if file.bits:
        looks = [{int(x >= 128) for x in look} for look in looks]
    meant = {v: {k for k, look in enumerate(looks) if v in look} for v in values - {IGNORE}}
    if all(meant.values()) and any(found != {v} for v, found in meant.items()):
        return "its values are also the brightness of other classes' colours"
    return ""


def find_grey_readings(file: MaskFile, palette: Palette) -> list[np.ndarray]:
    """Returns the int32 ids [N] that the grey values of `file` may be: these, or spread over 0-255.

    Of transparent pixels and of index 255 they mean nothing, which is -1.
    """
    counted, greys = file.opaque, file.colours & 255
    if file.kind == "palette":
        counted = counted & (file.values != IGNORE)
    if (file.colours != greys * 0x010101)[counted].any():
        return []
    ids = np.arange(palette.num_classes)
    plain, spread = np.full((2, 256), -1, np.int32)
    plain[ids] = ids
    plain[IGNORE] = IGNORE
    spread[ids * 255 // max(ids[-1], 1)] = ids
    spread[ids * (255 // max(ids[-1], 1))] = ids
    readings = [np.where(counted, table[greys], -1) for table in (plain, spread)]
    return [found for found in readings if (found[counted] >= 0).all()]


def _doubt_palette(file: MaskFile, palette: Palette) -> str:
    """Returns why the indices of a palette PNG may not be ids, from the colours shown, or ""."""
    if file.kind != "palette":
        return ""
    counted = file.opaque & (file.values != IGNORE)
    index, packed = file.values[counted], file.colours[counted]
    greys = packed & 255
    grey_ids = (packed == greys * 0x010101) & ((greys < palette.num_classes) | (greys == IGNORE))
    if grey_ids.all() and (greys != index).any():
        return "its indices and the grey values that they show are both ids, and differ"
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1)  # [U, 3]
    distance = np.abs(colours[:, None] - palette.colours.astype(int)).max(-1)  # [U, K]
    exact, near = distance == 0, distance <= _NEAR
    other = np.arange(palette.num_classes) != index[:, None]
    if (exact & other).any():
        row, k = np.argwhere(exact & other)[0]
        return f"its index {index[row]} shows the colour of {palette.names[k]!r}, whose id is {k}"
    own = (near & ~other).any(-1)
    black = (index == 0) & (packed == 0)  # in most palettes, so that it proves nothing
    if (own & ~black).any() and not own.all():
        return "it shows some of the classes' colours beside others"
    foreign = ~own
    derived = (near & other).any(-1)
    if not np.array_equal(file.table, _VOC):  # half of pure colours is the start of that palette
        derived |= _are_mixtures(colours, palette)
    if foreign.any() and 2 * (derived & foreign).sum() >= foreign.sum():
        return "its colours are close to the classes' or mixtures of them"
    return ""


def find_doubt_of_colours(file: MaskFile) -> str:
    """Returns why a palette PNG's indices say more than the colours that they show, or ""."""
    if file.kind != "palette":
        return ""
    counted = file.opaque & (file.values != IGNORE)
    colours, counts = np.unique(file.colours[counted], return_counts=True)
    if (counts < 2).all():
        return ""
    twins = file.values[counted & (file.colours == colours[counts.argmax()])]
    return f"its palette gives one colour to the indices {', '.join(map(str, twins))}"


def have_similar_colours(palette: Palette) -> bool:
    """Returns whether a small change makes the colour of a class that of another one."""
    distance = np.abs(palette.colours[:, None].astype(int) - palette.colours).max(-1)
    return bool((distance <= 4 * _NEAR).sum() > palette.num_classes)


def has_spare_colours(file: MaskFile) -> bool:
    """Returns whether the palette of `file` has other colours than those used, or is VOC's.

    Then it is that of a data set, whose indices are ids. Programs that save few colours number
    those that they find, and store no others, but for black.
    """
    used = file.values[file.values != IGNORE]
    known = used[used < len(file.table)]
    if (file.table[known] == _VOC[known]).all():
        return True
    return bool(np.setdiff1d(file.table, [*file.table[known], 0]).size)


def shows_other_colours(file: MaskFile, palette: Palette) -> bool:
    """Returns whether a palette PNG shows colours that are no class's."""
    if file.kind != "palette":
        return False
    counted = file.opaque & (file.values != IGNORE)
    return not np.isin(file.colours[counted], pack(palette.colours)).all()


def _voc_colours() -> np.ndarray:
    """Returns int32 [256], 0xRRGGBB: the palette of PASCAL VOC, which labelme writes too."""
    colours = np.zeros((256, 3), np.int32)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (np.arange(256) >> (3 * bit + channel) & 1) << (7 - bit)
    return pack(colours)


_VOC = _voc_colours()


def _are_mixtures(colours: np.ndarray, palette: Palette) -> np.ndarray:
    """Returns bool [U]: which `colours` [U, 3] lie on a line between two of the palette's."""
    return np.array([_between(palette.colours, colour).any() for colour in colours], bool)


def _between(ends: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Returns bool [K, K]: whether `point` [C] lies between two `ends` [K, C], give or take 1."""
    start = ends.astype(float)[:, None]
    line = ends.astype(float)[None] - start  # [K, K, C]
    length = (line**2).sum(-1)
    share = ((point - start) * line).sum(-1) / np.maximum(length, 1)
    off = np.abs(start + share[..., None] * line - point).max(-1)
    return (off <= 1) & (share > 1e-6) & (share < 1 - 1e-6)


def is_smoothed(ids: np.ndarray, points: np.ndarray) -> bool:
    """Returns whether edges in `ids` [H, W] lead through classes between those of both sides.

    Smoothing puts a few pixels of classes between at almost each such edge, drawing at almost none:
    in 806 hand-drawn masks of 19 classes, at their size, a half, a third and a quarter of it, such
    runs of pixels are at most 0.15 times as many as edges without them, and 0.32 times below 144
    pixels; smoothed, 40 times and more, and less where only some edges have ids between them.

    Args:
        ids: the mask; what is no class, such as 255, lies between nothing.
        points: [K, C], where the classes lie: their ids, or their colours.
    """
    lines = [_find_runs(ids), _find_runs(ids.T)]
    present = np.unique(lines[0][0])
    present = present[(present >= 0) & (present < len(points))]
    points, count = points[present], len(present)
    table = np.zeros((count + 1,) * 3, bool)  # whether the class [1] lies between [0] and [2];
    for k, point in enumerate(points):  # the last is no class
        table[:count, k, :count] = _between(points, point)
    if not table.any():
        return False
    places = np.full(IGNORE + 2, count)  # of 0 to 255, and -1
    places[present] = np.arange(count)
    apart, steps, sharp = table.any(1), 0, 0
    # In small masks, where parts are small, drawing looks more like smoothing.
    longest, share = (_STEP, 4) if min(ids.shape) >= _SMALL else (2, 2)
    for found, lengths, rows in lines:
        runs, same = places[found], rows[1:] == rows[:-1]
        step = np.zeros(runs.shape, bool)
        step[1:-1] = table[runs[:-2], runs[1:-1], runs[2:]] & (lengths[1:-1] <= longest)
        step[1:-1] &= same[1:] & same[:-1]
        edge = apart[runs[:-1], runs[1:]] & same
        steps += int(step.sum())
        sharp += int((edge & ~step[:-1] & ~step[1:]).sum())
    return steps > max(sharp / share, 1e-3 * ids.size)


def _find_runs(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns value, length and row of each run of equal values in the rows of `ids` [H, W]."""
    first = np.ones(ids.shape, bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    starts = np.flatnonzero(first)
    rows = starts // ids.shape[1]
    return ids[rows, starts % ids.shape[1]], np.diff(starts, append=ids.size), rows
