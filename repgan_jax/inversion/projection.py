"""One photo's optimisation: what is minimised, and a step of it.

Everything here is for one photo; `invert` spreads photos over devices.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from repgan_jax import synthesize
from repgan_jax.generator import Generator
from repgan_jax.inversion.perceptual import Perceptual
from repgan_jax.ops import resampling

SPACES = ("w", "w+")
STATISTICS_SAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is optimised, and how; the defaults are StyleGAN2's.

    Attributes:
        steps: of the optimiser.
        space: "w", one latent for all layers, or "w+", one a layer.
        learning_rate: of Adam, at its highest.
        ramp_up: share of the steps in which the rate rises, linearly, from 0.
        ramp_down: share of the steps in which it falls back to 0, as a cosine.
        latent_noise: deviation of the noise on w, at first, in units of w's own.
        noise_ramp: share of the steps in which that falls to 0, as a square.
        optimise_noise: whether noise maps are optimised as well.
        noise_regularisation: weight of the noise maps' autocorrelation.
        pixel: weight of the mean squared difference of pixels, beside LPIPS.
        pull: weight of the squared distance from the mean latent, see `Latents`.
        together: weight of the squared spread of the layers' latents: what leaves W too far has
            activations that mean nothing to a head.
        size: pixels a side at which pictures are compared.
        plateau: share by which the loss must fall from one chunk of steps to the next for a
            photo to go on; 0 for no such end.
    """

    steps: int = 1000
    space: str = "w"
    learning_rate: float = 0.1
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    latent_noise: float = 0.05
    noise_ramp: float = 0.75
    optimise_noise: bool = True
    noise_regularisation: float = 1e5
    pixel: float = 0.0
    pull: float = 0.0
    together: float = 0.0
    size: int = 256
    plateau: float = 0.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Latents:
    """How w is distributed.

    Attributes:
        mean: [D].
        deviation: [], root of the mean squared distance from the mean (StyleGAN2's sigma).
        whitening: [D, D], takes w - mean to independent coordinates of variance 1.
    """

    mean: jax.Array
    deviation: jax.Array
    whitening: jax.Array

    def squared_distance(self, w: jax.Array) -> jax.Array:
        """Returns []: mean square of `w` [..., D] - mean in units of the covariance; 1 is usual."""
        return jnp.square(self._white(w - self.mean)).mean()

    def squared_spread(self, w: jax.Array) -> jax.Array:
        """Returns [], at least 0: the same of `w` [L, D] - its mean over layers; 0 in W."""
        return jnp.square(self._white(w - w.mean(0))).mean()

    def _white(self, w: jax.Array) -> jax.Array:
        return jnp.dot(w, self.whitening, precision=jax.lax.Precision.HIGHEST)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """An optimisation in progress; in a batch of photos, every leaf has a leading axis N.

    Attributes:
        step: [] steps done.
        params: {"w": [1 or L, D], "noise": {layer: [r, r]}}; no layers where noise is fixed.
        optimizer: state of the optimiser.
        loss: [] lowest so far; not a number once a loss or a gradient was none.
        active: [] whether more steps are wanted.
    """

    step: jax.Array
    params: Mapping[str, Any]
    optimizer: optax.OptState
    loss: jax.Array
    active: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Projection:
    """What was found for a photo; in a batch, every leaf has a leading axis N.

    Attributes:
        w: [L, D].
        noise: {layer: [r, r]}, where noise maps are optimised.
        picture: uint8 [R, R, 3], made from them.
        lpips: [] its distance from the photo.
        psnr: [] in dB, at the size at which pictures are compared.
        distance: [] of w from the mean, see `Latents`; about 1 for what the mapping draws.
        spread: [] of the layers' latents, in the same units; 0 for what the mapping draws.
        step: [] steps done.
    """

    w: jax.Array
    noise: Mapping[str, jax.Array]
    picture: jax.Array
    lpips: jax.Array
    psnr: jax.Array
    distance: jax.Array
    spread: jax.Array
    step: jax.Array


# what all photos share; the key is that of the noise on w
Fixed = tuple[Generator, Perceptual, Latents, jax.Array]


def measure_latents(generator: Generator, key: jax.Array) -> Latents:
    """Returns the distribution of w, from 10,000 samples."""
    w = draw_latents(generator, key, STATISTICS_SAMPLES)
    mean = w.mean(0)
    values, vectors = jnp.linalg.eigh(jnp.cov(w, rowvar=False))
    # directions in which w hardly varies must not decide: they count as a 1000th of the widest
    values = jnp.maximum(values, 1e-3 * values[-1])
    deviation = jnp.sqrt(jnp.square(w - mean).sum(-1).mean())
    return Latents(mean, deviation, vectors / jnp.sqrt(values))


def learning_rate(settings: Settings, step: jax.Array) -> jax.Array:
    """Returns the rate [] at `step`, counted from 0: StyleGAN2's schedule."""
    t = step / settings.steps
    down = 0.5 - 0.5 * jnp.cos(jnp.pi * _ramp(1 - t, settings.ramp_down))
    return settings.learning_rate * down * _ramp(t, settings.ramp_up)


def autocorrelation(noise: jax.Array) -> jax.Array:
    """Returns [], at least 0: how much neighbours in `noise` [r, r] agree, at all scales.

    r is a power of two; every scale down to 8 px counts.
    """
    total = jnp.zeros(())
    while True:
        for axis in (0, 1):
            total += jnp.square((noise * jnp.roll(noise, 1, axis)).mean())
        if len(noise) <= 8:
            return total
        noise = resampling.area_reduce(noise[None, ..., None], 2)[0, ..., 0]


