"""Batches of a generated dataset: which examples a training step sees, and what it leaves out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.runtime import distributed

Examples = Sequence[Mapping[str, Any]]
_COUNTED = 200  # examples from which the classes' shares are taken; a dataset may hold millions


def make_batches(
    data: Examples,
    num_classes: int,
    *,
    count: int,
    batch_size: int,
    steps: int,
    start: int,
    seed: int,
    soft_targets: bool,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's part of the batches of steps `start` to `steps`.

    A step's batch depends on the step and the seed alone.

    Args:
        data: examples with "image" uint8 [H, W, 3], and "probabilities" [P, P, K] or "mask" [S, S].
        num_classes: K.
        count: only the first so many examples are used.
        batch_size: over all devices of all processes.
        steps: of the whole training.
        start: steps done already.
        seed: of the order.
        soft_targets: train on probabilities instead of the most likely class.

    Returns:
        Batches of "image" uint8 [n, H, W, 3], "targets" float32 [n, P, P, K] and "position" int32
        [n], the example's place in the whole training.
    """
    epochs = math.ceil(steps * batch_size / count)

    def to_training(position: int, example: Mapping[str, Any]) -> dict[str, Any]:
        if soft_targets:
            targets = example["probabilities"]
        else:
            targets = np.eye(num_classes, dtype=np.float32)[example["mask"]]
        return {"image": example["image"], "targets": targets, "position": np.int32(position)}

    examples: Any = grain.MapDataset.source(data)[:count].seed(seed).shuffle().repeat(epochs)
    left = examples.map_with_index(to_training)[start * batch_size : steps * batch_size]
    share = batch_size // distributed.size()
    return iter(
        distributed.mine(left)
        .to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4 * share))
        .batch(share)
    )


def class_weights(data: Examples, num_classes: int, balance: float) -> np.ndarray:
    """Returns [K] float32: each class's share of the pixels to the power -`balance`.

    Scaled so that the mean over pixels is 1.
    """
    count = min(len(data), _COUNTED)
    masks = (data[i]["mask"] for i in range(count))
    pixels = np.sum([np.bincount(mask.ravel(), minlength=num_classes) for mask in masks], 0)
    share = np.maximum(pixels / pixels.sum(), 1e-4)  # of a class that never shows, too
    weights = share**-balance
    return (weights / (share * weights).sum()).astype(np.float32)


def num_held_out(count: int, share: float) -> int:
    """Returns how many of `count` examples are held out, 1 or more.

    Raises:
        UserError: none would be left to train on.
    """
    held_out = max(1, round(share * count))
    if held_out >= count:
        raise UserError(
            f"held_out: {share} of {count} generated images leaves none to train on; expected less"
        )
    return held_out
