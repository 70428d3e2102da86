"""The learning curve of a training, on disk."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repgan_jax.io import files


class Validation(NamedTuple):
    """What a validation found.

    Attributes:
        step: steps done.
        loss: mean over the steps since the validation before.
        learning_rate: of the last step.
        mean_iou: on the held-out images, mean over classes.
        images: uint8 [n, H, W, 3], the first held-out images.
        predictions: int32 [n, H, W] for them.
    """

    step: int
    loss: float
    learning_rate: float
    mean_iou: float
    images: np.ndarray
    predictions: np.ndarray


class Curve:
    """The rows of curve.jsonl; those after `step` are dropped: a killed run makes them again."""

    def __init__(self, path: Path, step: int):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [row for line in lines if (row := json.loads(line))["step"] <= step]

    def best(self) -> float:
        """Returns the highest validation score so far; -1 before the first."""
        return max((row.get("validation_mean_iou", -1.0) for row in self.rows), default=-1.0)

    def add(self, found: Validation) -> None:
        """Writes the rows of a validation, and all before them, atomically."""
        self.rows += [
            {"step": found.step, "loss": found.loss, "learning_rate": found.learning_rate},
            {"step": found.step, "validation_mean_iou": found.mean_iou},
        ]
        files.atomic_write(self._path, "".join(json.dumps(r) + "\n" for r in self.rows).encode())
