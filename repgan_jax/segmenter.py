"""The stand-alone segmentation network: architecture and weights as one object."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, json_files, objects, pixel_formats, remote, results
from repgan_jax.io import images as images_io
from repgan_jax.models.unet import UNet
from repgan_jax.palette import Palette

RESULT = "segmenter"  # folder in that of stage `autoshot`, written once the training is over
_FORMER = "segmenter.json"  # of version 0.1.0
_KIND = "Segmenter"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Segmenter:
    """Photos to part masks, without the generator.

    A pytree whose leaves are the weights: pass it through `jax.jit`, `jax.vmap` or `jax.grad` like
    an array. Its methods are compiled.

    Attributes:
        variables: weights and batch statistics of the network.
        network: architecture.
        palette: names and colours of the K classes.
        size: length in pixels of a photo's shorter side in the network, as in training.
        flip: whether predictions are averaged with those of the mirrored photo; the network was
            trained with mirrored images, then.
    """

    variables: Any
    network: UNet = dataclasses.field(metadata={"static": True})
    palette: Palette = dataclasses.field(metadata={"static": True})
    size: int = dataclasses.field(metadata={"static": True})
    flip: bool = dataclasses.field(default=True, metadata={"static": True})

    def __repr__(self) -> str:
        count = sum(x.size for x in jax.tree.leaves(self.variables))
        return (
            f"Segmenter(U-Net {self.network.widths}, {count:,} parameters, {self.size} px, "
            f"{self.num_classes} classes: {', '.join(self.class_names)})"
        )

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return self.palette.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position is the id."""
        return self.palette.names

    @property
    def id2label(self) -> dict[int, str]:
        """{id: class name}."""
        return self.palette.id2label

    @property
    def label2id(self) -> dict[str, int]:
        """{class name: id}."""
        return self.palette.label2id

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns logits [N, H, W, K] for `images` [N, H, W, 3] in [-1, 1].

        The network sees the images at their own size, their borders repeated up to multiples of its
        stride. It was trained on images whose shorter side has `size` pixels; `predict` resizes.

        Args:
            images: floats [N, H, W, 3].

        Raises:
            UserError: another shape, or integers.
        """
        if (
            images.ndim != 4
            or images.shape[-1] != 3
            or not jnp.issubdtype(images.dtype, jnp.floating)
        ):
            raise UserError(
                f"images: {images.dtype} {list(images.shape)}, expected floats [N, H, W, 3] in "
                "[-1, 1]; predict takes uint8 photos"
            )
        return _logits(self, images)

    def predict_probabilities(self, photos: np.ndarray | Image.Image | Sequence[Any]) -> np.ndarray:
        """Returns float32 [N, H, W, K], or [H, W, K] for one photo, as `predict` compares them.

        Args:
            photos: see `predict`.

        Raises:
            UserError: see `predict`.
        """
        batch = as_photos(photos)
        if batch.ndim == 3:
            return self.predict_probabilities(batch[None])[0]
        height, width = batch.shape[1:3]
        resized = [
            [_resize(plane, (height, width)) for plane in np.moveaxis(p, -1, 0)]
            for p in self._probabilities(batch)
        ]
        return np.moveaxis(np.array(resized, np.float32), 1, -1)

    def predict(self, photos: np.ndarray | Image.Image | Sequence[Any]) -> np.ndarray:
        """Returns the most likely class of every pixel, int32 [N, H, W], or [H, W] for one photo.

        Args:
            photos: uint8 [N, H, W, 3] or [H, W, 3] in RGB, of any size; a PIL image, converted to
                RGB as `images.read_photo` does, but not turned as its EXIF orientation says; or a
                list of either, of one size.

        Raises:
            UserError: anything else, floats included: their range cannot be known.
        """
        batch = as_photos(photos)
        if batch.ndim == 3:
            return self.predict(batch[None])[0]
        height, width = batch.shape[1:3]
        if not len(batch):
            return np.zeros((0, height, width), np.int32)
        return np.stack([most_likely(p, (height, width)) for p in self._probabilities(batch)])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `config.json` and `model.safetensors` to `folder`, for `load_segmenter`.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        config = {
            "widths": list(self.network.widths),
            "patch": self.network.patch,
            "size": self.size,
            "flip": self.flip,
            "palette": self.palette.to_json(),
        }
        objects.write(folder, _KIND, config, self.variables)

    def _probabilities(self, batch: np.ndarray) -> np.ndarray:
        """Returns [N, h, w, K] of photos uint8 [N, H, W, 3], at the network's size."""
        size = self._inner(*batch.shape[1:3])
        small = np.stack([images_io.resize_area(photo, size) for photo in batch])
        return np.asarray(_probabilities(self, small))

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Returns (height, width) in the network: multiples of its stride, `size` the shorter."""
        scale, stride = self.size / min(height, width), self.network.stride
        inner = [max(1, round(side * scale / stride)) * stride for side in (height, width)]
        return inner[0], inner[1]


def as_photos(photos: Any, name: str = "predict") -> np.ndarray:
    """Returns uint8 [N, H, W, 3], or [H, W, 3] of one photo.

    Args:
        photos: see `Segmenter.predict`.
        name: what errors begin with.

    Raises:
        UserError: anything else than photos.
    """
    if isinstance(photos, Image.Image):
        deep = pixel_formats.is_deep(photos)
        photos.load()
        photos, _ = pixel_formats.to_rgb(name, photos, deep=deep)
    if isinstance(photos, list | tuple):
        found = [as_photos(photo, name) for photo in photos]
        shapes = {photo.shape for photo in found}
        if len(shapes) != 1 or len(found[0].shape) != 3:
            raise UserError(
                f"{name}: a list of {len(found)} photos of the shapes {sorted(shapes)}; expected "
                "one or more [H, W, 3] of one size: call predict once per size"
            )
        return np.stack(found)
    array: Any = photos if hasattr(photos, "dtype") and hasattr(photos, "shape") else None
    given = type(photos).__name__ if array is None else f"{array.dtype} {list(array.shape)}"
    is_image = array is not None and len(array.shape) in (3, 4) and array.shape[-1] == 3
    if not is_image or str(array.dtype) != "uint8" or 0 in array.shape[-3:]:
        hint = "; images.to_uint8 converts floats in [-1, 1]" if "float" in given else ""
        raise UserError(
            f"{name}: {given}; expected uint8 RGB photos, [N, H, W, 3] or [H, W, 3]{hint}"
        )
    return np.asarray(array)


@partial(jax.jit, inline=True)  # inline: the same program as without, where a caller compiles
def _logits(segmenter: Segmenter, images: jax.Array) -> jax.Array:
    """Returns [N, H, W, K] for `images` [N, H, W, 3]."""
    height, width = images.shape[1:3]
    stride = segmenter.network.stride
    if height % stride or width % stride:
        borders = ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0))
        images = jnp.pad(images, borders, "edge")
    logits: Any = segmenter.network.apply(segmenter.variables, images)
    return logits[:, :height, :width]


@jax.jit
def _probabilities(segmenter: Segmenter, photos: jax.Array) -> jax.Array:
    """Returns [N, h, w, K] for photos uint8 [N, h, w, 3].

    With `flip`, it is the mean over each photo and its mirror image, where class k is called
    `palette.mirrored[k]`, or k if that is empty.
    """
    images = photos.astype(jnp.float32) / 127.5 - 1
    plain = jax.nn.softmax(segmenter(images))
    if not segmenter.flip:
        return plain
    turned = jax.nn.softmax(segmenter(images[:, :, ::-1]))[:, :, ::-1]
    if mirrored := segmenter.palette.mirrored:
        turned = turned[..., jnp.array(mirrored)]
    return (plain + turned) / 2


def most_likely(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns int32 `shape`: the most likely class by `probabilities` [h, w, K], resized.

    One class at a time, for all ten of a photo with 24 megapixels would take a gigabyte.
    """
    classes = np.zeros(shape, np.int32)
    highest = np.zeros(shape, np.float32)
    for k, plane in enumerate(np.moveaxis(probabilities, -1, 0)):
        resized = _resize(plane, shape)
        classes[resized > highest] = k
        np.maximum(highest, resized, out=highest)
    return classes


