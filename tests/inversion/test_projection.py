"""The parts of an optimisation: its schedule, its noise maps, its latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.inversion import projection
from repgan_jax.inversion.projection import Latents, Settings


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (10, 0.02),  # a fifth of the rise
        (50, 0.1),
        (749, 0.1),
        (875, 0.05),  # in the middle of the fall
        (999, 0.1 * (0.5 - 0.5 * np.cos(np.pi * 0.004))),
    ],
)
def test_learning_rate_is_stylegan2s(step, expected):
    found = projection.learning_rate(Settings(), jnp.asarray(step))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-9)  # 1 - 999 / 1000 in float32


def test_learning_rate_needs_no_ramps():
    settings = Settings(ramp_up=0.0, ramp_down=0.0, steps=10)
    rates = [float(projection.learning_rate(settings, jnp.asarray(i))) for i in range(1, 10)]
    assert rates == pytest.approx([0.1] * 9)


def _autocorrelation(noise):
    """Returns the same as `projection.autocorrelation`, pixel by pixel."""
    total, size = 0.0, len(noise)
    while True:
        for dy, dx in ((0, 1), (1, 0)):
            products = [
                noise[y, x] * noise[(y + dy) % size, (x + dx) % size]
                for y in range(size)
                for x in range(size)
            ]
            total += np.mean(products) ** 2
        if size <= 8:
            return total
        size //= 2
        cells = [
            [noise[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(size)]
            for y in range(size)
        ]
        noise = np.array(cells)


@pytest.mark.parametrize("size", [4, 8, 32])
def test_autocorrelation_is_that_of_a_slow_loop(size):
    noise = np.random.default_rng(size).normal(size=(size, size))
    noise += 0.5 * np.roll(noise, 1, 0)  # rows agree more than columns
    found = float(projection.autocorrelation(jnp.asarray(noise)))
    assert found == pytest.approx(_autocorrelation(noise), rel=1e-4)  # float32


def test_autocorrelation_tells_smooth_maps_from_white_noise():
    y, x = np.mgrid[:64, :64] / 64
    smooth = projection.normalise(jnp.asarray(np.sin(2 * np.pi * y) + np.cos(2 * np.pi * x)))
    white = projection.normalise(jax.random.normal(jax.random.key(0), (64, 64)))
    # one map agrees with itself fully, at 4 scales and along 2 axes; the other by chance:
    # twice 1 / n for each scale of n pixels, where means of 4 have a variance of 1 / 4
    assert projection.autocorrelation(smooth) > 6
    assert projection.autocorrelation(white) < 1e-2


def test_normalised_maps_have_mean_0_and_variance_1():
    noise = 3 + 5 * jax.random.uniform(jax.random.key(1), (16, 16))
    found = np.asarray(projection.normalise(noise), np.float64)
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found.var() == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def latents(tiny_generator) -> Latents:
    return projection.measure_latents(tiny_generator, jax.random.key(2))


def test_latents_are_measured(tiny_generator, latents):
    w = np.asarray(projection.draw_latents(tiny_generator, jax.random.key(3), 10_000), np.float64)
    # another 10,000 samples: 1 % is one deviation of a mean or a variance
    sigma = np.sqrt(np.square(w - w.mean(0)).sum(1).mean())
    assert float(latents.deviation) == pytest.approx(sigma, rel=0.05)
    np.testing.assert_allclose(latents.mean, w.mean(0), atol=0.05 * sigma)


def test_distance_is_in_units_of_the_covariance(tiny_generator, latents):
    w = projection.draw_latents(tiny_generator, jax.random.key(4), 10_000)
    # under 1 where directions that hardly vary count less than their variance
    assert 0.5 < float(latents.squared_distance(w)) < 1.1
    half = latents.mean + 0.5 * (w - latents.mean)
    assert float(latents.squared_distance(half)) == pytest.approx(
        0.25 * float(latents.squared_distance(w)), rel=1e-3
    )
    assert float(latents.squared_distance(latents.mean)) == 0


def test_distance_weighs_directions_by_their_spread():
    covariance = jnp.array([[4.0, 0.0], [0.0, 0.25]])
    latents = Latents(jnp.array([1.0, 2.0]), jnp.zeros(()), jnp.diag(covariance.diagonal() ** -0.5))
    wide, narrow = latents.mean + jnp.array([2.0, 0.0]), latents.mean + jnp.array([0.0, 0.5])
    assert latents.squared_distance(wide) == latents.squared_distance(narrow) == 0.5


def test_spread_is_the_distance_of_layers_from_their_mean(latents):
    rng = np.random.default_rng(5)
    w = jnp.asarray(rng.normal(size=(6, 12)), jnp.float32)
    assert float(latents.squared_spread(jnp.repeat(w[:1], 6, 0))) < 1e-9
    centred = latents.mean + w - w.mean(0)
    expected = float(latents.squared_distance(centred))
    for moved in (centred, centred + 3.0):  # wherever their mean is
        assert float(latents.squared_spread(moved)) == pytest.approx(expected, rel=1e-3)
