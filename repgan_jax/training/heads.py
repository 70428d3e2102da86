"""Fitting of segmentation heads to the activations of a few labelled images."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from repgan_jax.errors import UserError
from repgan_jax.ops import taps as taps_lib
from repgan_jax.runtime import parallel
from repgan_jax.training import losses

Variables = Mapping[str, Any]


def learning_rate(decay: str, peak: float, steps: int) -> optax.Schedule:
    """Returns the schedule called `decay`: "cosine" to 0, "constant", or the paper's steps."""
    schedules = {
        "cosine": optax.cosine_decay_schedule(peak, steps),
        "constant": optax.constant_schedule(peak),
        "paper": optax.exponential_decay(peak, 50, 0.9, staircase=True),
    }
    if decay not in schedules:
        raise UserError(f"decay: {decay!r}, expected one of {list(schedules)}")
    return schedules[decay]


def fit_heads(
    key: jax.Array,
    head: nn.Module,
    taps: taps_lib.Taps,
    masks: jax.Array,
    *,
    ensemble: int,
    steps: int,
    schedule: optax.Schedule,
    weight_decay: float,
    flip: bool,
    batch_size: int = 1,
    chunk: int = 50,
    backend: str = "shard_map",
    on_chunk: Callable[[int, float], None] = lambda steps, loss: None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns (variables, losses [steps]) of heads fitted to labelled activations (paper, 3.3).

    Args:
        key: for the weights and the order of the shots; every head has its own.
        head: architecture, see `models.heads`.
        taps: activations of the k shots by name, [k, h, w, C].
        masks: [k, S, S] ids; pixels with the id 255 are excluded.
        ensemble: M, the number of heads, each with its own weights and order of shots.
        steps: of the optimiser.
        schedule: learning rate by step.
        weight_decay: of AdamW.
        flip: mirror every other shot, activations and mask alike. All keep their ids, those of
            left and right too: these activations are not the ones of a mirrored image.
        batch_size: shots per step and head; more than one are spread over the devices of all
            processes, which call this together: the first one's `taps` and `masks` count.
        chunk: steps between calls of `on_chunk`.
        backend: see `parallel`.
        on_chunk: called with the number of steps done and the latest loss.

    Returns:
        Variables of the ensemble ("params" with a leading axis M, "stats" shared), and the loss
        of each step, mean over heads.
    """
    init_key, order_key = jax.random.split(key)
    shapes = {name: (1, *tap.shape[1:]) for name, tap in taps.items()}
    optimizer = optax.adamw(schedule, weight_decay=weight_decay)

    @jax.jit
    @jax.vmap
    def init(key):
        params = head.init(key, {name: jnp.zeros(shape) for name, shape in shapes.items()})
        return params["params"], optimizer.init(params["params"])

    state, fixed = init(jax.random.split(init_key, ensemble)), (dict(taps), masks)
    orders = jax.device_get(_orders(order_key, len(masks), ensemble, steps, batch_size, flip))
    if batch_size > 1:
        parallel.check_share(batch_size)
        state, fixed = parallel.replicate((state, fixed), everywhere=True)
        orders = jax.tree.map(parallel.own_share, orders)
    else:  # bound to its device, as it comes back: or the second chunk would be compiled anew
        state = jax.device_put(state, masks.sharding)
    stats = jax.device_get(taps_lib.root_mean_square(fixed[0]))
    if batch_size > 1:
        fit = _make_fit_chunk(head, stats, optimizer, parallel.AXIS)
        fit_chunk = parallel.spread_step(fit, backend=backend)
    else:
        fit_chunk = jax.jit(_make_fit_chunk(head, stats, optimizer), donate_argnums=0)
    curve = []
    for start in range(0, steps, chunk):
        part = jax.tree.map(lambda x, start=start: x[:, start : start + chunk], orders)
        state, loss = fit_chunk(state, part, *fixed)
        curve.append(jax.device_get(loss))
        on_chunk(min(start + chunk, steps), float(curve[-1][-1]))
    return _variables(jax.device_get(state[0]), stats), np.concatenate(curve)


def _make_fit_chunk(
    head: nn.Module,
    stats: Any,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> Callable[..., tuple[Any, jax.Array]]:
    """Returns `fit_chunk(state, orders [B, steps, M], taps, masks) -> (state, losses [steps])`.

    For `parallel.spread_step`, where `axis_name` is given.
    """

    def total(tree):
        return jax.lax.psum(tree, axis_name) if axis_name else tree

    def head_step(state, order, shots_and_labels):
        params, opt_state = state
        shots, labels = _take(shots_and_labels, *order)

        def loss_fn(params):
            logits = head.apply(_variables(params, stats), shots)
            return losses.cross_entropy(logits, labels, axis_name=axis_name)

        loss, grads = total(jax.value_and_grad(loss_fn)(params))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def fit_chunk(state, orders, taps, masks):
        def step(state, order):
            # one after the other: side by side, convolutions are grouped, and slow on CPU
            state, loss = jax.lax.map(lambda one: head_step(*one, (taps, masks)), (state, order))
            return state, loss.mean()

        by_step = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), orders)  # [steps, M, B]
        return jax.lax.scan(step, state, by_step)

    return fit_chunk


def _take(data: Any, index: jax.Array, mirror: jax.Array) -> Any:
    """Returns the samples `index` [B] of `data`, leaves [k, H, W, ...]; those to `mirror` are."""

    def one(index, mirror):
        def take(x):
            return jax.lax.dynamic_index_in_dim(x, index, keepdims=False)

        return jax.lax.cond(
            mirror,
            lambda: jax.tree.map(lambda x: jnp.flip(take(x), 1), data),
            lambda: jax.tree.map(take, data),
        )

    if len(index) > 1:  # spread over devices; both ways are computed
        return jax.vmap(one)(index, mirror)
    return jax.tree.map(lambda x: x[None], one(index[0], mirror[0]))


def _variables(params: Any, stats: Any) -> dict[str, Any]:
    return {"params": params, "stats": {"FoldedConv_0": stats}}


@partial(jax.jit, static_argnums=range(1, 6))
def _orders(
    key: jax.Array, count: int, ensemble: int, steps: int, batch_size: int, flip: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns (shot, mirrored), both [B, steps, M]: every head sees each shot equally often."""
    length = steps * batch_size
    rounds = -(-length // count)
    keys = jax.random.split(key, rounds * ensemble)
    shots = jax.vmap(lambda k: jax.random.permutation(k, count))(keys)
    shots = shots.reshape(ensemble, rounds * count)[:, :length].T
    mirrored = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, shots.shape)
    orders = shots, mirrored & flip
    return jax.tree.map(lambda x: x.reshape(steps, batch_size, ensemble).swapaxes(0, 1), orders)
