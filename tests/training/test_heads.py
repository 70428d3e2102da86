"""Fitting and ensembling heads, and the training step of the stand-alone network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repgan_jax.configs import base
from repgan_jax.errors import UserError
from repgan_jax.models import heads
from repgan_jax.models.unet import UNet
from repgan_jax.runtime import parallel
from repgan_jax.training import heads as segment

K, SIZE = 3, 16
HEAD = heads.build("mlp0", K, SIZE)


def make_shots(seed=0, count=2):
    """Returns activations and masks that a linear head can learn: class = strongest channel."""
    key = jax.random.key(seed)
    fine = jax.random.normal(key, (count, SIZE, SIZE, 4)) * jnp.array([1.0, 3.0, 20.0, 0.1])
    coarse = jax.random.normal(jax.random.fold_in(key, 1), (count, 8, 8, 5))
    masks = (fine[..., :3] / jnp.array([1.0, 3.0, 20.0])).argmax(-1)
    return {"conv_01_8": coarse, "conv_03_16": fine}, masks


def fit(taps, masks, *, members=2, seed=0, **options):
    settings = {"steps": 60, "weight_decay": 1e-3, "flip": True, "chunk": 25} | options
    schedule = segment.learning_rate("cosine", 3e-2, 60)
    key = jax.random.key(seed)
    return segment.fit_heads(key, HEAD, taps, masks, members=members, schedule=schedule, **settings)


@pytest.fixture(scope="module")
def fitted():
    return fit(*make_shots())


def accuracy(variables, taps, masks):
    guess = segment.head_probabilities(HEAD, variables, taps)[0].argmax(-1)
    return float((guess == masks).mean())


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
    _, curve = segment.fit_heads(
        jax.random.key(1),
        heads.build(name, 5, SIZE),
        taps,
        masks,
        members=1,
        steps=40,
        schedule=segment.learning_rate("cosine", base.get_config().fewshot.learning_rate, 40),
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
    variables, curve = fit(*make_shots(), chunk=30, progress=lambda step, loss: seen.append(step))
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
    shots, mirrored = segment._orders(jax.random.key(0), 3, 2, steps=4, batch_size=6, flip=True)
    assert shots.shape == mirrored.shape == (4, 2, 6)
    for step in range(4):
        for member in range(2):
            np.testing.assert_array_equal(np.bincount(shots[step, member]), [2, 2, 2])


@pytest.mark.parametrize("mirror", [[True], [False], [True, False, True]])
def test_taking_shots_mirrors_those_that_are_to_be(mirror):
    data = {"tap": np.arange(144.0).reshape(3, 4, 6, 2), "mask": np.arange(192).reshape(3, 8, 8)}
    index = np.arange(2, 2 - len(mirror), -1)
    found = segment._take(data, jnp.asarray(index), jnp.asarray(mirror))
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
    assert np.isfinite(segment.head_probabilities(HEAD, variables, taps)[0]).all()


@pytest.mark.parametrize(
    ("decay", "expected"),  # at steps 0, 50, 75 of 100
    [("constant", (1, 1, 1)), ("paper", (1, 0.9, 0.9)), ("cosine", (1, 0.5, 0.1464466))],
)
def test_learning_rates(decay, expected):
    schedule = segment.learning_rate(decay, 0.02, 100)
    np.testing.assert_allclose([schedule(i) / 0.02 for i in (0, 50, 75)], expected, rtol=1e-5)


def test_unknown_decay_is_refused():
    with pytest.raises(UserError, match="config.fewshot.decay: 'linear', expected one of .*cosine"):
        segment.learning_rate("linear", 0.1, 10)


def ensemble(members):
    taps, _ = make_shots(seed=3)
    keys = jax.random.split(jax.random.key(1), members)
    params = jax.vmap(lambda key: HEAD.init(key, taps)["params"])(keys)
    params = jax.tree.map(lambda x: 3 * x, params)  # so that members are sure, and disagree
    stats = HEAD.init(keys[0], taps)["stats"]
    return {"params": params, "stats": stats}, taps


def test_ensemble_against_a_loop_over_members_and_pixels():
    variables, taps = ensemble(4)
    mean, disagreement = segment.head_probabilities(HEAD, variables, taps)
    members = []
    for i in range(4):
        params = jax.tree.map(lambda x, i=i: x[i], variables["params"])
        logits = np.asarray(HEAD.apply({**variables, "params": params}, taps), np.float64)
        members.append(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    # float32 softmax of logits up to 100: their rounding of 1e-5
    np.testing.assert_allclose(mean, np.mean(members, 0), atol=2e-5)

    def divergence(p, q):
        return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    for place in ((0, 0, 0), (0, 3, 7), (1, 15, 2)):
        ps = [member[place] for member in members]
        expected = np.mean([divergence(p, np.mean(ps, 0)) for p in ps])  # Jensen-Shannon
        np.testing.assert_allclose(disagreement[place], expected, atol=2e-5)
    assert disagreement.min() >= 0 and 0.1 < disagreement.max() <= np.log(4) + 1e-6


def test_a_single_head_and_equal_heads_agree():
    variables, taps = ensemble(1)
    single, none = segment.head_probabilities(HEAD, variables, taps)
    assert not none.any()
    thrice = {**variables, "params": jax.tree.map(lambda x: x.repeat(3, 0), variables["params"])}
    mean, disagreement = segment.head_probabilities(HEAD, thrice, taps)
    np.testing.assert_allclose(mean, single, atol=1e-6)
    np.testing.assert_allclose(disagreement, 0, atol=1e-6)


SETTINGS = {
    "flip": 0.5,
    "rotation": 5.0,
    "translation": 0.05,
    "scale": (0.9, 1.1),
    "brightness": 0.1,
    "contrast": 0.1,
    "saturation": 0.1,
    "hue": 0.02,
    "grey": 0.1,
    "class_colour": 0.05,
    "background": 0.1,
    "blur": 0.5,
    "noise": 0.02,
}


def train():
    """Returns (states before, after one step and after twenty, losses) of a small U-Net.

    It shall find what is bright, in eight pictures, augmented anew for each step.
    """
    network = UNet(num_classes=2, widths=(4, 8))
    optimizer = optax.sgd(0.3)  # linear in the gradient: noise stays noise
    image = np.asarray(jax.random.uniform(jax.random.key(0), (8, 4, 4, 3)) * 255, np.uint8)
    image[::2] //= 2  # darker: the classes' shares differ from device to device
    image = image.repeat(4, 1).repeat(4, 2)
    bright = (image.mean(-1) > 128).astype(np.float32)
    targets = np.stack([1 - bright, bright], -1) * 0.9 + 0.05
    state = segment.init_state(jax.random.key(1), network, 16, optimizer)
    step = parallel.spread_step(
        segment.make_train_step(
            network,
            optimizer,
            seed=2,
            settings=SETTINGS,
            decay=0.5,
            class_weights=jnp.array([0.5, 3.0]),
        )
    )
    states, losses = [jax.tree.map(np.array, state)], []
    state = parallel.replicate(state)
    for i in range(20):
        batch = {"image": image, "targets": targets, "position": np.arange(8 * i, 8 * i + 8)}
        state, metrics = step(state, batch | {"stop": (np.arange(8) == i).astype(np.float32)})
        assert (metrics["stop"] > 0) == (i < 8)  # all hear what one has been told
        states.append(jax.tree.map(np.array, state))  # a copy: the next step donates it
        losses.append(float(metrics["loss"]))
    return (states[0], states[1], states[-1]), losses


class Steep(nn.Module):
    """Logits that are finite where their gradient is not."""

    @nn.compact
    def __call__(self, pictures, *, train=False, axis_name=None):
        self.variable("batch_stats", "mean", jnp.zeros, ())
        return pictures[..., :2] * jnp.sqrt(self.param("slope", nn.initializers.zeros, (2,)))


def test_a_gradient_that_is_no_number_shows_in_the_loss():
    network, optimizer = Steep(), optax.sgd(0.1)
    step = segment.make_train_step(
        network, optimizer, seed=0, settings=SETTINGS, decay=0.5, class_weights=jnp.ones(2)
    )
    state = parallel.replicate(segment.init_state(jax.random.key(0), network, 16, optimizer))
    image = np.arange(8 * 16 * 16 * 3, dtype=np.uint8).reshape(8, 16, 16, 3)
    batch = {"image": image, "targets": np.full((8, 16, 16, 2), 0.5, np.float32)}
    batch |= {"position": np.arange(8), "stop": np.zeros(8, np.float32)}
    assert np.isnan(parallel.spread_step(step)(state, batch)[1]["loss"])


@pytest.fixture(scope="module")
def trained():
    return train()


def test_training_lowers_the_loss(trained):
    (*_, last), losses = trained
    assert last.step == 20
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:2])


def test_average_starts_with_a_short_memory(trained):
    (before, after, _), _ = trained
    # (1 + 0) / (10 + 0) of the old, less than the decay
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.average, expected)


def test_one_device_learns_the_same_as_eight(trained, use_devices):
    (*_, eight), losses = trained
    use_devices(1)
    (*_, one), losses_of_one = train()
    # means of eight pictures in another order, grown over twenty steps of 0.3
    np.testing.assert_allclose(losses_of_one, losses, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one.params, eight.params)
