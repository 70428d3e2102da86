"""Masks at other sizes: ids are chosen, never mixed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.palette import IGNORE


def resize_mask(mask: np.ndarray, size: int | tuple[int, int], num_classes: int) -> np.ndarray:
    """Returns int32 `size` (a side, or height and width): `mask` [H, W] by majority, or nearest.

    Where both sides shrink by whole numbers every new pixel takes the most frequent id of its
    cell, ignore among them, the lowest at a tie; otherwise the id of the nearest old pixel.
    """
    (height, width), (new_height, new_width) = (
        mask.shape,
        (size, size) if isinstance(size, int) else size,
    )
    if (height, width) == (new_height, new_width):
        return mask
    if height % new_height or width % new_width:
        rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(int)
        columns = ((np.arange(new_width) + 0.5) * width / new_width).astype(int)
        return mask[np.ix_(rows, columns)].astype(np.int32)
    ids = np.array([*range(num_classes), IGNORE], np.int32)
    cells = np.asarray(mask).reshape(
        new_height, height // new_height, new_width, width // new_width
    )
    votes = np.stack([(cells == k).sum((1, 3)) for k in ids])  # [K + 1, H', W']
    return ids[votes.argmax(0)]


def fit_mask(
    mask: np.ndarray, size: tuple[int, int], num_classes: int, path: str | Path
) -> np.ndarray:
    """Returns `mask` at the `size` of its image, from which it differs by a whole factor at most.

    Raises:
        UserError: other sizes.
    """
    if mask.shape == tuple(size):
        return mask
    if not (whole_factor(mask.shape, size) or whole_factor(size, mask.shape)):
        raise UserError(
            f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} pixels (width x height) for an "
            f"image of {size[1]}x{size[0]}; draw it at the image's size, or at a whole multiple"
        )
    return resize_mask(mask, size, num_classes)


def whole_factor(large: Sequence[int], small: Sequence[int]) -> int:
    """Returns the whole number by which both sides of `small` were enlarged, or 0."""
    factor = large[0] // small[0]
    return factor if tuple(large) == tuple(factor * side for side in small) else 0
