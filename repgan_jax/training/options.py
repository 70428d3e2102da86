"""Options of the stand-alone network's training."""

import dataclasses
from collections.abc import Sequence

import optax

from repgan_jax.errors import UserError
from repgan_jax.models.unet import UNet
from repgan_jax.training.augment import Augmentation


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How the stand-alone network is built and trained.

    Attributes:
        widths: channels of each level of the U-Net, from the finest.
        patch: side length in pixels of the cell that the finest level sees as one; 1 = a classical
            U-Net.
        steps: of the optimiser.
        batch_size: over all devices of all processes.
        learning_rate: of AdamW, at its highest; a cosine down to 0 after the warm-up.
        warmup_steps: steps in which the learning rate rises from 0.
        weight_decay: of AdamW.
        clip_norm: largest norm of a gradient.
        ema: decay of the moving average of the weights, which is what is kept; 0 = no averaging.
        soft_targets: train on probabilities instead of the most likely class.
        class_balance: weight of a class is its share of pixels to the power of minus this.
        held_out: share of the images that is kept for validation.
        eval_every: steps between validations, which are checkpoints, too.
        augment: random changes of the images.
    """

    widths: Sequence[int] = (32, 64, 96, 128)
    patch: int = 2
    steps: int = 1500
    batch_size: int = 16
    learning_rate: float = 5e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    ema: float = 0.99
    soft_targets: bool = True
    class_balance: float = 0.2
    held_out: float = 0.05
    eval_every: int = 250
    augment: Augmentation = Augmentation()

    def network(self, num_classes: int) -> UNet:
        """Returns the network for `num_classes` classes."""
        return UNet(num_classes, tuple(self.widths), self.patch)

    def schedule(self) -> optax.Schedule:
        """Returns the learning rate by step."""
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup_steps, self.steps
        )

    def check(self) -> None:
        """Raises UserError for options that do not fit each other."""
        for name in ("steps", "batch_size", "eval_every", "patch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)}, expected at least 1")
        if self.warmup_steps >= self.steps:
            raise UserError(
                f"warmup_steps: {self.warmup_steps}, expected fewer than steps, {self.steps}"
            )

    def check_sizes(self, image_size: int, label_size: int) -> None:
        """Raises UserError where images fit neither their labels nor the network."""
        if label_size != image_size:
            raise UserError(
                f"image_size: images of {image_size} pixels but labels of {label_size}; "
                "expected the label size for both"
            )
        stride = self.network(1).stride
        if image_size % stride:
            raise UserError(
                f"widths, patch: the network needs images whose side length is a multiple of "
                f"{stride} pixels; the dataset has {image_size}"
            )

    def check_targets(self, *, has_probabilities: bool) -> None:
        """Raises UserError where the dataset lacks the probabilities to train on."""
        if self.soft_targets and not has_probabilities:
            raise UserError(
                "soft_targets: the dataset has no probabilities; generate it again with "
                "soft_labels=True, or set soft_targets=False"
            )
