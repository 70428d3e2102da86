"""Fitted segmentation heads: the generator's activations in, class probabilities out."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from repgan_jax import synthesize
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.io import checkpoint, json_files, objects, remote, results
from repgan_jax.models import heads
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import Palette
from repgan_jax.synthesize import Sample

RESULT = "labeller"  # folder in that of stage `fewshot`
_KIND = "Labeller"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Labeller:
    """An ensemble of heads that labels every pixel from a generator's activations.

    A pytree whose leaves are the weights: pass it through `jax.jit`, `jax.vmap` or `jax.grad` like
    an array. Its methods are compiled.

    Attributes:
        variables: {"params": ..., "stats": ...}; leaves of "params" have a leading axis M, one
            entry per head; "stats" (root mean square of each channel over the shots) is shared.
        head: architecture of a head, see `models.heads`.
        tap_names: names of the activations that the heads read.
        palette: names and colours of the K classes.
        flip: whether images may be mirrored where networks learn from these labels.
    """

    variables: Mapping[str, Any]
    head: nn.Module = dataclasses.field(metadata={"static": True})
    tap_names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    palette: Palette = dataclasses.field(metadata={"static": True})
    flip: bool = dataclasses.field(default=True, metadata={"static": True})

    def __repr__(self) -> str:
        count = sum(x.size for x in jax.tree.leaves(self.variables["params"]))
        return (
            f"Labeller({heads.name_of(self.head)} x {self.num_heads}, {count:,} parameters, "
            f"{len(self.tap_names)} taps, {self.label_size} px, "
            f"{self.num_classes} classes: {', '.join(self.class_names)})"
        )

    @property
    def label_size(self) -> int:
        """S, side length of the labels in pixels."""
        return self.head.size

    @property
    def num_heads(self) -> int:
        """M, the number of heads in the ensemble."""
        return len(jax.tree.leaves(self.variables["params"])[0])

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

    def __call__(self, taps: Mapping[str, jax.Array]) -> jax.Array:
        """Returns the ensemble's mean probabilities [N, S, S, K] for `taps` {name: [N, h, w, C]}.

        Args:
            taps: activations as `Generator.synthesis` returns them; only `tap_names` are read.
        """
        return self.with_disagreement(taps)[0]

    def with_disagreement(self, taps: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Returns (mean probabilities [N, S, S, K], disagreement of the heads [N, S, S]).

        The disagreement is the Jensen-Shannon divergence of the heads in nats (DatasetGAN,
        section 3.2): 0 where all agree, and everywhere for a single head.

        Args:
            taps: as in `__call__`.
        """
        return _with_disagreement(self, {name: taps[name] for name in self.tap_names})

    def label(
        self, generator: Generator, w: jax.Array, *, noise: str | jax.Array = "stored"
    ) -> jax.Array:
        """Returns probabilities [N, S, S, K] for the images that `w` [N, D] or [N, L, D] makes.

        Args:
            generator: the one that the heads were fitted to.
            w: latents.
            noise: see `Generator.synthesis`.
        """
        if isinstance(noise, str):
            return _label(self, generator, w, noise)
        return _label_with_keys(self, generator, w, noise)

    def sample(
        self,
        generator: Generator,
        key: jax.Array,
        count: int,
        *,
        truncation: float = 1.0,
        noise: str = "stored",
        image_size: int = 0,
        label: int = -1,
    ) -> Sample:
        """Returns `count` generated images [N, s, s, 3] with masks, probabilities and latents.

        Sample i depends on `key` and i alone, as in `generate_dataset`.

        Args:
            generator: the one that the heads were fitted to.
            key: of all random choices.
            count: N.
            truncation: psi; 1 = all of the generator's variety, 0 = the mean image.
            noise: "stored", "none" or "fresh" (a new noise map per sample).
            image_size: s, side length of the images in pixels, a divisor of the generator's
                resolution; 0 = that resolution.
            label: class of all samples of a class-conditional generator; -1 = random.

        Raises:
            UserError: sizes or a class that the generator does not have.
        """
        size = image_size or generator.resolution
        if size < 1 or generator.resolution % size:
            raise UserError(
                f"image_size: {image_size}, expected a divisor of the generator's "
                f"{generator.resolution} pixels"
            )
        sample = _make_sampler(truncation, noise, size, self.label_size, label)
        found = sample((generator, self, key), jnp.arange(count, dtype=jnp.int32))
        found = jax.device_get(found)
        return Sample(
            found["image"],
            found["mask"].astype(np.int32),
            found["soft"],
            found["latent"],
            found["disputed"],
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `config.json` and `model.safetensors` to `folder`, for `load_labeller`.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        objects.write(folder, _KIND, self._config(), self.variables)

    def _config(self) -> dict[str, Any]:
        stats = self.variables["stats"]["FoldedConv_0"]
        return {
            "num_heads": self.num_heads,
            "head": heads.name_of(self.head),
            "label_size": self.head.size,
            "resize": self.head.resize,
            "taps": {name: stats[name].size for name in self.tap_names},  # channels
            "palette": self.palette.to_json(),
            "flip": self.flip,
        }


@partial(jax.jit, inline=True)  # inline: the same program as without, where a caller compiles
def _with_disagreement(labeller: Labeller, taps: taps_lib.Taps) -> tuple[jax.Array, jax.Array]:
    chosen = taps_lib.choose(taps, labeller.tap_names, labeller.label_size)
    variables = labeller.variables

    def one(params: Any) -> jax.Array:
        logits: Any = labeller.head.apply({**variables, "params": params}, chosen)
        return jax.nn.softmax(logits)

    # one after the other: side by side, convolutions are grouped, and slow
    members = jax.lax.map(one, variables["params"])
    if len(members) == 1:  # logarithms cost more than a linear head
        return members[0], jnp.zeros(members.shape[1:-1])
    mean = members.mean(0)
    return mean, jnp.maximum(_entropy(mean) - _entropy(members).mean(0), 0.0)


def _entropy(probabilities: jax.Array) -> jax.Array:
    return -jnp.sum(jax.scipy.special.xlogy(probabilities, probabilities), -1)


def _apply(
    labeller: Labeller, generator: Generator, w: jax.Array, noise: str | jax.Array
) -> jax.Array:
    return labeller(generator.synthesis(w, noise=noise)[1])


_label = jax.jit(_apply, static_argnums=3, inline=True)
_label_with_keys = jax.jit(_apply, inline=True)


@functools.lru_cache
def _make_sampler(
    truncation: float, noise: str, image_size: int, label_size: int, label: int
) -> Callable[..., dict[str, jax.Array]]:
    """Returns the compiled sampler of these settings, the same one each time."""
    return jax.jit(
        synthesize.make_sampler(
            truncation=truncation,
            noise=noise,
            image_size=image_size,
            soft_size=label_size,
            soft_type="float32",
            label=label,
        )
    )


def load_labeller(path: str | os.PathLike[str]) -> Labeller:
    """Returns the labeller that `Labeller.save` wrote, or that the run in `path`, or gs://, kept.

    Args:
        path: folder of a saved labeller, or of a run whose stage `fewshot` is finished.

    Raises:
        UserError: there is none, it is damaged, or it does not fit its architecture.
    """
    if objects.is_object(path):
        return _read(Path(path))
    with remote.working_folder(path) as local:
        remote.pull(local / "fewshot")
        return results.read(local / "fewshot", read_result)


def read_palette(folder: Path) -> Palette:
    """Returns the classes alone of the labeller in the folder of a stage `fewshot`."""
    if objects.is_object(folder / RESULT):
        config = objects.read_config(folder / RESULT, _KIND)
        with json_files.parsing(folder / RESULT / objects.CONFIG):
            return Palette.from_json(config["palette"])
    return json_files.read(folder / "palette.json", parse=Palette.from_json)


def read_result(folder: Path) -> Labeller:
    """Returns the labeller in the folder of a stage `fewshot`, of this or an earlier version."""
    if objects.is_object(folder / RESULT):
        return _read(folder / RESULT)
    if not (folder / "head.json").exists():
        raise UserError(
            f"{folder.parent}: no labeller here; expected a folder that Labeller.save wrote, or a "
            "run whose stage fewshot is finished"
        )
    return json_files.read(folder / "head.json", parse=partial(_read_former, folder))


def _read_former(folder: Path, config: Mapping[str, Any]) -> Labeller:
    """Returns the labeller as version 0.1.0 stored it in a run."""
    variables = checkpoint.read_tree(folder / "heads")
    stats = variables["stats"]["FoldedConv_0"]
    more = {
        "num_heads": len(jax.tree.leaves(variables["params"])[0]),
        "taps": {name: stats[name].size for name in config["taps"]},
        "palette": read_palette(folder).to_json(),
    }
    return _build(folder, {"flip": True, **config, **more}, variables)


def _read(folder: Path) -> Labeller:
    """Returns the labeller that `Labeller.save` wrote to `folder`."""
    config, variables = objects.read(folder, _KIND)
    with json_files.parsing(folder / objects.CONFIG):
        return _build(folder, config, variables)


def _build(folder: Path, config: Mapping[str, Any], variables: Mapping[str, Any]) -> Labeller:
    """Returns the labeller of what `Labeller.save` stores, read from `folder`."""
    palette = Palette.from_json(config["palette"])
    head = heads.build(config["head"], palette.num_classes, config["label_size"], config["resize"])
    taps = {
        name: jnp.zeros((1, taps_lib.size_of(name), taps_lib.size_of(name), channels))
        for name, channels in config["taps"].items()
    }
    keys = jax.random.split(jax.random.key(0), config["num_heads"])
    expected = {
        "params": jax.eval_shape(jax.vmap(lambda key: head.init(key, taps)["params"]), keys),
        "stats": jax.eval_shape(head.init, keys[0], taps)["stats"],
    }
    objects.check_shapes(folder, expected, variables)
    return Labeller(jax.device_put(variables), head, tuple(taps), palette, config["flip"])
