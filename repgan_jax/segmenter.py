"""The stand-alone network of a finished run, as an object that segments photos."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, images, remote, results
from repgan_jax.models.unet import UNet
from repgan_jax.palette import Palette

_ARCHITECTURE = "segmenter.json"  # written once the training is over


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """Photos to part masks, without the generator.

    Attributes:
        network: architecture.
        variables: its weights.
        palette: names and colours of the classes.
        size: pixels of a photo's shorter side in the network, as in training.
    """

    network: UNet
    variables: Any
    palette: Palette
    size: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position is the id."""
        return self.palette.names

    def predict(self, photos: np.ndarray) -> np.ndarray:
        """Returns the most likely class of every pixel, int32 [N, H, W].

        Args:
            photos: uint8 [N, H, W, 3], of any size.
        """
        height, width = photos.shape[1:3]
        small = np.stack([images.resize_area(p, self._inner(height, width)) for p in photos])
        mirrored = self.palette.mirrored
        probabilities = np.asarray(_probabilities(self.network, mirrored, self.variables, small))
        return np.stack([most_likely(p, (height, width)) for p in probabilities])

    def write_architecture(self, folder: Path) -> None:
        """Writes into `folder` what `load_segmenter` needs beside the weights."""
        architecture = {
            "widths": list(self.network.widths),
            "patch": self.network.patch,
            "size": self.size,
            "palette": self.palette.to_json(),
        }
        checkpoint.write_json(folder / _ARCHITECTURE, architecture)

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Returns (height, width) in the network: multiples of its stride, `size` the shorter."""
        scale, stride = self.size / min(height, width), self.network.stride
        return tuple(max(1, round(side * scale / stride)) * stride for side in (height, width))


@jax.jit(static_argnums=(0, 1))
def _probabilities(
    network: UNet, mirrored: tuple[int, ...], variables: Any, photos: jax.Array
) -> jax.Array:
    """Returns [N, h, w, K], the mean over each photo uint8 [N, h, w, 3] and its mirror image.

    There, class k is called `mirrored[k]`, or k if that is empty.
    """
    pictures = photos.astype(jnp.float32) / 127.5 - 1
    plain = network.apply(variables, pictures)
    turned = network.apply(variables, pictures[:, :, ::-1])[:, :, ::-1]
    if mirrored:
        turned = turned[..., jnp.array(mirrored)]
    return (jax.nn.softmax(plain) + jax.nn.softmax(turned)) / 2


def most_likely(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns int32 `shape`: the most likely class by `probabilities` [h, w, K], resized.

    One class at a time, for all ten of a photo with 24 megapixels would take a gigabyte.
    """
    classes = np.zeros(shape, np.int32)
    highest = np.zeros(shape, np.float32)
    for k, plane in enumerate(np.moveaxis(probabilities, -1, 0)):
        resized = np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.BILINEAR))
        classes[resized > highest] = k
        np.maximum(highest, resized, out=highest)
    return classes


def load_segmenter(workdir: str | os.PathLike[str]) -> Segmenter:
    """Returns the network that the stage `autoshot` of the run in `workdir`, or gs://, kept.

    While another one is trained with other settings, it is the finished one.

    Raises:
        UserError: the stage is not there or not finished, or its files are damaged.
    """
    with remote.working_folder(workdir) as local:
        for part in (_ARCHITECTURE, "best"):
            remote.pull(local / "autoshot" / part)
        return results.read(local / "autoshot", _read)


def _read(folder: Path) -> Segmenter:
    """Returns the network in the stage's `folder`."""
    if not (folder / _ARCHITECTURE).exists():
        raise UserError(
            f"{folder.parent}: no segmenter here; run the stages up to autoshot to the end"
        )
    architecture = checkpoint.read_json(folder / _ARCHITECTURE)
    palette = Palette.from_json(architecture["palette"])
    return Segmenter(
        UNet(palette.num_classes, tuple(architecture["widths"]), architecture["patch"]),
        checkpoint.read_tree(folder / "best"),
        palette,
        architecture["size"],
    )
