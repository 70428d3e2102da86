"""Loss of few-shot training against processor time: ours, and PyTorch's on a stack.

    python -m benchmarks.fewshot_curve [--torch-python=PATH] [--size=256] [--rounds=6]

CNN-L on folded activations beside the CNN of the best-known notebook, whose first convolution sees
3x3 pixels of the stack (`pytorch/stacked.py`): ten shots of examples/face, activations of
weights/face, one shot a step, AdamW at the paper's rate and weight decay of 1e-3. PATH is a Python
that has torch, by default this one; a stack of 256 px takes it 6 GiB.

One JSON line for each round through all shots: the mean loss of its steps, and the CPU and wall
seconds since training began. Ours count compilation; PyTorch's do not count the making of the
stack. In the end, for each loss of PyTorch's that ours comes down to, what both took to it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import Figures, show
from repgan_jax.configs import face
from repgan_jax.data import masks
from repgan_jax.models import heads
from repgan_jax.ops import taps as taps_lib
from repgan_jax.stages import common
from repgan_jax.training import activations
from repgan_jax.training.heads import fit_heads, learning_rate

RATE, WEIGHT_DECAY = 1e-3, 1e-3


def read_shots(size: int) -> tuple[dict[str, jax.Array], np.ndarray, int]:
    """Returns activations [k, h, w, C] by name, masks [k, size, size], the number of classes."""
    config = face.get_config()
    config.label_size = size
    palette = masks.read_classes(config.classes)
    shots = masks.read_shots(config.fewshot.shots, palette, ())
    generator = common.load_generator(config)
    names = taps_lib.select(generator.tap_names)
    taps = activations.read_activations(generator, shots, names, size, image_tolerance=8.0)
    labels = [masks.resize_mask(mask, size, palette.num_classes) for mask in shots.masks]
    return taps, np.stack(labels), palette.num_classes


def train(taps: taps_lib.Taps, labels: np.ndarray, num_classes: int, rounds: int) -> list[Figures]:
    """Returns, and prints, the curve of our head."""
    count, steps = len(labels), len(labels) * rounds
    clocks = [(time.process_time(), time.perf_counter())]
    _, losses = fit_heads(
        jax.random.key(0),
        heads.build("cnn_l", num_classes, labels.shape[1]),
        taps,
        jnp.asarray(labels),
        ensemble=1,
        steps=steps,
        schedule=learning_rate("constant", RATE, steps),
        weight_decay=WEIGHT_DECAY,
        flip=False,
        chunk=count,
        on_chunk=lambda *_: clocks.append((time.process_time(), time.perf_counter())),
    )
    curve = []
    for loss, now in zip(losses.reshape(rounds, count).mean(1), clocks[1:], strict=True):
        cpu, wall = (b - a for a, b in zip(clocks[0], now, strict=True))
        curve.append({"loss": float(loss), "cpu_s": cpu, "wall_s": wall})
        show(who="ours", round=len(curve), **curve[-1])
    return curve


def train_stacked(
    python: str, taps: taps_lib.Taps, labels: np.ndarray, num_classes: int, rounds: int
) -> list[Figures]:
    """Returns, and prints, the curve of PyTorch's head."""
    with tempfile.TemporaryDirectory() as folder:
        for name, tap in taps.items():
            np.save(Path(folder) / f"{name}.npy", tap)
        np.save(Path(folder) / "labels.npy", labels)
        command = [python, "-m", "benchmarks.pytorch.fewshot", folder, f"{num_classes}"]
        process = subprocess.Popen([*command, f"{rounds}"], stdout=subprocess.PIPE, text=True)
        curve = []
        for line in process.stdout:
            print(line, end="", flush=True)
            curve.append(json.loads(line))
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    return curve


def compare(own: list[Figures], base: list[Figures]) -> None:
    """Prints what each of the two curves took to the losses of `base`."""
    for there in base:
        for here in own:
            if here["loss"] <= there["loss"]:
                times = {"ours_cpu_s": here["cpu_s"], "cpu_s": there["cpu_s"]}
                show(to_loss=there["loss"], **times, ratio=here["cpu_s"] / there["cpu_s"])
                break


def main() -> None:
    """Trains both heads and compares them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    shots = read_shots(options.size)
    own = train(*shots, options.rounds)
    compare(own, train_stacked(options.torch_python, *shots, options.rounds))


if __name__ == "__main__":
    main()
