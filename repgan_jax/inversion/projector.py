"""Finds the latents, and noise maps, whose picture is a given photo.

StyleGAN2's projector (Karras et al. 2020, arXiv 1912.04958, appendix D), which the paper uses too,
and a variant in W+ that is pulled towards the mean latent.

Photos are worked on one after the other on each device, so that none depends on its neighbours,
the batch or the number of devices, not even in its last bits; all meet the same random numbers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.inversion import projection
from repgan_jax.inversion.perceptual import Perceptual
from repgan_jax.inversion.projection import Latents, Projection, Settings, State
from repgan_jax.models import stylegan2
from repgan_jax.runtime import parallel

CANDIDATE_TRUNCATION = 0.7  # random latents to start from: photos are rarely far from the mean


class Projector:
    """The parts of `project`, compiled once for all photos."""

    def __init__(
        self,
        generator: Generator,
        perceptual: Perceptual,
        latents: Latents,
        key: jax.Array,
        settings: Settings,
        *,
        backend: str = "shard_map",
    ):
        """Binds what is the same for all photos.

        Args:
            generator: whose latents are wanted.
            perceptual: measure of likeness.
            latents: see `projection.measure_latents`.
            key: of all random choices.
            settings: what is optimised, and how.
            backend: see `parallel`.
        """
        self.settings = settings
        self.generator, self._mean = generator, latents.mean
        self._candidates_key, self._noise_key, steps_key = jax.random.split(key, 3)
        self._fixed = parallel.replicate((generator, perceptual, latents, steps_key))
        self._optimizer = optax.adam(partial(projection.learning_rate, settings))
        advance = _each_photo(partial(projection.advance, settings, self._optimizer))
        self._advance = parallel.spread(advance, backend=backend)
        judge = _each_photo(partial(projection.judge, settings))
        self._judge = parallel.spread(judge, backend=backend)
        self._choose = parallel.spread(partial(projection.choose, settings), backend=backend)

    def best_of(self, photos: np.ndarray, count: int) -> np.ndarray:
        """Returns w [N, D]: for each photo the best of the mean and `count` random latents.

        Args:
            photos: [N, S, S, 3] in [-1, 1].
            count: may be 0.
        """
        candidates = self._mean[None]
        if not count:
            return np.repeat(candidates, len(photos), axis=0)
        drawn = projection.draw_latents(self.generator, self._candidates_key, count)
        drawn = stylegan2.truncate(drawn, self._mean, CANDIDATE_TRUNCATION)
        candidates = jnp.concatenate([candidates, drawn])
        return np.asarray(self._choose((self._fixed, candidates), _padded(photos)))[: len(photos)]

    def init(self, w: jax.Array) -> State:
        """Returns the states [N] before the first step.

        Args:
            w: [N, D] or [N, L, D]; of the latter the mean over layers, where one is for all.
        """
        count = len(w)
        if self.settings.space == "w+":
            w = stylegan2.broadcast(w, self.generator.num_layers)
        else:
            w = w[:, None] if w.ndim == 2 else w.mean(1, keepdims=True)
        maps = {}
        if self.settings.optimise_noise:
            stored = self.generator.variables["synthesis"]["noise"]
            for index, layer in enumerate(sorted(stored)):
                key = jax.random.fold_in(self._noise_key, index)
                one = projection.normalise(jax.random.normal(key, stored[layer]["map"].shape))
                maps[layer] = jnp.repeat(one[None], count, axis=0)
        params = {"w": w, "noise": maps}
        return State(
            step=jnp.zeros(count, jnp.int32),
            params=params,
            optimizer=jax.vmap(self._optimizer.init)(params),
            loss=jnp.full(count, jnp.inf),
            active=jnp.ones(count, bool),
        )

    def advance(self, states: State, photos: np.ndarray, end: int) -> State:
        """Returns `states` after step `end`, or where they stopped before.

        N is a multiple of the number of devices, as in `judge`.
        """
        fixed = self._fixed, min(end, self.settings.steps)
        return self._advance(fixed, (_on_host(states), photos))

    def judge(self, states: State, photos: np.ndarray) -> Projection:
        """Returns what the states have come to."""
        return self._judge((self._fixed,), (_on_host(states), photos))


def project(
    projector: Projector,
    photos: np.ndarray,
    *,
    chunk: int,
    names: Sequence[str],
    start: jax.Array | None = None,
    states: State | None = None,
    on_chunk: Callable[[State, Projection], None] = lambda states, found: None,
) -> Projection:
    """Returns latents, and noise maps, whose pictures are `photos` [N, S, S, 3] in [-1, 1].

    Args:
        projector: what is optimised, and how; S is its `settings.size`.
        photos: any number.
        chunk: steps between two calls of `on_chunk`.
        names: N, for errors.
        start: w [N, D] or [N, L, D]; None for the mean latent.
        states: to go on from; what `on_chunk` was given in an earlier call with the same photos.
        on_chunk: called before the first step and after each chunk, with the states (more than N
            where that is no multiple of the number of devices) and what they have come to.

    Raises:
        UserError: a loss that is not a number; `on_chunk` was given the last good states.
    """
    count, settings = len(photos), projector.settings
    photos = _padded(photos)

    def report(states: State) -> Projection:
        # on the host: what is cut out of an array on many devices has to be sent between them
        found = jax.device_get(projector.judge(states, photos))
        found = jax.tree.map(lambda leaf: leaf[:count], found)
        _check_finite(states, found, names, settings)
        on_chunk(states, found)
        return found

    if states is None:
        first = projector.best_of(photos[:count], 0) if start is None else start
        states = projector.init(_padded(first))
        states = dataclasses.replace(states, active=jnp.arange(len(photos)) < count)
    found = report(states)
    while (np.asarray(states.active) & (np.asarray(states.step) < settings.steps)).any():
        before, end = states, int(np.max(jax.device_get(states.step))) + chunk
        states = projector.advance(states, photos, end)
        if settings.plateau:
            falling = states.loss < (1 - settings.plateau) * before.loss
            states = dataclasses.replace(states, active=states.active & falling)
        found = report(states)
    return found


def _on_host(states: State) -> State:
    """Returns `states` as NumPy arrays: other devices, or none yet, would be compiled for anew."""
    return jax.device_get(states)


def _each_photo(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `fn(*replicated, state, photo)` for a batch of both."""
    return lambda replicated, batch: jax.lax.map(lambda pair: fn(*replicated, *pair), batch)


def _padded(array: Any) -> Any:
    """Returns `array` [N, ...] with its last entry repeated, a multiple of the device count."""
    return array[parallel.padded(np.arange(len(array)), len(parallel.devices()))]


def _check_finite(
    states: State, found: Projection, names: Sequence[str], settings: Settings
) -> None:
    """Raises UserError with the first photo whose loss is not a number."""
    steps, losses = jax.device_get((states.step, states.loss))
    for name, step, loss, lpips in zip(names, steps, losses, found.lpips, strict=False):
        if np.isnan(loss) or np.isnan(lpips):
            raise UserError(
                f"photo {name}: the loss or its gradient is not a number at step {step} "
                f"({settings}); the last good state is kept: lower the learning rate and start "
                "again"
            )