def draw_latents(generator: Generator, key: jax.Array, count: int) -> jax.Array:
    """Returns w [count, D] of random z, and of random classes where there are any."""
    z_key, label_key = jax.random.split(key)
    z, label = jax.random.normal(z_key, (count, generator.z_dim)), None
    if generator.num_classes:
        label = jax.random.randint(label_key, (count,), 0, generator.num_classes)
    return generator.mapping(z, label)


def advance(
    settings: Settings,
    optimizer: optax.GradientTransformation,
    fixed: Fixed,
    end: jax.Array,
    state: State,
    photo: jax.Array,
) -> State:
    """Returns the state of one photo [S, S, 3] after step `end` [], or where it stopped before.

    Memory does not depend on the number of steps.
    """
    _, perceptual, _, _ = fixed
    features = perceptual.features(photo[None])
    return jax.lax.while_loop(
        lambda state: state.active & ~jnp.isnan(state.loss) & (state.step < end),
        partial(_step, settings, optimizer, fixed, photo, features),
        state,
    )


def _step(
    settings: Settings,
    optimizer: optax.GradientTransformation,
    fixed: Fixed,
    photo: jax.Array,
    features: Sequence[jax.Array],
    state: State,
) -> State:
    """Returns the state of one photo [S, S, 3], whose features are given, after one more step."""
    generator, perceptual, latents, key = fixed
    fading = 1 - _ramp(state.step / settings.steps, settings.noise_ramp)
    strength = settings.latent_noise * latents.deviation * fading**2
    shape = state.params["w"].shape
    latent_noise = strength * jax.random.normal(jax.random.fold_in(key, state.step), shape)

    def loss_fn(params):
        picture = _render(generator, params["w"] + latent_noise, params["noise"])
        picture = resampling.resize(picture, settings.size)
        lpips, mse = _differences(perceptual, picture, photo, features)
        regularisation = sum(map(autocorrelation, params["noise"].values()))
        return (
            lpips
            + settings.pixel * mse
            + settings.pull * latents.squared_distance(params["w"])
            + settings.together * latents.squared_spread(params["w"])
            + settings.noise_regularisation * regularisation
        )

    loss, gradient = jax.value_and_grad(loss_fn)(state.params)
    updates, moments = optimizer.update(gradient, state.optimizer)
    params = optax.apply_updates(state.params, updates)
    finite = jnp.isfinite(loss + optax.tree.norm(gradient))
    return State(
        step=state.step + 1,
        params={"w": params["w"], "noise": jax.tree.map(normalise, params["noise"])},
        optimizer=moments,
        loss=jnp.where(finite, jnp.minimum(state.loss, loss), jnp.nan),
        active=state.active,
    )


def judge(settings: Settings, fixed: Fixed, state: State, photo: jax.Array) -> Projection:
    """Returns what one state has come to."""
    generator, perceptual, latents, _ = fixed
    w, noise = state.params["w"], state.params["noise"]
    picture = jnp.clip(_render(generator, w, noise), -1, 1)
    features = perceptual.features(photo[None])
    resized = resampling.resize(picture, settings.size)
    lpips, mse = _differences(perceptual, resized, photo, features)
    return Projection(
        w=jnp.broadcast_to(w, (generator.num_layers, generator.w_dim)),
        noise=noise,
        picture=synthesize.to_uint8(picture[0]),
        lpips=lpips,
        psnr=10 * jnp.log10(2**2 / mse),
        distance=jnp.sqrt(latents.squared_distance(w)),
        spread=jnp.sqrt(latents.squared_spread(w)),
        step=state.step,
    )


def choose(settings: Settings, replicated: tuple[Fixed, jax.Array], photos: jax.Array) -> jax.Array:
    """Returns w [N, D]: for each of `photos` [N, S, S, 3] the best of the candidates [n, D]."""
    (generator, perceptual, _, _), candidates = replicated
    pictures = jax.lax.map(
        lambda w: resampling.resize(_render(generator, w[None], {}), settings.size), candidates
    )

    def best(photo):
        features = perceptual.features(photo[None])

        def loss(picture):
            lpips, mse = _differences(perceptual, picture, photo, features)
            return lpips + settings.pixel * mse

        return candidates[jax.lax.map(loss, pictures).argmin()]

    return jax.lax.map(best, photos)


def _render(generator: Generator, w: jax.Array, maps: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the picture [1, R, R, 3] of `w` [1 or L, D], with `maps` for stored noise."""
    layers = jnp.broadcast_to(w, (generator.num_layers, generator.w_dim))
    return generator.with_noise(maps).synthesis(layers[None])[0]


def _differences(
    perceptual: Perceptual, picture: jax.Array, photo: jax.Array, features: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Returns LPIPS [] and the mean square [] of `picture` [1, S, S, 3] against a photo."""
    return perceptual.distance(picture, features)[0], jnp.square(picture[0] - photo).mean()


def normalise(noise: jax.Array) -> jax.Array:
    """Returns `noise` [r, r] with mean 0 and variance 1."""
    noise = noise - noise.mean()
    return noise * jax.lax.rsqrt(jnp.square(noise).mean())


def _ramp(t: jax.Array, share: float) -> jax.Array:
    """Returns 0 at t = 0, rising to 1 at t = `share`, and 1 from there on."""
    return jnp.clip(t / max(share, 1e-8), 0, 1)
