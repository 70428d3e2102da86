"""What is optimised to find a photo's latent, and how the result is judged."""

import dataclasses
from typing import Any

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.inversion import projection
from repgan_jax.inversion.cache import Inversion

_OF_VERDICTS = ("good_lpips", "poor_lpips", "good_distance")  # they change no latent
_SMALLEST = 32  # side length in pixels from which LPIPS is defined


@dataclasses.dataclass(frozen=True)
class InversionOptions(projection.Settings):
    """Options of latent optimisation; the defaults are StyleGAN2's, in W+ with a pull to the mean.

    Attributes:
        net: network of LPIPS: "vgg", or "alex", which is about twenty times as fast.
        candidates: start from the best of so many random latents and the mean latent.
        save_every: steps between checkpoints, and between tests of `plateau`.
        good_lpips: a result is "good" up to this LPIPS and `good_distance`,
        poor_lpips: "poor" up to this LPIPS, and "failed" above it.
        good_distance: distance of the latent from the mean; about 1 for random latents.
    """

    space: str = "w+"
    pixel: float = 1.0
    pull: float = 0.02
    net: str = "vgg"
    candidates: int = 0
    save_every: int = 50
    good_lpips: float = 0.34
    poor_lpips: float = 0.44
    good_distance: float = 1.5

    def check(self, generator: Generator) -> None:
        """Raises UserError for options that fit neither each other nor `generator`."""
        if self.space not in projection.SPACES:
            expected = ", ".join(projection.SPACES)
            raise UserError(f"space: {self.space!r}, expected one of {expected}")
        for name in ("steps", "save_every", "size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)}, expected at least 1")
        if self.size < _SMALLEST or generator.resolution % self.size:
            raise UserError(
                f"size: {self.size}, expected a divisor of the generator's {generator.resolution} "
                f"pixels, at least {_SMALLEST}"
            )

    def optimisation(self) -> projection.Settings:
        """Returns those that the optimiser uses."""
        fields = dataclasses.fields(projection.Settings)
        return projection.Settings(**{field.name: getattr(self, field.name) for field in fields})

    def decisive(self) -> dict[str, Any]:
        """Returns {name: value} of those that change latents, each of its field's own type."""
        return {
            field.name: type(field.default)(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in _OF_VERDICTS
        }

    def verdict(self, found: Inversion) -> str:
        """Returns "good", "poor" or "failed", by likeness to the photo and by a usual latent."""
        if found.lpips > self.poor_lpips:
            return "failed"
        good = found.lpips <= self.good_lpips and found.distance <= self.good_distance
        return "good" if good else "poor"


PRESETS = {  # `configs/base.py` repeats them as config fields, with their comments
    "fast": InversionOptions(
        net="alex",
        candidates=16,
        save_every=10,
        steps=60,
        space="w",
        pull=0.1,
        latent_noise=0.0,
        optimise_noise=False,
        good_lpips=0.17,
        poor_lpips=0.25,
    ),
    "standard": InversionOptions(
        candidates=64, steps=200, space="w", pull=0.1, latent_noise=0.0, optimise_noise=False
    ),
    "paper": InversionOptions(space="w", pixel=0.0, pull=0.0),  # StyleGAN2's projector
}


def find_preset(name: str, **changes: Any) -> InversionOptions:
    """Returns the options of the preset `name`, with `changes`.

    Raises:
        UserError: an unknown preset.
    """
    if name not in PRESETS:
        raise UserError(f"preset: {name!r}, expected one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **changes)
