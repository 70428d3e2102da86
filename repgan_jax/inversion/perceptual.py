"""The perceptual distance between pictures, LPIPS: architecture and weights as one object."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint
from repgan_jax.models import lpips


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Perceptual:
    """Pictures to features, and distances between both.

    A pytree: pass it through `jax.jit` like an array.

    Attributes:
        variables: {"params": ...}.
        network: architecture.
    """

    variables: Mapping[str, Any]
    network: lpips.LPIPS = dataclasses.field(metadata={"static": True})

    def features(self, pictures: jax.Array) -> list[jax.Array]:
        """Returns maps [N, h, w, C] of `pictures` [N, H, W, 3] in [-1, 1], 32 px and larger."""
        maps: Any = self.network.apply(self.variables, pictures)
        return maps

    def distance(self, pictures: jax.Array, features: Sequence[jax.Array]) -> jax.Array:
        """Returns LPIPS [N], at least 0, of `pictures` [N, H, W, 3] from what `features` returned.

        An optimisation computes the features of its target once. N of either may be 1.
        """
        return lpips.distance(self.features(pictures), features)


def load_perceptual(path: str | os.PathLike[str], *, net: str = "vgg") -> Perceptual:
    """Returns LPIPS with the weights in the folder `path`, which the converter wrote.

    Args:
        path: folder with a folder for each network.
        net: "vgg" or "alex"; see `lpips.LPIPS`.

    Raises:
        UserError: where the network is unknown, or its weights are missing or damaged.
    """
    folder = find_weights(path, net=net)
    variables = checkpoint.read_tree(folder)
    found, expected = (
        jax.tree.map(jnp.shape, tree) for tree in (variables, lpips.abstract_variables(net))
    )
    if found != expected:
        raise UserError(f"{folder}: not the weights of LPIPS; fetch them again: {_fetch(path)}")
    return Perceptual(jax.device_put(variables), lpips.LPIPS(net))


def find_weights(path: str | os.PathLike[str], *, net: str = "vgg") -> Path:
    """Returns the folder of the network's weights; raises UserError where it is not there."""
    if net not in lpips.STAGES:
        raise UserError(f"LPIPS network {net!r} is unknown; expected one of {list(lpips.STAGES)}")
    if not (folder := Path(path) / net).is_dir():
        raise UserError(f"{folder}: no weights of LPIPS here; fetch them: {_fetch(path)}")
    return folder


def _fetch(path: str | os.PathLike[str]) -> str:
    return f"python -m repgan_jax.converters.lpips {path}"