def _resize(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns float32 `shape`: `plane` [h, w], bilinear."""
    return np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BILINEAR))


def load_segmenter(path: str | os.PathLike[str]) -> Segmenter:
    """Returns the network that `Segmenter.save` wrote, or that the run in `path`, or gs://, kept.

    Args:
        path: folder of a saved segmenter, or of a run whose stage `autoshot` is finished.

    Raises:
        UserError: there is none, it is damaged, or it does not fit its architecture.
    """
    if objects.is_object(path):
        return _read(Path(path))
    with remote.working_folder(path) as local:
        for part in (RESULT, _FORMER, "best"):
            remote.pull(local / "autoshot" / part)
        return results.read(local / "autoshot", _read_result)


def _read(folder: Path) -> Segmenter:
    """Returns the segmenter that `Segmenter.save` wrote to `folder`."""
    config, variables = objects.read(folder, _KIND)
    with json_files.parsing(folder / objects.CONFIG):
        return _build(folder, config, variables)


def _build(folder: Path, config: Mapping[str, Any], variables: Mapping[str, Any]) -> Segmenter:
    """Returns the segmenter of what `Segmenter.save` stores, read from `folder`."""
    palette = Palette.from_json(config["palette"])
    network = UNet(palette.num_classes, tuple(config["widths"]), config["patch"])
    shape = (1, network.stride, network.stride, 3)
    expected = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape))
    objects.check_shapes(folder, expected, variables)
    size, flip = int(config["size"]), bool(config["flip"])
    return Segmenter(jax.device_put(variables), network, palette, size, flip)


def _read_result(folder: Path) -> Segmenter:
    """Returns the network in the folder of a stage `autoshot`, of this or an earlier version."""
    if objects.is_object(folder / RESULT):
        return _read(folder / RESULT)
    if not (folder / _FORMER).exists():
        raise UserError(
            f"{folder.parent}: no segmenter here; expected a folder that Segmenter.save wrote, or "
            "a run whose stages are finished up to autoshot"
        )
    return json_files.read(folder / _FORMER, parse=partial(_read_former, folder))


def _read_former(folder: Path, config: Mapping[str, Any]) -> Segmenter:
    """Returns the network as version 0.1.0 stored it in a run."""
    return _build(folder, {"flip": True, **config}, checkpoint.read_tree(folder / "best"))
