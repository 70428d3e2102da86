"""Fitting of a labeller to a few labelled images (paper, section 3.3)."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from repgan_jax.data.mask_sizes import resize_mask
from repgan_jax.data.masks import Shots
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.labeller import Labeller
from repgan_jax.models import heads
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.training import activations, mirroring
from repgan_jax.training.heads import fit_heads, learning_rate


@dataclasses.dataclass(frozen=True)
class FewShotOptions:
    """What heads are fitted, and how.

    Attributes:
        head: one of `models.heads.NAMES`: "mlp0" is linear.
        label_size: side length of the labels in pixels.
        taps: names of the activations that a head reads; () = all from 8x8 up.
        resize: of projected activations to the label size: "bilinear" or "nearest".
        ensemble: number of heads, fitted independently; labels are their mean probability.
        steps: of the optimiser.
        batch_size: shots per step and head; more than one are spread over all devices.
        learning_rate: of AdamW, at its highest.
        decay: of the learning rate: "cosine" to 0, "constant", or "paper" (x0.9 every 50 steps).
        weight_decay: of AdamW.
        flip: whether images may be mirrored, in fitting, and wherever a network learns from the
            labels: True = unless masks show a class without a partner on one side only, "always",
            or False.
        image_tolerance: largest mean absolute difference (0 to 255) between a shot and the image
            that its latent makes.
    """

    head: str = "mlp0"
    label_size: int = 128
    taps: Sequence[str] = ()
    resize: str = "bilinear"
    ensemble: int = 1
    steps: int = 300
    batch_size: int = 1
    learning_rate: float = 1e-3
    decay: str = "cosine"
    weight_decay: float = 1e-3
    flip: bool | str = True
    image_tolerance: float = 8.0

    def check(self, generator: Generator, num_classes: int) -> None:
        """Raises UserError for options that fit neither each other nor `generator`."""
        for name in ("label_size", "steps", "ensemble", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)}, expected at least 1")
        if self.resize not in ("bilinear", "nearest"):
            raise UserError(f"resize: {self.resize!r}, expected one of bilinear, nearest")
        mirroring.check(self.flip)
        learning_rate(self.decay, self.learning_rate, self.steps)
        self.tap_names(generator)
        self.build_head(num_classes)

    def tap_names(self, generator: Generator) -> tuple[str, ...]:
        """Returns the names of the activations that a head reads, coarse to fine."""
        return taps_lib.select(generator.tap_names, self.taps)

    def build_head(self, num_classes: int) -> nn.Module:
        """Returns the architecture of a head for `num_classes` classes."""
        return heads.build(self.head, num_classes, self.label_size, self.resize)


class Fitted(NamedTuple):
    """A fitted labeller, and how the fitting went.

    Attributes:
        labeller: the heads.
        losses: float [steps], mean over heads.
    """

    labeller: Labeller
    losses: np.ndarray


def fit_labeller(
    key: jax.Array,
    generator: Generator,
    shots: Shots,
    *,
    palette: Palette | None = None,
    are_photos: bool = False,
    on_chunk: Callable[[int, float], None] = lambda steps, loss: None,
    backend: str = "shard_map",
    **options: Any,
) -> Labeller:
    """Returns heads that label images [N, S, S, K], fitted to the k labelled images `shots`.

    Args:
        key: of all random choices.
        generator: of the shots.
        shots: labelled images with the latents that make them, from `load_shots`.
        palette: names and colours of the classes; None = those of `shots`.
        are_photos: whether the latents make the images only approximately.
        on_chunk: called with the number of steps done and the latest loss.
        backend: "shard_map" or "pmap".
        **options: fields of `FewShotOptions`.

    Raises:
        UserError: options or shots that do not fit; a loss that is not finite.
    """
    chosen, palette = FewShotOptions(**options), palette or shots.palette
    if palette is None:
        raise UserError("palette: the shots have none; give the names and colours of the classes")
    chosen.check(generator, palette.num_classes)
    labels = resize_masks(shots, palette, chosen.label_size)
    expect_classes(labels, palette)
    taps = activations.read_activations(
        generator,
        shots,
        chosen.tap_names(generator),
        chosen.label_size,
        image_tolerance=None if are_photos else chosen.image_tolerance,
    )
    flip = mirroring.decide(labels, palette, chosen.flip, say=_warn)
    return fit(
        key, taps, labels, palette, chosen, flip=flip, on_chunk=on_chunk, backend=backend
    ).labeller


def fit(
    key: jax.Array,
    taps: taps_lib.Taps,
    labels: np.ndarray,
    palette: Palette,
    options: FewShotOptions,
    *,
    flip: bool,
    on_chunk: Callable[[int, float], None] = lambda steps, loss: None,
    backend: str = "shard_map",
) -> Fitted:
    """Returns a labeller fitted to the activations `taps` [k, h, w, C] of labelled images.

    Args:
        key: of all random choices.
        taps: by name, coarse to fine.
        labels: ids [k, S, S].
        palette: names and colours of the classes.
        options: of the fitting; its taps, size and tolerance have been applied.
        flip: the decision on mirroring.
        on_chunk: called with the number of steps done and the latest loss.
        backend: "shard_map" or "pmap".

    Raises:
        UserError: in all processes, where the loss is not finite.
    """
    head = options.build_head(palette.num_classes)
    variables, losses = fit_heads(
        key,
        head,
        taps,
        jnp.asarray(labels),
        ensemble=options.ensemble,
        steps=options.steps,
        schedule=learning_rate(options.decay, options.learning_rate, options.steps),
        weight_decay=options.weight_decay,
        flip=flip,
        batch_size=options.batch_size,
        backend=backend,
        on_chunk=on_chunk,
    )
    if not np.isfinite(losses).all():
        raise UserError(
            f"learning_rate: the loss became {losses[-1]}; expected less than "
            f"{options.learning_rate:g}"
        )
    return Fitted(Labeller(jax.device_put(variables), head, tuple(taps), palette, flip), losses)


def resize_masks(shots: Shots, palette: Palette, size: int) -> np.ndarray:
    """Returns int32 [k, size, size], the masks of the shots."""
    return np.stack([resize_mask(mask, size, palette.num_classes) for mask in shots.masks])


def expect_classes(labels: np.ndarray, palette: Palette) -> None:
    """Raises UserError for labels [k, S, S] that show fewer than two classes."""
    seen = set(np.unique(labels).tolist()) - {IGNORE}
    if len(seen) < 2:
        only = f"{palette.names[seen.pop()]!r} alone" if seen else "no class"
        hint = f" ({IGNORE} means: ignore)" if IGNORE in labels else ""
        raise UserError(f"shots: the masks show {only}{hint}; expected two classes or more")


def _warn(text: str) -> None:
    if text.startswith(("warning", "nothing is mirrored:")):
        warnings.warn(text.removeprefix("warning: "), stacklevel=3)
