"""The works of `benchmarks.performance`, one a process.

    python -m benchmarks.works NAME SIZE BATCH

Weights are random, time and memory do not depend on them; those of MobileStyleGAN are weights/face.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.measure import RUNS, Figures, Laps, alternate, measure, show
from repgan_jax import load_generator, synthesize
from repgan_jax.generator import Generator
from repgan_jax.labeller import Labeller
from repgan_jax.models import heads
from repgan_jax.models.unet import UNet
from repgan_jax.ops import resampling
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import Palette, default_colours
from repgan_jax.training.heads import fit_heads, learning_rate

CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
CLASSES, SHOTS, STEPS = 10, 10, 5
PALETTE = Palette(tuple(map(str, range(CLASSES))), default_colours(CLASSES))
UNETS = {"paper": ((64, 128, 256, 512, 512), 1), "default": ((32, 64, 96, 128), 2)}
Work = Callable[[int, int], Figures]  # of a size and a batch


def random_generator(resolution: int) -> Generator:
    """Returns StyleGAN2 of random weights, channel multiplier 2."""
    architecture = {
        "name": "stylegan2",
        "z_dim": 512,
        "w_dim": 512,
        "mapping_layers": 8,
        "widths": {str(size): width for size, width in CHANNELS.items() if size <= resolution},
    }
    empty, key = Generator.build(architecture, {}), jax.random.key(0)
    w = jnp.zeros((1, empty.num_layers, empty.w_dim))
    variables = {
        "mapping": jax.jit(empty.mapping_module.init)(key, w[0, :1]),
        "synthesis": jax.jit(empty.synthesis_module.init)(key, w),
        "mean_latent": w[0, 0],
    }
    return Generator.build(architecture, variables)


def synthesis(size: int, batch: int) -> Figures:
    """Draws pictures of `size` pixels."""
    generator, w = random_generator(size), _latents(batch)
    draw = jax.jit(lambda generator, w: generator.synthesis(w)[0])
    return measure(lambda: draw(generator, w).block_until_ready(), batch)


def labelled(head_name: str) -> Work:
    """Returns the work of drawing pictures with labels of the same size."""
    return lambda size, batch: _label(random_generator(size), head_name, size, batch)


def mobilestylegan(size: int, batch: int) -> Figures:
    """Draws the demo generator's pictures of 1024 px with labels of `size`."""
    return _label(load_generator("weights/face"), "mlp0", size, batch)


def fewshot(head_name: str) -> Work:
    """Returns the work of training `batch` heads on `SHOTS` shots, a step."""

    def work(size: int, batch: int) -> Figures:
        shapes = _tap_shapes(random_generator(size), size)
        taps = {name: jnp.ones((SHOTS, *shape[1:])) for name, shape in shapes.items()}
        masks = jnp.asarray(np.random.default_rng(0).integers(0, CLASSES, (SHOTS, size, size)))
        laps, steps = Laps(), (RUNS + 1) * STEPS
        fit_heads(
            jax.random.key(0),
            heads.build(head_name, CLASSES, size),
            taps,
            masks,
            ensemble=batch,
            steps=steps,
            schedule=learning_rate("cosine", 1e-3, steps),
            weight_decay=1e-3,
            flip=True,
            chunk=STEPS,
            on_chunk=laps.mark,
        )
        return laps.figures(STEPS)

    return work


def unet_step(kind: str) -> Work:
    """Returns the work of training the stand-alone network, a step."""

    def work(size: int, batch: int) -> Figures:
        network, variables, x = _unet(kind, size, batch)
        labels = jnp.asarray(np.random.default_rng(1).integers(0, CLASSES, x.shape[:3]))
        optimizer = optax.adamw(1e-3)

        def step(params, batch_stats, moments, x, labels):
            def loss_fn(params):
                logits, updated = network.apply(
                    {"params": params, "batch_stats": batch_stats},
                    x,
                    train=True,
                    mutable=["batch_stats"],
                )
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
                return losses.mean(), updated["batch_stats"]

            (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, moments = optimizer.update(grads, moments, params)
            return (optax.apply_updates(params, updates), stats, moments), loss

        step = jax.jit(step, donate_argnums=(0, 1, 2))
        params = variables["params"]
        state = [(params, variables["batch_stats"], optimizer.init(params))]

        def call():
            state[0], loss = step(*state[0], x, labels)
            return float(loss)

        return measure(call)

    return work


def unet(kind: str) -> Work:
    """Returns the work of segmenting pictures."""

    def work(size: int, batch: int) -> Figures:
        network, variables, x = _unet(kind, size, batch)
        predict = jax.jit(network.apply)
        return measure(lambda: predict(variables, x).block_until_ready(), batch)

    return work


def _latents(batch: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (batch, 512))


def _tap_shapes(generator: Generator, size: int) -> dict[str, tuple[int, ...]]:
    names = taps_lib.select(generator.tap_names)
    taps = jax.eval_shape(
        lambda g, w: taps_lib.choose(g.synthesis(w)[1], names, size), generator, _latents(1)
    )
    return {name: taps[name].shape for name in names}


def _label(generator: Generator, head_name: str, size: int, batch: int) -> Figures:
    """Draws pictures, reduced to `size`, with labels, and in turn the pictures alone."""
    head, shapes = heads.build(head_name, CLASSES, size), _tap_shapes(generator, size)
    empty = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    variables = jax.jit(head.init)(jax.random.key(2), empty)
    variables = {**variables, "params": jax.tree.map(lambda x: x[None], variables["params"])}

    @jax.jit
    def label(generator, variables, w):
        picture, taps = generator.synthesis(w)
        probabilities = Labeller(variables, head, tuple(shapes), PALETTE)(taps)
        picture = resampling.area_reduce(picture, generator.resolution // size)
        return synthesize.to_uint8(picture), probabilities.argmax(-1).astype(jnp.uint8)

    draw, w = jax.jit(lambda generator, w: generator.synthesis(w)[0]), _latents(batch)
    both, alone = alternate(
        [
            lambda: jax.block_until_ready(label(generator, variables, w)),
            lambda: draw(generator, w).block_until_ready(),
        ],
        batch,
        runs=3 * RUNS,  # the two are close to each other
    )
    return {**both, "image_cpu_s": alone["cpu_s"], "image_wall_s": alone["wall_s"]}


def _unet(kind: str, size: int, batch: int) -> tuple[UNet, Any, jax.Array]:
    network = UNet(CLASSES, *UNETS[kind])
    x = jax.random.uniform(jax.random.key(3), (batch, size, size, 3), minval=-1)
    return network, jax.jit(network.init)(jax.random.key(4), x[:1]), x


WORKS = {
    "synthesis": synthesis,
    "mobilestylegan": mobilestylegan,
    **{f"labelled_{name}": labelled(name) for name in heads.NAMES},
    **{f"fewshot_{name}": fewshot(name) for name in heads.NAMES},
    "unet_step": unet_step("paper"),
    "unet": unet("paper"),
    "default_unet_step": unet_step("default"),
    "default_unet": unet("default"),
}


def main(name: str, size: int, batch: int) -> None:
    """Measures one work."""
    show(who="ours", work=name, size=size, batch=batch, **WORKS[name](size, batch))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=WORKS)
    parser.add_argument("size", type=int, help="side length in pixels")
    parser.add_argument("batch", type=int)
    main(**vars(parser.parse_args()))
