"""Time and memory of a step of latent optimisation, ours and PyTorch's, one JSON line each.

    python -m benchmarks.projection_step [--torch-python=PATH]

The settings are the preset `paper`: StyleGAN2 of 256 px, channel multiplier 2, LPIPS with VGG16 at
256 px, one latent and all noise maps optimised, for one photo and for four at once. PATH is a
Python that has torch, by default this one; `pytorch/projector.py` is what it runs. Weights are
random: time and memory do not depend on them.

CPU and wall seconds a step of the whole batch, medians after a warm-up, and the peak memory after
6 steps and after 18. Each line is of a process of its own, on all cores; the last lines are
PyTorch's figures over ours.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.works import random_generator
from repgan_jax import main
from repgan_jax.inversion import projection
from repgan_jax.inversion.perceptual import Perceptual
from repgan_jax.inversion.projector import Projector
from repgan_jax.models import lpips

STEPS, CHUNK, BATCHES = 18, 3, (1, 4)
SETTINGS = projection.Settings()
TORCH_SCRIPT = Path(__file__).parent / "pytorch" / "projector.py"


def take_steps(batch: int) -> None:
    """Takes steps, a few a call; after each prints their number, seconds so far and the peak."""
    if batch > 1:  # as the command does; for one photo, the threads of one device
        main.use_all_cores(batch)
    network = lpips.LPIPS("vgg")
    photos = np.random.default_rng(0).uniform(-1, 1, (batch, SETTINGS.size, SETTINGS.size, 3))
    photos = photos.astype(np.float32)
    perceptual = Perceptual(jax.jit(network.init)(jax.random.key(1), photos[:1]), network)
    generator = random_generator(256)
    latents = projection.measure_latents(generator, jax.random.key(2))
    projector = Projector(generator, perceptual, latents, jax.random.key(3), SETTINGS)
    states = projector.init(projector.best_of(photos, 0))
    for end in range(CHUNK, SETTINGS.steps, CHUNK):
        states = jax.block_until_ready(projector.advance(states, photos, end))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps((end, time.process_time(), time.perf_counter(), peak)), flush=True)


def measure(name: str, batch: int, *command: str | Path) -> dict[str, float]:
    """Returns, and prints, what a step of `batch` photos costs; `command` prints as we do."""
    rows = []
    with subprocess.Popen([*command, str(batch)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            rows.append(json.loads(line))
            if rows[-1][0] == STEPS:
                process.kill()
                break
        else:
            raise SystemExit(f"{name}, batch {batch}: ended after {len(rows)} lines")
    steps, cpu, wall, peaks = zip(*rows, strict=True)
    figures = {
        "cpu_s": statistics.median(np.diff(cpu) / np.diff(steps)),
        "wall_s": statistics.median(np.diff(wall) / np.diff(steps)),
        "gib_6_steps": peaks[steps.index(STEPS // 3)],
        "gib_18_steps": peaks[-1],
    }
    say(name, batch, figures)
    return figures


def say(name: str, batch: int, figures: dict[str, float]) -> None:
    """Prints a line."""
    rounded = {key: round(float(figure), 2) for key, figure in figures.items()}
    print(json.dumps({"name": name, "batch": batch, **rounded}), flush=True)


def compare(torch_python: str) -> None:
    """Measures ours and, where there is a torch, PyTorch's; prints the ratios."""
    import_torch = subprocess.run([torch_python, "-c", "import torch"], capture_output=True)
    for batch in BATCHES:
        ours = measure("ours", batch, sys.executable, "-m", "benchmarks.projection_step", "--batch")
        if import_torch.returncode:
            print(json.dumps({"name": "PyTorch", "left_out": f"no torch in {torch_python}"}))
            continue
        torch = measure("PyTorch", batch, torch_python, TORCH_SCRIPT)
        say("PyTorch / ours", batch, {key: torch[key] / ours[key] for key in ours})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--batch", type=int)  # of a process that measures, for itself
    options = parser.parse_args()
    if options.batch:
        take_steps(options.batch)
    else:
        compare(options.torch_python)
