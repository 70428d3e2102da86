"""A trained generator: architecture and weights as one object."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint
from repgan_jax.models import mobilestylegan, stylegan2

_MODELS = {"stylegan2": stylegan2, "mobilestylegan": mobilestylegan}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generator:
    """Two pure functions of its variables, z to w and w to a picture with its activations.

    A pytree: pass it through `jax.jit` like an array.

    Attributes:
        variables: {"mapping": ..., "synthesis": ..., "mean_latent": [D]}.
        mapping_module: architecture of z to w.
        synthesis_module: architecture of w to (picture, taps).
        z_dim: Dz, width of z.
        w_dim: D, width of w.
    """

    variables: Mapping[str, Any]
    mapping_module: nn.Module = dataclasses.field(metadata={"static": True})
    synthesis_module: nn.Module = dataclasses.field(metadata={"static": True})
    z_dim: int = dataclasses.field(metadata={"static": True})
    w_dim: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def build(
        cls, architecture: Mapping[str, Any], variables: Mapping[str, Any], dtype: Any = jnp.float32
    ) -> "Generator":
        """Returns the generator that a converter's `architecture` and `variables` describe."""
        model = _MODELS.get(architecture["name"])
        if model is None:
            raise UserError(
                f"generator {architecture['name']!r} is unknown; expected one of {sorted(_MODELS)}"
            )
        try:
            mapping, synthesis = model.build(architecture, dtype)
            return cls(variables, mapping, synthesis, architecture["z_dim"], architecture["w_dim"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"generator of an architecture that cannot be built ({type(error).__name__}: "
                f"{error}); architecture.json was edited or is incomplete: convert again"
            ) from error

    @property
    def resolution(self) -> int:
        """R, pixels a side of the picture."""
        return self.synthesis_module.resolution

    @property
    def num_layers(self) -> int:
        """L, the number of latents in W+."""
        return self.synthesis_module.num_layers

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the activations, coarse to fine; each ends in its size, as in "conv_07_64"."""
        return self.synthesis_module.tap_names

    @property
    def num_classes(self) -> int:
        """K, the number of classes that a picture can be asked of; 0 for most generators."""
        return self.mapping_module.num_classes

    def mapping(
        self, z: jax.Array, label: jax.Array | None = None, *, truncation: float = 1.0
    ) -> jax.Array:
        """Returns w [N, D] for standard normal `z` [N, Dz].

        Args:
            z: [N, Dz].
            label: class ids [N], or [N, K] one-hot, for a generator with classes.
            truncation: psi; 1 keeps w, 0 gives the mean latent (StyleGAN, appendix B).

        Raises:
            ValueError: a label is missing, or given to a generator without classes.
        """
        if (label is None) == bool(self.num_classes):
            given = "none" if label is None else "one"
            raise ValueError(f"a generator of {self.num_classes} classes was given {given}")
        if label is not None and label.ndim == 1:
            label = jax.nn.one_hot(label, self.num_classes)
        w = self.mapping_module.apply(self.variables["mapping"], z, label)
        return stylegan2.truncate(w, self.variables["mean_latent"], truncation)

    def synthesis(
        self, w: jax.Array, *, noise: str | jax.Array = "stored"
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the picture [N, R, R, 3], about -1 to 1, and the activations by name.

        Under `jax.jit`, what is not used (the picture, fine taps) is not computed.

        Args:
            w: [N, D], or [N, L, D] with a latent a layer.
            noise: "stored", "none", or a key for fresh noise; keys [N] tie it to the sample.
        """
        w = stylegan2.broadcast(w, self.num_layers)
        return self.synthesis_module.apply(self.variables["synthesis"], w, noise)

    def with_noise(self, maps: Mapping[str, jax.Array]) -> "Generator":
        """Returns this generator with `maps` {layer: [r, r]} in place of its own noise maps."""
        synthesis = self.variables["synthesis"]
        noise = synthesis["noise"] | {layer: {"map": one} for layer, one in maps.items()}
        variables = {**self.variables, "synthesis": {**synthesis, "noise": noise}}
        return dataclasses.replace(self, variables=variables)


def load_generator(path: str | os.PathLike[str], *, dtype: Any = jnp.float32) -> Generator:
    """Returns the generator in the folder `path`, which a converter wrote.

    Args:
        path: folder with architecture.json and variables/.
        dtype: of the arithmetic: jnp.float32, or jnp.bfloat16 on accelerators.

    Raises:
        UserError: where the folder is missing, damaged, or does not fit its architecture.
    """
    architecture, variables = checkpoint.read_generator(path)
    generator = Generator.build(architecture, jax.device_put(variables), dtype)
    expected = jax.eval_shape(
        lambda: {
            "mapping": generator.mapping_module.init(
                jax.random.key(0),
                jnp.zeros((1, generator.z_dim)),
                jnp.zeros((1, generator.num_classes)),
            ),
            "synthesis": generator.synthesis_module.init(
                jax.random.key(0), jnp.zeros((1, generator.num_layers, generator.w_dim))
            ),
            "mean_latent": jnp.zeros(generator.w_dim),
        }
    )
    _check_shapes(path, expected, variables)
    return generator


def _check_shapes(path: str | os.PathLike[str], expected: Any, found: Any) -> None:
    """Raises UserError with the first tensor that is missing, unexpected or of another shape."""
    expected, found = (
        {
            jax.tree_util.keystr(key): jnp.shape(leaf)
            for key, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (expected, dict(found))
    )
    for name in sorted(expected | found):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{path}: tensor {name} has shape {found.get(name, 'none (missing)')}, expected "
                f"{expected.get(name, 'none (unknown)')}; convert the checkpoint again"
            )
