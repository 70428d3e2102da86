"""Training and prediction, shared by the heads and the stand-alone network.

A step is `(state, batch) -> (state, metrics)`; callers jit it, over one device or many.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from repgan_jax.errors import UserError
from repgan_jax.ops import taps as taps_lib
from repgan_jax.runtime import parallel
from repgan_jax.training import augment, losses

Variables = Mapping[str, Any]


def learning_rate(decay: str, peak: float, steps: int) -> optax.Schedule:
    """Returns the schedule called `decay`: "cosine" to 0, "constant", or the paper's steps."""
    schedules = {
        "cosine": optax.cosine_decay_schedule(peak, steps),
        "constant": optax.constant_schedule(peak),
        "paper": optax.exponential_decay(peak, 50, 0.9, staircase=True),
    }
    if decay not in schedules:
        raise UserError(f"config.fewshot.decay: {decay!r}, expected one of {list(schedules)}")
    return schedules[decay]


def fit_heads(
    key: jax.Array,
    head: nn.Module,
    taps: taps_lib.Taps,
    masks: jax.Array,
    *,
    members: int,
    steps: int,
    schedule: optax.Schedule,
    weight_decay: float,
    flip: bool,
    batch_size: int = 1,
    chunk: int = 50,
    progress: Callable[[int, float], None] = lambda steps, loss: None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Fits an ensemble of heads to labelled activations (paper, section 3.3).

    Args:
        key: for the weights and the order of the shots; every member has its own.
        head: architecture, see `models.heads`.
        taps: activations of the k shots by name, [k, h, w, C].
        masks: [k, S, S] ids; 255 counts for nothing.
        members: M, heads, each with weights and an order of shots of its own.
        steps: of the optimiser.
        schedule: learning rate by step.
        weight_decay: of AdamW.
        flip: mirror every other shot, activations and mask alike. All keep their ids, those of
            left and right too: these activations are not the ones of a mirrored image.
        batch_size: shots a step and member; more than one are spread over the devices of all
            processes, which call this together: the first one's `taps` and `masks` count.
        chunk: steps between calls of `progress`.
        progress: called with the number of steps done and the latest loss.

    Returns:
        Variables of the ensemble ("params" with a leading axis M, "stats" shared), and the loss
        of each step, [steps], mean over members.
    """
    init_key, order_key = jax.random.split(key)
    shapes = {name: (1, *tap.shape[1:]) for name, tap in taps.items()}
    optimizer = optax.adamw(schedule, weight_decay=weight_decay)

    @jax.jit
    @jax.vmap
    def init(key):
        params = head.init(key, {name: jnp.zeros(shape) for name, shape in shapes.items()})
        return params["params"], optimizer.init(params["params"])

    state = init(jax.random.split(init_key, members))
    orders = jax.device_get(_orders(order_key, len(masks), members, steps, batch_size, flip))
    if batch_size > 1:
        state, taps, masks = parallel.replicate((state, dict(taps), masks), everywhere=True)
    else:  # bound to its device, as it comes back: or the second chunk would be compiled anew
        state = jax.device_put(state, masks.sharding)
    stats = jax.device_get(taps_lib.root_mean_square(taps))
    fit_chunk = _make_fit_chunk(head, stats, optimizer, masks.sharding)
    curve = []
    for start in range(0, steps, chunk):
        part = jax.tree.map(lambda x, start=start: x[start : start + chunk], orders)
        if batch_size > 1:
            part = parallel.spread_axis(part, 2)
        state, loss = fit_chunk(state, part, dict(taps), masks)
        curve.append(jax.device_get(loss))
        progress(min(start + chunk, steps), float(curve[-1][-1]))
    return _variables(jax.device_get(state[0]), stats), np.concatenate(curve)


def _make_fit_chunk(
    head: nn.Module,
    stats: Any,
    optimizer: optax.GradientTransformation,
    placement: jax.sharding.Sharding,
) -> Callable[..., tuple[Any, jax.Array]]:
    """Returns jitted `fit_chunk(state, orders, taps, masks) -> (state, loss [steps])`.

    It says nothing of devices: XLA puts the work where the orders lie, and adds up gradients.
    """

    def member_step(state, order, taps, masks):
        params, moments = state
        shots, labels = _take((taps, masks), *order)

        def loss_fn(params):
            return losses.cross_entropy(head.apply(_variables(params, stats), shots), labels)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    @partial(jax.jit, donate_argnums=0, out_shardings=placement)
    def fit_chunk(state, orders, taps, masks):
        def step(state, order):
            # one after the other: side by side, convolutions are grouped, and slow on CPU
            state, loss = jax.lax.map(lambda one: member_step(*one, taps, masks), (state, order))
            return state, loss.mean()

        return jax.lax.scan(step, state, orders)

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
    key: jax.Array, count: int, members: int, steps: int, batch_size: int, flip: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns (shot, mirrored), both [steps, M, B]: every member sees each shot equally often."""
    length = steps * batch_size
    rounds = -(-length // count)
    keys = jax.random.split(key, rounds * members)
    shots = jax.vmap(lambda k: jax.random.permutation(k, count))(keys)
    shots = shots.reshape(members, rounds * count)[:, :length].T
    mirrored = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, shots.shape)
    orders = shots, mirrored & flip
    return jax.tree.map(lambda x: x.reshape(steps, batch_size, members).swapaxes(1, 2), orders)


def head_probabilities(
    head: nn.Module, variables: Variables, taps: taps_lib.Taps
) -> tuple[jax.Array, jax.Array]:
    """Returns the ensemble's mean probabilities [N, S, S, K] and its disagreement [N, S, S].

    The disagreement is the Jensen-Shannon divergence of the members in nats (DatasetGAN,
    section 3.2): 0 where all agree, and everywhere for a single head.
    """
    members = jax.lax.map(  # not side by side, as in `fit_heads`
        lambda params: jax.nn.softmax(head.apply({**variables, "params": params}, taps)),
        variables["params"],
    )
    if len(members) == 1:  # logarithms cost more than a linear head
        return members[0], jnp.zeros(members.shape[1:-1])
    mean = members.mean(0)
    return mean, jnp.maximum(_entropy(mean) - _entropy(members).mean(0), 0.0)


def _entropy(probabilities: jax.Array) -> jax.Array:
    return -jnp.sum(jax.scipy.special.xlogy(probabilities, probabilities), -1)


@flax.struct.dataclass
class TrainState:
    """What a training step moves.

    Attributes:
        step: [], steps done.
        params: weights.
        batch_stats: of the batch normalisations.
        average: running average of the weights.
        moments: of the optimiser.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    average: Any
    moments: Any

    def variables(self) -> dict[str, Any]:
        """Returns what to keep of the network: the average, with the statistics."""
        return {"params": self.average, "batch_stats": self.batch_stats}


def init_state(
    key: jax.Array, network: nn.Module, size: int, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state before the first step, for pictures of `size` pixels a side."""
    variables = jax.jit(network.init)(key, jnp.zeros((1, size, size, 3)))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        average=jax.tree.map(jnp.copy, params),  # its own buffers: the step donates both
        moments=optimizer.init(params),
    )


