"""Latents of photos, for the stages that need them; a photo is worked on once, see `inversions`."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax.data.latents import read_latents
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.inversion import cache as inversions
from repgan_jax.inversion import framing, projection
from repgan_jax.inversion import projector as invert
from repgan_jax.inversion.cache import Inversion
from repgan_jax.inversion.perceptual import find_weights, load_perceptual
from repgan_jax.io import checkpoint, files, images
from repgan_jax.runtime import parallel
from repgan_jax.stages import common, fingerprints

PRESETS = ("fast", "standard", "paper")
_SHARES = (0.0, 0.1, 0.5, 1.0)  # of the steps, in a strip; the photo itself follows
ADVICE = (
    "frame it as the generator's pictures are (config.invert.landmarks), or use the stand-alone "
    "network (config.segment.method=network)"
)
_VERDICT_FIELDS = ("good_lpips", "poor_lpips", "good_distance")  # they change no latent


def check(config: ConfigDict) -> None:
    """Raises UserError for what `check_settings` refuses, or a cache that cannot be written."""
    check_settings(config)
    cache = _cache(config, Path(config.workdir))
    if not cache.is_dir():  # an old one may hold all that is needed
        files.expect_writable(cache, "config.invert.cache")


def _cache(config: ConfigDict, workdir: Path) -> Path:
    """Returns the folder in which what is found for photos is kept."""
    cache = config.invert.cache
    return Path(cache).expanduser() if cache else workdir / "latents"


def verdict(found: Inversion, settings: ConfigDict) -> str:
    """Returns "good", "poor" or "failed": how like the photo, and how usual the latent is."""
    if found.lpips > settings.poor_lpips:
        return "failed"
    good = found.lpips <= settings.good_lpips and found.distance <= settings.good_distance
    return "good" if good else "poor"


def describe(found: Inversion) -> str:
    """Returns the scores in a few words."""
    return f"LPIPS {found.lpips:.3f}, {found.distance:.2f} from the mean latent"


def check_settings(config: ConfigDict) -> dict[str, np.ndarray]:
    """Returns the latents to start from by photo; none where `start` of the preset is "".

    Raises:
        UserError: settings that do not fit each other or the generator, missing weights.
    """
    options = config.invert
    common.expect_one_of(config, "invert.preset", PRESETS)
    group, settings = f"invert.{options.preset}", options[options.preset]
    common.expect_one_of(config, f"{group}.space", projection.SPACES)
    common.expect_positive(config, f"{group}.steps", f"{group}.save_every", f"{group}.size")
    find_weights(options.perceptual, net=settings.net)
    generator = common.outline_generator(config)
    _check_size(f"config.{group}.size", settings.size, generator)
    framing.read_squares(options.landmarks)
    starts = read_latents(settings.start) if settings.start else {}
    _check_latents(settings.start, starts, generator)
    return starts


class Inverter:
    """What `config.invert` asks for.

    Attributes:
        settings: those of the preset.
        size: S, pixels a side of the photos it takes.
        fields: config fields on which the latents depend.
        inputs: digests of the files on which they depend, by config field.
        limit_field: name of the config field beyond which a photo has failed.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        """Checks the settings.

        Raises:
            UserError: settings that do not fit, missing weights.
        """
        options = config.invert
        group = f"invert.{options.preset}"
        self._starts = check_settings(config)
        self._config, self._workdir = config, workdir
        self.limit_field = f"config.{group}.poor_lpips"
        self.settings = options[options.preset]
        self.size = self.settings.size
        self._perceptual = load_perceptual(options.perceptual, net=self.settings.net)
        self.fields = ("seed", "dtype", "invert.preset", group)
        self._weights = {
            "config.generator": fingerprints.generator_digest(config.generator),
            "config.invert.perceptual": fingerprints.weights_digest(
                Path(options.perceptual) / self.settings.net
            ),
        }
        self.inputs = dict(self._weights)
        for field in (f"{group}.start", "invert.landmarks"):
            if path := fingerprints.get(config, field):
                self.inputs[f"config.{field}"] = fingerprints.digest(path)
        self._store = inversions.Store(_cache(config, workdir))

    def verdict(self, found: Inversion) -> str:
        """Returns what `verdict` says under the preset's limits."""
        return verdict(found, self.settings)

    def find(self, photos: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Inversion]]:
        """Yields what is found for `photos` uint8 [S, S, 3] by name, in their order.

        All are worked on before the first is yielded, one a device at a time. After a kill it goes
        on from the last checkpoint of the same photos on as many devices.

        Raises:
            UserError: a photo without a start, where they are given; a loss that is not a number; a
                cache that cannot be written, before any work.
        """
        self._check_starts(photos)
        keys = {name: self._key(name, photo) for name, photo in photos.items()}
        missing = [name for name in photos if not self._is_kept(name, photos[name], keys[name])]
        if missing:
            files.expect_writable(self._store.folder, "config.invert.cache")
            self._fill({name: photos[name] for name in missing}, keys)
        return ((name, self._store.read(keys[name])) for name in photos)

    def _is_kept(self, name: str, photo: np.ndarray, key: str) -> bool:
        """Returns whether something is kept for `photo`, perhaps by an earlier version."""
        if self._store.read(key) is not None:
            return True
        weights = {field: digest.former[0]() for field, digest in self._weights.items()}
        kept = self._store.read(self._key(name, photo, weights, start=self.settings.start))
        if kept is not None:
            self._store.write(key, kept)
        return kept is not None

    def _key(
        self,
        name: str,
        photo: np.ndarray,
        weights: Mapping[str, str] | None = None,
        **more: str,
    ) -> str:
        """Returns a digest of all that decides what is found for `photo`.

        Args:
            name: of the photo.
            photo: uint8 [S, S, 3].
            weights: digests of the weights, if not by their present names.
            more: settings that counted in an earlier version.
        """
        settings = self.settings.to_dict()
        indecisive = {*_VERDICT_FIELDS, "start"}  # of which the latents count, not the path
        decisive = {
            "settings": {key: settings[key] for key in settings.keys() - indecisive} | more,
            "weights": weights or self._weights,
            "seed": self._config.seed,
            "dtype": self._config.dtype,
            "panels": _SHARES,
        }
        total = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
        for array in (photo, self._starts.get(name, np.zeros(0))):
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    def _fill(self, photos: Mapping[str, np.ndarray], keys: Mapping[str, str]) -> None:
        """Works on `photos`, and keeps what is found."""
        projector = self._make_projector()
        names, steps, devices = list(photos), self.settings.steps, len(parallel.devices())
        with tqdm(total=len(names) * steps, desc="invert", unit="step") as bar:
            for first in range(0, len(names), devices):
                batch = names[first : first + devices]

                def progress(found, first=first):
                    bar.set_postfix(lpips=f"{np.mean(found.lpips):.3f}")
                    bar.update(first * steps + int(np.sum(found.step)) - bar.n)

                targets = np.stack([photos[name] for name in batch])
                results = self._project(projector, batch, targets, keys, progress)
                for name, result in zip(batch, results, strict=True):
                    self._store.write(keys[name], result)
                shutil.rmtree(self._checkpoints, ignore_errors=True)
                bar.update((first + len(batch)) * steps - bar.n)  # some may have ended before

    @property
    def _checkpoints(self) -> Path:
        return self._workdir / ".inversion"

    def _make_projector(self) -> invert.Projector:
        config, settings = self._config, self.settings
        generator = common.load_generator(config)
        # a stream of random numbers of its own, apart from the other stages'
        statistics_key, key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 3))
        fields = dataclasses.fields(projection.Settings)
        return invert.Projector(
            generator,
            self._perceptual,
            projection.measure_latents(generator, statistics_key),
            key,
            projection.Settings(**{field.name: settings[field.name] for field in fields}),
            backend=config.backend,
        )

    def _project(
        self,
        projector: invert.Projector,
        names: Sequence[str],
        targets: np.ndarray,
        keys: Mapping[str, str],
        progress: Callable[[projection.Projection], None],
    ) -> list[Inversion]:
        """Returns what is found for `targets` [N, S, S, 3]."""
        photos, settings = images.to_float(targets), self.settings
        devices = len(parallel.devices())
        identity = hashlib.sha256("".join(keys[name] for name in names).encode()).hexdigest()
        store = checkpoint.Checkpoints(self._checkpoints / f"{identity[:16]}_{devices}")
        strips, states, start = np.stack([targets] * len(inversions.PANELS), axis=1), None, None
        kept = store.latest()
        if kept is not None:
            like = projector.init(jnp.zeros((devices, projector.generator.w_dim)))
            saved = jax.device_get(store.restore({"states": like, "strips": strips}))
            states, strips = saved["states"], saved["strips"].copy()
        elif self._starts:
            start = np.stack([self._starts[name] for name in names])
        else:
            start = projector.best_of(photos, settings.candidates)

        def on_chunk(states, found):
            step = int(np.max(jax.device_get(states.step)))
            pictures = [images.resize_area(x, settings.size) for x in np.asarray(found.picture)]
            for panel, share in enumerate(_SHARES):  # the first checkpoint at its share, or the end
                if share * settings.steps > step - settings.save_every:
                    strips[:, panel] = pictures
            if step != kept:
                store.save(step, {"states": states, "strips": strips})
            progress(found)

        found = invert.project(
            projector,
            photos,
            chunk=settings.save_every,
            names=names,
            start=start,
            states=states,
            on_chunk=on_chunk,
        )
        return [_inversion(found, strips, i) for i in range(len(names))]

    def _check_starts(self, photos: Mapping[str, np.ndarray]) -> None:
        """Raises UserError for a photo without a latent to start from, where they are given."""
        for name in photos:
            if self._starts and name not in self._starts:
                raise UserError(
                    f"{self.settings.start}: no latent for photo {name!r}; "
                    f"there are latents for {', '.join(self._starts)}"
                )


def _inversion(found: projection.Projection, strips: np.ndarray, i: int) -> Inversion:
    """Returns what is found for photo `i`, of strips [N, panels, S, S, 3]."""
    one = jax.tree.map(lambda leaf: np.asarray(leaf[i]), found)
    return Inversion(
        one.w,
        one.noise,
        one.picture,
        np.concatenate(strips[i], axis=1),
        float(one.lpips),
        float(one.psnr),
        float(one.distance),
        float(one.spread),
        int(one.step),
    )


def _check_latents(path: str, latents: Mapping[str, np.ndarray], generator: Generator) -> None:
    """Raises UserError for latents [D] or [L, D] in `path` that do not fit the generator."""
    shapes = ((generator.w_dim,), (generator.num_layers, generator.w_dim))
    for w in latents.values():
        if w.shape not in shapes:
            raise UserError(f"{path}: w of shape {w.shape}, expected {shapes[0]} or {shapes[1]}")


def _check_size(field: str, size: int, generator: Generator) -> None:
    """Raises UserError for a size at which pictures cannot be compared."""
    if size < 32 or generator.resolution % size:
        raise UserError(
            f"{field}: {size}, expected a divisor of the generator's {generator.resolution} "
            "pixels, at least 32"
        )
