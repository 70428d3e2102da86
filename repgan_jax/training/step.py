"""A training step of the stand-alone network: `(state, batch) -> (state, metrics)`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from repgan_jax.runtime import parallel
from repgan_jax.training import augment, losses
from repgan_jax.training.augment import Augmentation


@flax.struct.dataclass
class TrainState:
    """The training state.

    Attributes:
        step: [], steps done.
        params: weights.
        batch_stats: of the batch normalisations.
        ema_params: exponential moving average of the weights.
        opt_state: of the optimiser.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    ema_params: Any
    opt_state: Any

    def variables(self) -> dict[str, Any]:
        """Returns the variables to keep: the averaged weights, with the batch statistics."""
        return {"params": self.ema_params, "batch_stats": self.batch_stats}


def init_state(
    key: jax.Array, network: nn.Module, size: int, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state before the first step, for images of side length `size` in pixels."""
    variables = jax.jit(network.init)(key, jnp.zeros((1, size, size, 3)))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        ema_params=jax.tree.map(jnp.copy, params),  # its own buffers: the step donates both
        opt_state=optimizer.init(params),
    )


def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array,
    augmentation: Augmentation,
    decay: float,
    class_weights: jax.Array,
    mirrored: Sequence[int] = (),
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the step of the stand-alone network (paper, section 3.5), for `parallel.spread_step`.

    Its batch: "image" uint8 [n, H, W, 3], "targets" float32 [n, P, P, K] (probabilities, made as
    fine as the images by bilinear interpolation), "position" int32 [n], the sample's place in the
    whole training, which alone decides its augmentation, and "stop" float32 [n], 1 where the
    process that gives the sample has to stop. Its metrics are means over the batch: "loss" and
    "stop", from which all processes learn in the same step that one of them has to.

    Args:
        network: architecture.
        optimizer: what turns gradients into updates.
        key: of the augmentation's random numbers.
        augmentation: random changes of the images.
        decay: of the moving average of the weights; 0 = no averaging.
        class_weights: [K], see `losses.soft_cross_entropy`.
        mirrored: see `augment.augment`.
    """
    words = jax.device_get(jax.random.key_data(key))  # numbers, which any mesh takes as they are

    def train_step(state: TrainState, batch: dict[str, jax.Array]):
        images = batch["image"].astype(jnp.float32) / 127.5 - 1
        shape = (*images.shape[:3], batch["targets"].shape[-1])
        targets = jax.image.resize(batch["targets"], shape, "bilinear")
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        keys = fold(jax.random.wrap_key_data(words), batch["position"])
        change = partial(augment.augment, settings=augmentation, mirrored=mirrored)
        images, targets = jax.vmap(change)(keys, images, targets)

        def loss_fn(params):
            logits, updated = network.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
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
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        rate = jnp.minimum(decay, (1 + state.step) / (10 + state.step))  # short memory at first
        ema_params = optax.incremental_update(params, state.ema_params, 1 - rate)
        state = TrainState(state.step + 1, params, batch_stats, ema_params, opt_state)
        return state, {"loss": loss, "stop": stop}

    return train_step
