"""Inversion as `config.invert` states it, for the stages that need latents of photos."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from repgan_jax.data.latents import read_latents
from repgan_jax.generator import Generator
from repgan_jax.inversion import framing, inverter
from repgan_jax.inversion.cache import Inversion, Store
from repgan_jax.inversion.inverter import Inverter
from repgan_jax.inversion.options import InversionOptions, find_preset
from repgan_jax.inversion.origin import Origin
from repgan_jax.inversion.perceptual import find_weights, load_perceptual
from repgan_jax.io import files
from repgan_jax.stages import common, fingerprints
from repgan_jax.stages.fingerprints import Digest

ADVICE = (
    "frame it as the generator's pictures are (config.invert.landmarks), or use the stand-alone "
    "network (config.segment.method=network)"
)
_FIELDS = tuple(field.name for field in dataclasses.fields(InversionOptions))


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that do not fit, and for a cache that cannot be written."""
    _check_settings(config)
    cache = _cache(config, Path(config.workdir))
    if not cache.is_dir():  # an old one may hold all that is needed
        files.expect_writable(cache, "config.invert.cache")


def fields(config: ConfigDict) -> tuple[str, ...]:
    """Returns the config fields on which latents depend."""
    return ("seed", "dtype", "invert.preset", group(config))


def inputs(config: ConfigDict) -> dict[str, str]:
    """Returns the digests of the files on which latents depend, by config field.

    Raises:
        UserError: settings that do not fit each other or the generator, missing weights.
    """
    _check_settings(config)
    found: dict[str, str] = _weights(config)
    for field in (f"{group(config)}.start", "invert.landmarks"):
        if path := fingerprints.get(config, field):
            found[f"config.{field}"] = fingerprints.digest(path)
    return found


def build(config: ConfigDict, workdir: Path, generator: Generator) -> Inverter:
    """Returns what finds latents of photos for `generator`, the run's.

    Raises:
        UserError: settings that do not fit, missing weights.
    """
    options, start = _options(config), config.invert[config.invert.preset].start
    weights = _weights(config)
    with naming(config):
        return Inverter(
            jax.random.key(config.seed),
            generator,
            load_perceptual(config.invert.perceptual, net=options.net),
            options,
            start=_read_start(start),
            store=Store(_cache(config, workdir)),
            origin=_origin(config, [*weights.values()]),
            former_key=_former_key(config, weights, start),
            checkpoints=workdir / ".inversion",
            backend=config.backend,
        )


def find(
    config: ConfigDict, inverter: Inverter, photos: Mapping[str, framing.Framed]
) -> Iterator[tuple[str, Inversion]]:
    """Returns what `inverter` finds for `photos` by name; see `Inverter.find`."""
    with naming(config):
        return inverter.find({name: framed.photo for name, framed in photos.items()})


def group(config: ConfigDict) -> str:
    """Returns the dotted name of the config group of the preset."""
    return f"invert.{config.invert.preset}"


def naming(config: ConfigDict) -> AbstractContextManager[None]:
    """Names config fields in errors about arguments of inversion; see `common.config_names`."""
    return common.config_names(config, group(config), "invert")


def _cache(config: ConfigDict, workdir: Path) -> Path:
    """Returns the folder in which what is found for photos is kept."""
    cache = config.invert.cache
    return Path(cache).expanduser() if cache else workdir / "latents"


def _options(config: ConfigDict) -> InversionOptions:
    with common.config_names(config, "invert"):
        find_preset(config.invert.preset)
    settings = config.invert[config.invert.preset]
    return InversionOptions(**{name: settings[name] for name in _FIELDS})


def _read_start(path: str) -> dict[str, np.ndarray]:
    """Returns the latents to start from by photo; none where the path is ""."""
    return read_latents(path) if path else {}


def _check_settings(config: ConfigDict) -> None:
    """Raises UserError for settings that do not fit each other or the generator."""
    options, invert = _options(config), config.invert
    find_weights(invert.perceptual, net=options.net)
    generator = common.outline_generator(config)
    with naming(config):
        options.check(generator)
        framing.read_squares(invert.landmarks)
        inverter.check_start(_read_start(invert[invert.preset].start), generator)


def _weights(config: ConfigDict) -> dict[str, Digest]:
    """Returns the digests of the weights, by config field."""
    folder = Path(config.invert.perceptual) / config.invert[config.invert.preset].net
    return {
        "config.generator": fingerprints.generator_digest(config.generator),
        "config.invert.perceptual": fingerprints.weights_digest(folder),
    }


def _origin(config: ConfigDict, weights: list[str]) -> Origin:
    return Origin(*map(str, weights), config.seed, config.dtype)


def _former_key(
    config: ConfigDict, weights: Mapping[str, Digest], start: str
) -> Callable[..., str]:
    """Returns the key in an earlier version: of files' bytes, and of the path `start`."""
    # only when it is needed, and once: the files are large
    origin = functools.cache(
        lambda: _origin(config, [digest.former[0]() for digest in weights.values()])
    )
    return lambda options, *arrays: origin().key({**options, "start": start}, *arrays)
