"""The stand-alone network of a finished run, as an object that segments photos."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, images, pixel_formats, remote, results
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
        flip: whether to average with the mirrored photo, as the network was trained with such.
    """

    network: UNet
    variables: Any
    palette: Palette
    size: int
    flip: bool = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position is the id."""
        return self.palette.names

    def predict(self, photos: np.ndarray | Image.Image | Sequence[Any]) -> np.ndarray:
        """Returns the most likely class of every pixel, int32 [N, H, W], or [H, W] of one photo.

        Args:
            photos: uint8 [N, H, W, 3] or [H, W, 3] in RGB, of any size; a PIL image, converted to
                RGB as `images.read_photo` does, but not turned as its EXIF orientation says; or a
                list of either, of one size.

        Raises:
            UserError: anything else, floats included: their range cannot be known.
        """
        batch = _as_photos(photos)
        if batch.ndim == 3:
            return self.predict(batch[None])[0]
        height, width = batch.shape[1:3]
        if not len(batch):
            return np.zeros((0, height, width), np.int32)
        small = np.stack([images.resize_area(p, self._inner(height, width)) for p in batch])
        probabilities = np.asarray(
            _probabilities(self.network, self.flip, self.palette.mirrored, self.variables, small)
        )
        return np.stack([most_likely(p, (height, width)) for p in probabilities])

    def write_architecture(self, folder: Path) -> None:
        """Writes into `folder` what `load_segmenter` needs beside the weights."""
        architecture = {
            "widths": list(self.network.widths),
            "patch": self.network.patch,
            "size": self.size,
            "flip": self.flip,
            "palette": self.palette.to_json(),
        }
        checkpoint.write_json(folder / _ARCHITECTURE, architecture)

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Returns (height, width) in the network: multiples of its stride, `size` the shorter."""
        scale, stride = self.size / min(height, width), self.network.stride
        return tuple(max(1, round(side * scale / stride)) * stride for side in (height, width))


def _as_photos(photos: Any) -> np.ndarray:
    """Returns uint8 [N, H, W, 3], or [H, W, 3] of one photo; raises UserError for anything else."""
    if isinstance(photos, Image.Image):
        deep = pixel_formats.is_deep(photos)
        photos.load()
        photos, _ = pixel_formats.to_rgb("predict", photos, deep=deep)
    if isinstance(photos, list | tuple):
        found = [_as_photos(photo) for photo in photos]
        shapes = {photo.shape for photo in found}
        if len(shapes) != 1 or len(found[0].shape) != 3:
            raise UserError(
                f"predict: a list of {len(found)} photos of the shapes {sorted(shapes)}; expected "
                "one or more [H, W, 3] of one size: call predict once per size"
            )
        return np.stack(found)
    array = photos if hasattr(photos, "dtype") and hasattr(photos, "shape") else None
    given = type(photos).__name__ if array is None else f"{array.dtype} {list(array.shape)}"
    is_image = array is not None and len(array.shape) in (3, 4) and array.shape[-1] == 3
    if not is_image or str(array.dtype) != "uint8" or 0 in array.shape[-3:]:
        hint = "; images.to_uint8 converts floats in [-1, 1]" if "float" in given else ""
        raise UserError(
            f"predict: {given}; expected uint8 RGB photos, [N, H, W, 3] or [H, W, 3]{hint}"
        )
    return np.asarray(array)


@jax.jit(static_argnums=(0, 1, 2))
def _probabilities(
    network: UNet, flip: bool, mirrored: tuple[int, ...], variables: Any, photos: jax.Array
) -> jax.Array:
    """Returns [N, h, w, K] for photos uint8 [N, h, w, 3].

    With `flip`, it is the mean over each photo and its mirror image, where class k is called
    `mirrored[k]`, or k if that is empty.
    """
    pictures = photos.astype(jnp.float32) / 127.5 - 1
    plain = jax.nn.softmax(network.apply(variables, pictures))
    if not flip:
        return plain
    turned = jax.nn.softmax(network.apply(variables, pictures[:, :, ::-1]))[:, :, ::-1]
    if mirrored:
        turned = turned[..., jnp.array(mirrored)]
    return (plain + turned) / 2


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
        architecture.get("flip", True),  # earlier versions always did
    )