def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    settings: Mapping[str, Any],
    decay: float,
    class_weights: jax.Array,
    mirrored: Sequence[int] = (),
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the step of the stand-alone network (paper, section 3.5), for `parallel.spread_step`.

    Its batch: "image" uint8 [n, H, W, 3], "targets" float32 [n, P, P, K] (probabilities, made as
    fine as the pictures by bilinear interpolation), "position" int32 [n], the sample's place in the
    whole training, which alone decides its augmentation, and "stop" float32 [n], 1 where the
    process that gives the sample has to stop. Its metrics are means over the batch: "loss" and
    "stop", from which all processes learn in the same step that one of them has to.

    Args:
        network: architecture.
        optimizer: what turns gradients into updates.
        seed: of the augmentation.
        settings: of the augmentation.
        decay: of the weights' running average; 0 for none.
        class_weights: [K], see `losses.soft_cross_entropy`.
        mirrored: see `augment.augment`.
    """

    def train_step(state: TrainState, batch: dict[str, jax.Array]):
        pictures = batch["image"].astype(jnp.float32) / 127.5 - 1
        shape = (*pictures.shape[:3], batch["targets"].shape[-1])
        targets = jax.image.resize(batch["targets"], shape, "bilinear")
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        keys = fold(jax.random.key(seed), batch["position"])
        change = partial(augment.augment, settings=settings, mirrored=mirrored)
        pictures, targets = jax.vmap(change)(keys, pictures, targets)

        def loss_fn(params):
            logits, updated = network.apply(
                {"params": params, "batch_stats": state.batch_stats},
                pictures,
                train=True,
                axis_name=parallel.AXIS,
                mutable=["batch_stats"],
            )
            loss = losses.soft_cross_entropy(logits, targets, class_weights)
            return loss, updated["batch_stats"]

        (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        means = loss, batch["stop"].mean(), grads
        loss, stop, grads = jax.lax.pmean(means, parallel.AXIS)
        loss = jnp.where(jnp.isfinite(optax.tree.norm(grads)), loss, jnp.nan)  # shows both
        updates, moments = optimizer.update(grads, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        rate = jnp.minimum(decay, (1 + state.step) / (10 + state.step))  # short memory at first
        average = optax.incremental_update(params, state.average, 1 - rate)
        state = TrainState(state.step + 1, params, batch_stats, average, moments)
        return state, {"loss": loss, "stop": stop}

    return train_step
