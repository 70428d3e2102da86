"""Heads are fitted to the activations of a few labelled images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.configs import base
from repgan_jax.errors import UserError
from repgan_jax.labeller import Labeller
from repgan_jax.models import heads
from repgan_jax.palette import parse_classes
from repgan_jax.training import heads as fitting

K, SIZE = 3, 16
HEAD = heads.build("mlp0", K, SIZE)
PALETTE = parse_classes("weak\nmiddling\nstrong", "test")


def make_shots(seed=0, count=2):
    """Returns activations and masks that a linear head can learn: class = strongest channel."""
    key = jax.random.key(seed)
    fine = jax.random.normal(key, (count, SIZE, SIZE, 4)) * jnp.array([1.0, 3.0, 20.0, 0.1])
    coarse = jax.random.normal(jax.random.fold_in(key, 1), (count, 8, 8, 5))
    masks = (fine[..., :3] / jnp.array([1.0, 3.0, 20.0])).argmax(-1)
    return {"conv_01_8": coarse, "conv_03_16": fine}, masks


def fit(taps, masks, *, ensemble=2, seed=0, **options):
    settings = {"steps": 60, "weight_decay": 1e-3, "flip": True, "chunk": 25} | options
    schedule = fitting.learning_rate("cosine", 3e-2, 60)
    key = jax.random.key(seed)
    return fitting.fit_heads(
        key, HEAD, taps, masks, ensemble=ensemble, schedule=schedule, **settings
    )


@pytest.fixture(scope="module")
def fitted():
    return fit(*make_shots())


def accuracy(variables, taps, masks):
    labeller = Labeller(variables, HEAD, tuple(taps), PALETTE)
    return float((labeller(taps).argmax(-1) == masks).mean())


def test_fitting_learns_from_few_shots(fitted):
    variables, curve = fitted
    assert curve.shape == (60,)
    assert curve[-5:].mean() < 0.4 * curve[:5].mean()
    assert accuracy(variables, *make_shots()) > 0.85
    assert accuracy(variables, *make_shots(seed=5)) > 0.85  # never seen


@pytest.mark.parametrize("name", ["cnn_s", "cnn_m", "cnn_l"])
def test_cnns_learn_at_the_default_rate(name):
    given = jax.random.normal(jax.random.key(0), (4, SIZE, SIZE, 1000))
    masks = given[..., :5].argmax(-1)
    taps = {"conv_03_16": given.at[..., :5].multiply(3.0)}
    _, curve = fitting.fit_heads(
        jax.random.key(1),
        heads.build(name, 5, SIZE),
        taps,
        masks,
        ensemble=1,
        steps=40,
        schedule=fitting.learning_rate("cosine", base.get_config().fewshot.learning_rate, 40),
        weight_decay=1e-3,
        flip=True,
    )
    assert curve[-10:].mean() < 0.6 * np.log(5)  # of guessing


def test_every_member_is_another_head(fitted):
    first, second = (jax.tree.map(lambda x, i=i: x[i], fitted[0]["params"]) for i in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.abs(a - b).max() > 1e-4


def test_fitting_is_deterministic_and_the_chunk_changes_nothing(fitted):
    seen = []
    variables, curve = fit(*make_shots(), chunk=30, on_chunk=lambda step, loss: seen.append(step))
    jax.tree.map(np.testing.assert_array_equal, variables, fitted[0])
    np.testing.assert_array_equal(curve, fitted[1])
    assert seen == [30, 60]


def test_a_batch_of_one_shot_twice_is_that_shot(use_devices):
    taps, masks = make_shots(count=1)
    use_devices(2)
    once, twice = (fit(taps, masks, flip=False, batch_size=size, steps=20) for size in (1, 2))
    # float32 sums of twice as many pixels, twenty steps of 3e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), once, twice)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_batch_is_spread_over_devices(use_devices, devices):
    shots, options = make_shots(count=3), {"batch_size": 4, "steps": 20}
    use_devices(4)
    variables, curve = fit(*shots, **options)
    use_devices(devices)
    again, curve_again = fit(*shots, **options)
    np.testing.assert_allclose(curve_again, curve, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), again, variables)


def test_steps_and_batches_share_the_shots_equally():
    shots, mirrored = fitting._orders(jax.random.key(0), 3, 2, steps=4, batch_size=6, flip=True)
    assert shots.shape == mirrored.shape == (6, 4, 2)
    for step in range(4):
        for member in range(2):
            np.testing.assert_array_equal(np.bincount(shots[:, step, member]), [2, 2, 2])


@pytest.mark.parametrize("mirror", [[True], [False], [True, False, True]])
def test_taking_shots_mirrors_those_that_are_to_be(mirror):
    data = {"tap": np.arange(144.0).reshape(3, 4, 6, 2), "mask": np.arange(192).reshape(3, 8, 8)}
    index = np.arange(2, 2 - len(mirror), -1)
    found = fitting._take(data, jnp.asarray(index), jnp.asarray(mirror))
    for name, array in data.items():
        pairs = zip(index, mirror, strict=True)
        expected = [array[i, :, ::-1] if turned else array[i] for i, turned in pairs]
        np.testing.assert_array_equal(found[name], expected)


def test_mirroring_symmetric_shots_changes_nothing():
    taps, masks = make_shots()
    taps = {name: jnp.concatenate([x, x[:, :, ::-1]], 2)[:, :, ::2] for name, x in taps.items()}
    taps = {name: x + x[:, :, ::-1] for name, x in taps.items()}
    masks = jnp.maximum(masks, masks[:, :, ::-1])
    plain, mirrored = (fit(taps, masks, flip=flip, steps=20)[0] for flip in (False, True))
    jax.tree.map(np.testing.assert_array_equal, plain, mirrored)


def test_unlabelled_pixels_teach_nothing():
    taps, masks = make_shots()
    wrong = masks.at[:, :, :12].set((masks[:, :, :12] + 1) % K)
    unlabelled = masks.at[:, :, :12].set(255)
    assert accuracy(fit(taps, unlabelled)[0], taps, masks) > 0.8
    assert accuracy(fit(taps, wrong)[0], taps, masks) < 0.4


def test_a_silent_channel_does_no_harm():
    taps, masks = make_shots()
    taps["conv_01_8"] = taps["conv_01_8"].at[..., 2].set(0)
    variables, curve = fit(taps, masks, steps=5)
    assert np.isfinite(curve).all()
    assert np.isfinite(Labeller(variables, HEAD, tuple(taps), PALETTE)(taps)).all()


@pytest.mark.parametrize(
    ("decay", "expected"),  # at steps 0, 50, 75 of 100
    [("constant", (1, 1, 1)), ("paper", (1, 0.9, 0.9)), ("cosine", (1, 0.5, 0.1464466))],
)
def test_learning_rates(decay, expected):
    schedule = fitting.learning_rate(decay, 0.02, 100)
    np.testing.assert_allclose([schedule(i) / 0.02 for i in (0, 50, 75)], expected, rtol=1e-5)


def test_unknown_decay_is_refused():
    with pytest.raises(UserError, match="decay: 'linear', expected one of .*cosine"):
        fitting.learning_rate("linear", 0.1, 10)
