"""Finds latents of photos, and keeps them: no photo is worked on twice."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.inversion import cache, projection, projector
from repgan_jax.inversion.cache import Inversion
from repgan_jax.inversion.options import InversionOptions
from repgan_jax.inversion.origin import Origin
from repgan_jax.inversion.perceptual import Perceptual
from repgan_jax.io import checkpoint, images
from repgan_jax.runtime import parallel


class Inverter:
    """A generator, a measure of likeness and options, for any number of photos.

    Attributes:
        options: what is optimised, and how results are judged.
        size: S, side length in pixels of the photos that it takes.
    """

    def __init__(
        self,
        key: jax.Array,
        generator: Generator,
        perceptual: Perceptual,
        options: InversionOptions,
        *,
        start: Mapping[str, np.ndarray] | None = None,
        store: cache.Store | cache.Memory | None = None,
        origin: Origin | None = None,
        former_key: Callable[..., str] | None = None,
        checkpoints: Path | None = None,
        backend: str = "shard_map",
        progress: bool = True,
    ):
        """Checks the options and compiles nothing yet.

        Args:
            key: of all random choices.
            generator: whose latents are wanted.
            perceptual: measure of likeness.
            options: what is optimised, and how.
            start: latents [D] or [L, D] to start from, by name of the photo; None = the best of
                `options.candidates`.
            store: where results are kept; None = in memory.
            origin: that of `key`, `generator` and `perceptual`; None = found out.
            former_key: the key of a photo in an earlier version, of the arguments of `Origin.key`.
            checkpoints: folder of its own for work in progress; None = a kill costs that work.
            backend: see `parallel`.
            progress: whether a progress bar is shown.

        Raises:
            UserError: options or latents that do not fit.
        """
        options.check(generator)
        check_start(start or {}, generator)
        self.options, self.size = options, options.size
        # a stream of random numbers of its own, apart from those of other uses of the key
        self._statistics_key, self._key = jax.random.split(jax.random.fold_in(key, 3))
        self._generator, self._perceptual, self._start = generator, perceptual, start or {}
        self._store = cache.Memory() if store is None else store
        self._origin = origin or Origin.of(key, generator, perceptual)
        self._former_key, self._checkpoints = former_key, checkpoints
        self._backend, self._progress = backend, progress

    def find(self, photos: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Inversion]]:
        """Returns what is found for `photos` uint8 [S, S, 3] by name, in their order.

        All are worked on before the first is returned, one per device at a time. After a kill it
        resumes from the last checkpoint of the same photos on as many devices.

        Raises:
            UserError: a photo without a start, where they are given; a loss that is not a number; a
                cache that cannot be written, before any work.
        """
        self._check_starts(photos)
        keys = {name: self._cache_key(name, photo) for name, photo in photos.items()}
        missing = [name for name in photos if not self._is_kept(name, photos[name], keys[name])]
        if missing:
            self._store.expect_writable()
            self._fill({name: photos[name] for name in missing}, keys)
        return ((name, self._store.read(keys[name])) for name in photos)

    def _is_kept(self, name: str, photo: np.ndarray, key: str) -> bool:
        """Returns whether something is kept for `photo`, perhaps by an earlier version."""
        if self._store.read(key) is not None:
            return True
        if self._former_key is None:
            return False
        kept = self._store.read(self._cache_key(name, photo, self._former_key))
        if kept is not None:
            self._store.write(key, kept)
        return kept is not None

    def _cache_key(
        self, name: str, photo: np.ndarray, key: Callable[..., str] | None = None
    ) -> str:
        """Returns the `key` of all that decides what is found for `photo`, as `Origin.key` does."""
        start = self._start.get(name, np.zeros(0))
        return (key or self._origin.key)(self.options.decisive(), photo, start)

    def _fill(self, photos: Mapping[str, np.ndarray], keys: Mapping[str, str]) -> None:
        """Works on `photos`, and keeps what is found."""
        work = self._make_projector()
        names, steps, devices = list(photos), self.options.steps, len(parallel.devices())
        with tqdm(
            total=len(names) * steps, desc="invert", unit="step", disable=not self._progress
        ) as bar:
            for first in range(0, len(names), devices):
                batch = names[first : first + devices]

                def report(found, first=first):
                    bar.set_postfix(lpips=f"{np.mean(found.lpips):.3f}")
                    bar.update(first * steps + int(np.sum(found.step)) - bar.n)

                targets = np.stack([photos[name] for name in batch])
                results = self._project(work, batch, targets, keys, report)
                for name, result in zip(batch, results, strict=True):
                    self._store.write(keys[name], result)
                if self._checkpoints:
                    shutil.rmtree(self._checkpoints, ignore_errors=True)
                bar.update((first + len(batch)) * steps - bar.n)  # some may have ended before

    def _make_projector(self) -> projector.Projector:
        return projector.Projector(
            self._generator,
            self._perceptual,
            projection.measure_latents(self._generator, self._statistics_key),
            self._key,
            self.options.optimisation(),
            backend=self._backend,
        )

    def _project(
        self,
        work: projector.Projector,
        names: Sequence[str],
        targets: np.ndarray,
        keys: Mapping[str, str],
        report: Callable[[projection.Projection], None],
    ) -> list[Inversion]:
        """Returns what is found for `targets` [N, S, S, 3]."""
        photos, options = images.to_float(targets), self.options
        strips, states, start = np.stack([targets] * len(cache.PANELS), axis=1), None, None
        store = self._open_checkpoints([keys[name] for name in names])
        kept = store.latest() if store else None
        if kept is not None:
            like = work.init(jnp.zeros((len(parallel.devices()), work.generator.w_dim)))
            saved = jax.device_get(store.restore({"states": like, "strips": strips}))
            states, strips = saved["states"], saved["strips"].copy()
        elif self._start:
            start = np.stack([self._start[name] for name in names])
        else:
            start = work.best_of(photos, options.candidates)

        def on_chunk(states, found):
            step = int(np.max(jax.device_get(states.step)))
            pictures = [images.resize_area(x, options.size) for x in np.asarray(found.picture)]
            for panel, share in enumerate(cache.SHARES):  # the first chunk at its share, or the end
                if share * options.steps > step - options.save_every:
                    strips[:, panel] = pictures
            if store and step != kept:
                store.save(step, {"states": states, "strips": strips})
            report(found)

        found = projector.project(
            work,
            photos,
            chunk=options.save_every,
            names=names,
            start=start,
            states=states,
            on_chunk=on_chunk,
        )
        return [_inversion(found, strips, i) for i in range(len(names))]

    def _open_checkpoints(self, keys: Sequence[str]) -> checkpoint.Checkpoints | None:
        """Returns those of the photos with `keys` on as many devices; None where none are kept."""
        if self._checkpoints is None:
            return None
        identity = hashlib.sha256("".join(keys).encode()).hexdigest()
        folder = self._checkpoints / f"{identity[:16]}_{len(parallel.devices())}"
        return checkpoint.Checkpoints(folder)

    def _check_starts(self, photos: Mapping[str, np.ndarray]) -> None:
        """Raises UserError for a photo without a latent to start from, where they are given."""
        for name in photos:
            if self._start and name not in self._start:
                raise UserError(
                    f"start: no latent for photo {name!r}; "
                    f"there are latents for {', '.join(self._start)}"
                )


def check_start(start: Mapping[str, np.ndarray], generator: Generator) -> None:
    """Raises UserError for latents that are neither [D] nor [L, D] of the generator."""
    shapes = ((generator.w_dim,), (generator.num_layers, generator.w_dim))
    for w in start.values():
        if w.shape not in shapes:
            raise UserError(f"start: w of shape {w.shape}, expected {shapes[0]} or {shapes[1]}")


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
