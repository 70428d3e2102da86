"""Photos with their true masks, in files or arrays, at the size at which they are compared."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repgan_jax.data import celebamask, mask_files
from repgan_jax.data.mask_sizes import resize_mask
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.segmenter import as_photos

Pair = tuple[str, Any, Any]  # name, photo, mask: paths or arrays


@dataclasses.dataclass(frozen=True)
class MaskOptions:
    """How true masks are read.

    Attributes:
        layout: "fused": one mask per photo; "celebamask": one file {id}_{part}.png per part.
        class_map: id in the masks (as text), or part name -> class name; empty = ids of the
            segmenter's classes.
        merge_order: part names, each painted over those before it ("celebamask").
        reading: of mask files without a `class_map`: "ids", "colours", or "auto" = whichever of
            them is certain.
        background: class of pixels that no part covers ("celebamask"); "" = by its name.
    """

    layout: str = "fused"
    class_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    merge_order: Sequence[str] = ()
    reading: str = "auto"
    background: str = ""

    def check(self) -> None:
        """Raises UserError for options that do not fit each other."""
        for name, choices in (("layout", celebamask.LAYOUTS), ("reading", mask_files.RULES)):
            if (value := getattr(self, name)) not in choices:
                raise UserError(f"{name}: {value!r}, expected one of {', '.join(choices)}")
        if self.layout == "celebamask" and not self.merge_order:
            raise UserError(
                "merge_order: empty, expected the part names in the order in which they are "
                "painted over each other"
            )
        if self.class_map and self.layout == "fused" and self.reading == "colours":
            raise UserError(
                "reading: 'colours', but class_map translates ids; expected 'ids' or 'auto', or an "
                "empty class_map"
            )


class LabelledPhotos(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Photos uint8 [S, S, 3] with their true ids int32 [S, S], read when they are asked for."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        palette: Palette,
        options: MaskOptions,
        *,
        size: int,
        setting: str = "reading",
    ) -> None:
        """Finds out how the mask files are read.

        Args:
            pairs: (name, photo, mask) of each; photos are paths, arrays or PIL images; masks are
                paths, see `celebamask.find_pairs`, or arrays of ids.
            palette: the classes.
            options: of the masks.
            size: S, side length in pixels at which photo and truth are compared.
            setting: what errors call `options.reading`.

        Raises:
            UserError: options that do not fit; mask files that are neither ids nor colours for
                certain, see `mask_files.choose_reader`.
        """
        options.check()
        if size < 1:
            raise UserError(f"size: {size}, expected at least 1")
        self.palette, self.size = palette, size
        self.names = tuple(name for name, _, _ in pairs)
        self._pairs, self._options, self._reader = pairs, options, None
        files = [mask for _, _, mask in pairs if is_path(mask)]
        if files and options.layout == "fused":
            if not options.class_map:
                self._reader = mask_files.choose_reader(
                    files, palette, options.reading, setting=setting
                )
            elif options.reading == "auto":
                mask_files.expect_values(files, setting=setting)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (photo uint8 [S, S, 3], truth int32 [S, S]).

        Raises:
            UserError: a photo or mask that cannot be read; other proportions; unknown ids.
        """
        name, photo, mask = self._pairs[index]
        image = images.read_photo(photo) if is_path(photo) else _as_photo(photo, name)
        truth = self._read_mask(mask, name)
        (height, width, _), (rows, columns) = image.shape, truth.shape
        if height * columns != width * rows:
            source = mask if is_path(mask) else f"masks[{name}]"
            raise UserError(
                f"{source}: true mask of {columns}x{rows} pixels (width x height) for a photo of "
                f"{width}x{height}; expected the same proportions"
            )
        return (
            images.resize_area(image, self.size),
            resize_mask(truth, self.size, self.palette.num_classes),
        )

    def describe(self, counts: np.ndarray) -> str:
        """Returns how the masks with confusion counts [P, K, K] were read, and what they show."""
        if self._options.layout == "celebamask":
            rule = "one file per part"
        else:
            rule = self._reader.rule if self._reader else "ids"
        unknown = mask_files.describe_unknown(self._reader.unknown) if self._reader else ""
        shown = zip(self.palette.names, (counts.sum(-1) > 0).sum(0), strict=True)
        ignored = 1 - counts.sum() / (len(counts) * self.size**2)
        return (
            f"{len(counts)} masks read as {rule}: "
            f"{', '.join(f'{name} in {n}' for name, n in shown if n)}; {ignored:.1%} ignored"
            + unknown
        )

    def _read_mask(self, mask: Any, name: str) -> np.ndarray:
        """Returns the true ids int32 [H, W]."""
        options = self._options
        if not is_path(mask):
            return _as_ids(mask, f"masks[{name}]", options, self.palette)
        return celebamask.read_truth(
            mask,
            options.layout,
            options.class_map,
            options.merge_order,
            self.palette,
            reader=self._reader,
            background=options.background,
        )


def is_path(value: Any) -> bool:
    """Returns whether `value` names a file or folder."""
    return isinstance(value, str | os.PathLike)


def _as_photo(photo: Any, name: str) -> np.ndarray:
    """Returns uint8 [H, W, 3] of an array or a PIL image."""
    array = as_photos(photo, f"photos[{name}]")
    if array.ndim != 3:
        raise UserError(f"photos[{name}]: uint8 {list(array.shape)}, expected [H, W, 3]")
    return array


def _as_ids(mask: Any, source: str, options: MaskOptions, palette: Palette) -> np.ndarray:
    """Returns the int32 ids [H, W] that the array `mask` holds, or that it stands for."""
    values = np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise UserError(
            f"{source}: {values.dtype} {list(values.shape)}, expected integer ids [H, W]"
        )
    values = values.astype(np.int64)
    if options.layout != "fused":
        raise UserError(f"{source}: an array; expected paths for layout={options.layout!r}")
    if options.class_map:
        return celebamask.translate(values, options.class_map, palette, source)
    known = values[values != IGNORE]
    if known.size and not 0 <= known.min() <= known.max() < palette.num_classes:
        raise UserError(
            f"{source}: ids {known.min()} to {known.max()}, expected 0 to "
            f"{palette.num_classes - 1}, or {IGNORE} = ignore"
        )
    return values.astype(np.int32)
