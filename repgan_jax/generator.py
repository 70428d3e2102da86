"""A trained generator: architecture and weights as one object."""

import dataclasses
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, checksums, json_files, objects
from repgan_jax.models import mobilestylegan, stylegan2

_MODELS = {"stylegan2": stylegan2, "mobilestylegan": mobilestylegan}
_KIND = "Generator"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Generator:
    """Two pure functions of its variables: z to w, and w to an image with its activations.

    A pytree whose leaves are the weights: pass it through `jax.jit`, `jax.vmap` or `jax.grad` like
    an array. Its methods are compiled.

    Attributes:
        variables: {"mapping": ..., "synthesis": ..., "mean_latent": [D]}.
        mapping_module: architecture of z to w.
        synthesis_module: architecture of w to (image, taps).
        z_dim: Dz, width of z.
        w_dim: D, width of w.
        architecture: what a converter stated, as JSON text, from which `build` makes the modules.
    """

    variables: Mapping[str, Any]
    mapping_module: nn.Module = dataclasses.field(metadata={"static": True})
    synthesis_module: nn.Module = dataclasses.field(metadata={"static": True})
    z_dim: int = dataclasses.field(metadata={"static": True})
    w_dim: int = dataclasses.field(metadata={"static": True})
    architecture: str = dataclasses.field(metadata={"static": True})

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
        text = json.dumps({k: v for k, v in architecture.items() if k != "format"}, sort_keys=True)
        try:
            mapping, synthesis = model.build(architecture, dtype)
            sizes = architecture["z_dim"], architecture["w_dim"]
            return cls(variables, mapping, synthesis, *sizes, text)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"generator of an architecture that cannot be built ({type(error).__name__}: "
                f"{error}); architecture.json was edited or is incomplete: convert again"
            ) from error

    def __repr__(self) -> str:
        count = sum(x.size for x in jax.tree.leaves(self.variables))
        name = json.loads(self.architecture)["name"]
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        return (
            f"Generator({name}, {self.resolution} px, {count:,} parameters, z {self.z_dim}, "
            f"w {self.w_dim}, {self.num_layers} layers{classes})"
        )

    @property
    def resolution(self) -> int:
        """R, side length of the image in pixels."""
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
        """K, the number of classes of a class-conditional generator; 0 for most generators."""
        return self.mapping_module.num_classes

    def mapping(
        self, z: jax.Array, label: jax.Array | None = None, *, truncation: float = 1.0
    ) -> jax.Array:
        """Returns w [N, D] for standard normal `z` [N, Dz].

        Args:
            z: [N, Dz].
            label: class ids [N], or [N, K] one-hot, for a class-conditional generator.
            truncation: psi; 1 keeps w, 0 gives the mean latent (StyleGAN, appendix B).

        Raises:
            ValueError: a label is missing, or given to a generator without classes.
        """
        if (label is None) == bool(self.num_classes):
            given = "none" if label is None else "one"
            raise ValueError(
                f"label: {given} given, but the generator has {self.num_classes} classes"
            )
        return _mapping(self, z, label, truncation)

    def synthesis(
        self, w: jax.Array, *, noise: str | jax.Array = "stored"
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the image [N, R, R, 3], about -1 to 1, and the activations by name.

        Inside `jax.jit`, what is not used (the image, the finest taps) is not computed.

        Args:
            w: [N, D], or [N, L, D] with one latent per layer.
            noise: "stored", "none", or a key for fresh noise; keys [N] tie it to the sample.
        """
        if isinstance(noise, str):
            return _synthesis(self, w, noise)
        return _synthesis_with_keys(self, w, noise)

    def with_noise(self, maps: Mapping[str, jax.Array]) -> "Generator":
        """Returns this generator with `maps` {layer: [r, r]} in place of its own noise maps."""
        synthesis = self.variables["synthesis"]
        noise = synthesis["noise"] | {layer: {"map": one} for layer, one in maps.items()}
        variables = {**self.variables, "synthesis": {**synthesis, "noise": noise}}
        return dataclasses.replace(self, variables=variables)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `config.json` and `model.safetensors` to `folder`, for `load_generator`.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        config = {"architecture": json.loads(self.architecture)}
        objects.write(folder, _KIND, config, self.variables)


@partial(jax.jit, inline=True)  # inline: the same program as without, where a caller compiles
def _mapping(
    generator: Generator, z: jax.Array, label: jax.Array | None, truncation: float
) -> jax.Array:
    if label is not None and label.ndim == 1:
        label = jax.nn.one_hot(label, generator.num_classes)
    w: Any = generator.mapping_module.apply(generator.variables["mapping"], z, label)
    return stylegan2.truncate(w, generator.variables["mean_latent"], truncation)


def _apply(generator: Generator, w: jax.Array, noise: str | jax.Array) -> Any:
    w = stylegan2.broadcast(w, generator.num_layers)
    return generator.synthesis_module.apply(generator.variables["synthesis"], w, noise)


_synthesis = jax.jit(_apply, static_argnums=2, inline=True)
_synthesis_with_keys = jax.jit(_apply, inline=True)


def load_generator(path: str | os.PathLike[str], *, dtype: Any = jnp.float32) -> Generator:
    """Returns the generator in the folder `path`, which a converter or `Generator.save` wrote.

    Args:
        path: folder with architecture.json and variables/, or config.json and model.safetensors.
        dtype: of the arithmetic: jnp.float32, or jnp.bfloat16 on accelerators.

    Raises:
        UserError: where the folder is missing, damaged, or does not fit its architecture.
    """
    if objects.is_object(path):
        config, variables = objects.read(path, _KIND)
        described = Path(path) / objects.CONFIG
        architecture = config.get("architecture", {})
    else:
        architecture, variables = checkpoint.read_generator(path)
        described = Path(path) / checkpoint.ARCHITECTURE
    with json_files.parsing(described):
        generator = Generator.build(architecture, jax.device_put(variables), dtype)
        expected = _shapes(generator)
    objects.check_shapes(path, expected, variables)
    return generator


def _shapes(generator: Generator) -> dict[str, Any]:
    """Returns the variables that `generator` expects, as shapes."""
    return jax.eval_shape(
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


def read_architecture(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the architecture alone of the generator in the folder `path`.

    Raises:
        UserError: there is none.
    """
    if objects.is_object(path):
        return objects.read_config(path, _KIND)["architecture"]
    return checkpoint.read_architecture(path)


def generator_digest(path: str | os.PathLike[str]) -> str:
    """Returns a hexadecimal digest of architecture and tensors of the generator in `path`.

    Converting a checkpoint again, or saving the generator elsewhere, does not change it.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if objects.is_object(path):
        return checkpoint.architecture_digest(read_architecture(path), objects.digest(path, _KIND))
    return checkpoint.generator_digest(path)


def loaded_digest(generator: Generator) -> str:
    """Returns what `generator_digest` does of the folder that `generator` was loaded from."""
    tensors = checksums.tensor_digest(generator.variables)
    return checkpoint.architecture_digest(json.loads(generator.architecture), tensors)
