"""CPU time of a few-shot training step, one JSON line a head.

    python benchmarks/fewshot_step.py [--size=128] [--members=1]

Learns from the hand-drawn shots of examples/face on the face generator (weights/face), as the
stage fewshot does.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import face
from repgan_jax import load_generator, segment, taps
from repgan_jax.io import masks
from repgan_jax.models import heads
from repgan_jax.stages import fewshot

CHUNK, CHUNKS = 4, 3  # steps; the first chunk compiles
SEEDS = (0, 1, 7)  # of the shots


def main() -> None:
    """Prints process CPU seconds, and wall-clock seconds, a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="pixels a side of the labels")
    parser.add_argument("--members", type=int, default=1, help="heads of the ensemble")
    arguments = parser.parse_args()
    config = face.get_config()
    config.label_size = arguments.size
    palette, generator = masks.read_classes(config.classes), load_generator(config.generator)
    names = [f"seed{seed:03d}" for seed in SEEDS]
    shots = masks.read_shots(config.fewshot.shots, palette, names)
    chosen = taps.select(generator.tap_names)
    activations = fewshot.read_activations(generator, shots, chosen, config, made=True)
    labels = np.stack(
        [masks.resize_mask(m, arguments.size, palette.num_classes) for m in shots.masks]
    )
    for name in heads.NAMES:
        times = []
        segment.fit_heads(
            jax.random.key(0),
            heads.build(name, palette.num_classes, arguments.size),
            activations,
            jnp.asarray(labels),
            members=arguments.members,
            steps=CHUNK * CHUNKS,
            schedule=segment.learning_rate("cosine", config.fewshot.learning_rate, CHUNK * CHUNKS),
            weight_decay=config.fewshot.weight_decay,
            flip=True,
            chunk=CHUNK,
            progress=lambda *_, times=times: times.append(
                (time.process_time(), time.perf_counter())
            ),
        )
        cpu, wall = (np.diff([moment[i] for moment in times]).min() / CHUNK for i in (0, 1))
        print(json.dumps({"name": name, "cpu_s": round(cpu, 3), "wall_s": round(wall, 3)}))


if __name__ == "__main__":
    main()
