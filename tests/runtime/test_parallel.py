"""Neither the backend nor the number of devices changes a result."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from repgan_jax.errors import UserError
from repgan_jax.runtime import parallel, pipelining

VARIABLES = {"kernel": jax.random.normal(jax.random.key(1), (5, 3))}


def _sample(variables, indices):
    """Returns pictures [N, 3] and labels [N], each from its global index alone."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(indices)
    z = jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)
    picture = z @ variables["kernel"]
    return {"picture": picture, "label": jnp.argmax(picture, -1)}


def _spread_sample(backend, indices):
    sample = parallel.spread(_sample, backend=backend)
    return jax.tree.map(np.asarray, sample(parallel.replicate(VARIABLES), indices))


def test_backends_give_the_same_bits():
    indices = np.arange(16)
    assert len(parallel.devices()) == 8
    jax.tree.map(
        np.testing.assert_array_equal,
        _spread_sample("shard_map", indices),
        _spread_sample("pmap", indices),
    )


@pytest.mark.parametrize("backend", parallel.BACKENDS)
@pytest.mark.parametrize("count", [1, 2])
def test_device_count_changes_nothing(use_devices, backend, count):
    on_eight = _spread_sample(backend, np.arange(16))
    use_devices(count)
    on_few = _spread_sample(backend, np.arange(16))
    assert on_few["picture"].shape == (16, 3)
    # float32 sums of 5 products near 1: 1e-6
    np.testing.assert_allclose(on_few["picture"], on_eight["picture"], atol=1e-6)
    np.testing.assert_array_equal(on_few["label"], on_eight["label"])


def _step(state, batch):
    """One step of least squares; `batch` holds x [N, 5] and y [N, 3]."""

    def loss_fn(params):
        return jnp.mean((batch["x"] @ params["kernel"] - batch["y"]) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    grads = jax.lax.pmean(grads, parallel.AXIS)
    return state.apply_gradients(grads=grads), {"loss": jax.lax.pmean(loss, parallel.AXIS)}


def _train(backend):
    x, y = jax.random.normal(jax.random.key(2), (2, 16, 5))
    batch = {"x": np.asarray(x), "y": np.asarray(y[:, :3])}
    params = jax.tree.map(jnp.copy, VARIABLES)
    state = TrainState.create(apply_fn=None, params=params, tx=optax.adam(1e-2))
    state = parallel.replicate(state)
    step = parallel.spread_step(_step, backend=backend)
    for _ in range(3):
        given = state
        state, metrics = step(state, batch)
    assert given.params["kernel"].is_deleted()  # donated
    assert state.params["kernel"].sharding.is_fully_replicated
    return np.asarray(state.params["kernel"]), float(metrics["loss"])


def test_training_is_the_same_on_both_backends_and_any_number_of_devices(use_devices):
    kernel, loss = _train("shard_map")
    kernel_pmap, loss_pmap = _train("pmap")
    np.testing.assert_array_equal(kernel_pmap, kernel)
    assert loss_pmap == loss

    use_devices(1)
    for backend in parallel.BACKENDS:
        kernel_one, loss_one = _train(backend)
        # means of 16 in another order, three steps of 1e-2: 1e-6
        np.testing.assert_allclose(kernel_one, kernel, atol=1e-6)
        np.testing.assert_allclose(loss_one, loss, rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_ahead_keeps_the_order_and_its_bounds(count):
    begun, seen = [], []

    def call(i):
        begun.append(i)
        return i

    with ThreadPoolExecutor(2) as pool:
        for i in pipelining.ahead(pool, (partial(call, i) for i in range(10)), count):
            seen.append(i)
            assert len(begun) <= len(seen) + count
    assert seen == list(range(10))


def test_ahead_passes_errors_on_and_drops_the_rest():
    started, go = [], Event()

    def call(i):
        started.append(i)
        if i == 1:
            raise OSError("full")
        go.wait(0.2)

    with ThreadPoolExecutor(1) as pool, pytest.raises(OSError, match="full"):
        for _ in pipelining.ahead(pool, (partial(call, i) for i in range(10)), 5):
            pass
    assert max(started) < 6


def test_padded_repeats_the_last_index():
    np.testing.assert_array_equal(parallel.padded(np.array([4, 5, 9]), 4), [4, 5, 9, 9])
    np.testing.assert_array_equal(parallel.padded(np.array([4, 5]), 2), [4, 5])


def test_unknown_backend_is_refused():
    with pytest.raises(UserError, match="^backend: 'pmapp', expected one of shard_map, pmap"):
        parallel.spread(_sample, backend="pmapp")


def test_a_platform_that_is_not_there_is_named(monkeypatch):
    parallel.expect_backend()

    def missing():
        raise AssertionError  # as JAX does

    updates = []
    config = SimpleNamespace(
        jax_platforms=None,
        read=lambda name: config.jax_platforms,
        update=lambda *change: updates.append(change),
    )
    monkeypatch.setattr(parallel.jax, "devices", missing)
    monkeypatch.setattr(parallel.jax, "config", config)
    monkeypatch.setattr(parallel, "backends", lambda: {"cpu": None})
    monkeypatch.setattr(parallel, "clear_backends", lambda: updates.append("cleared"))
    with pytest.raises(AssertionError):
        parallel.expect_backend()  # nobody has asked for one
    config.jax_platforms = "cuda"
    expected = "^JAX_PLATFORMS=cuda: not available on this machine .JAX finds here: cpu.; unset it"
    with pytest.raises(UserError, match=expected):
        parallel.expect_backend()
    assert updates == [("jax_platforms", None), "cleared", ("jax_platforms", "cuda")]
