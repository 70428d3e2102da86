"""Time and memory of a generated picture, alone and with its label, one JSON line each.

    python benchmarks/labelled_picture.py [weights/face]

CPU seconds and wall seconds a picture, medians of five runs after a warm-up; peak memory of the
whole process so far.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from repgan_jax import load_generator, synthesize
from repgan_jax import taps as taps_lib
from repgan_jax.models import heads

RUNS, BATCH, CLASSES, LABEL_SIZE = 5, 4, 10, 128


def measure(name: str, call: Callable[[], Any]) -> None:
    """Prints the median seconds a picture of `call`, which computes `BATCH` of them."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(RUNS):
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(call())
        seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = (
        round(statistics.median(column) / BATCH, 3) for column in zip(*seconds, strict=True)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"name": name, "cpu_s": cpu, "wall_s": wall, "peak_gib": round(peak, 2)}))


def main() -> None:
    """Measures the generator in the folder of the first argument."""
    generator = load_generator(sys.argv[1] if len(sys.argv) > 1 else "weights/face")
    w = generator.mapping(jax.random.normal(jax.random.key(0), (BATCH, generator.z_dim)))
    picture = jax.jit(
        lambda generator, w: jax.lax.map(lambda one: generator.synthesis(one[None])[0], w)
    )
    measure("picture", lambda: picture(generator, w))
    names = taps_lib.select(generator.tap_names)
    taps = jax.jit(lambda g, w: taps_lib.choose(g.synthesis(w)[1], names, LABEL_SIZE))(
        generator, w[:1]
    )
    indices = jnp.arange(BATCH, dtype=jnp.int32)
    for head_name in ("mlp0", "cnn_s", "cnn_l"):
        head = heads.build(head_name, CLASSES, LABEL_SIZE)
        variables = head.init(jax.random.key(0), taps)
        variables["params"] = jax.tree.map(lambda x: x[None], variables["params"])  # an ensemble
        sample = jax.jit(
            synthesize.make_sampler(
                head, names, truncation=1.0, noise="stored", picture_size=LABEL_SIZE
            )
        )
        fixed = (generator, variables, jax.random.key(1))
        measure(f"picture + label, {head_name}", lambda s=sample, f=fixed: s(f, indices))


if __name__ == "__main__":
    main()
