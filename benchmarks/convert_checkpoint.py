"""Time and memory of converting a 1024 px checkpoint, one JSON line each way.

    python -m benchmarks.convert_checkpoint

The checkpoint has random weights, in the widths of StyleGAN2's configuration F: the averaged
generator and a mean latent, as rosinality/stylegan2-pytorch stores them. CPU and wall seconds of
the whole command, medians of three runs, and its peak memory; the contact sheet, which comes after
the conversion, is left out at first.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from repgan_jax.converters.layouts import shape
from repgan_jax.converters.pytorch_files import torch_writer
from repgan_jax.converters.stylegan2_formats import ROSINALITY, layers

RUNS = 3
WIDTHS = (512, 512, 512, 512, 512, 256, 128, 64, 32)
ARCHITECTURE = {
    "z_dim": 512,
    "w_dim": 512,
    "mapping_layers": 8,
    "widths": {str(4 << level): width for level, width in enumerate(WIDTHS)},
}


def write_checkpoint(path: Path) -> None:
    """Writes a checkpoint of random weights."""
    rng = np.random.default_rng(0)
    tensors = {}
    for layer in layers(ARCHITECTURE):
        for row in ROSINALITY.rows.get(layer.kind, ()):
            size = shape(row.layout, layer.sides)
            fixed = row.fixed is not None
            tensor = row.fixed if fixed else rng.standard_normal(size, np.float32)
            tensors[ROSINALITY.tensor_name(layer, row)] = np.asarray(tensor, np.float32)
    mean = rng.standard_normal(512, np.float32)
    torch_writer.write(path, {"g_ema": tensors, "latent_avg": mean})


def measure(name: str, *arguments: str | Path) -> None:
    """Prints the median seconds and the peak memory of the converter's command."""
    command = [sys.executable, "-m", "repgan_jax.converters.stylegan2", *map(str, arguments)]
    seconds = []
    for _ in range(RUNS):
        wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seconds.append((cpu, time.perf_counter() - wall))
    cpu, wall = (round(statistics.median(column), 1) for column in zip(*seconds, strict=True))
    peak = round(after.ru_maxrss / 2**20, 2)
    print(json.dumps({"name": name, "cpu_s": cpu, "wall_s": wall, "peak_gib": peak}), flush=True)


def main() -> None:
    """Measures there and back, then there with the sheet: peaks are of all commands so far."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "net.pt", Path(folder) / "out"
        write_checkpoint(path)
        size = round(path.stat().st_size / 1e6)
        measure(f"{size} MB checkpoint", path, out, "--samples=0")
        measure("back", "--to-rosinality", out, Path(folder) / "back.pt")
        measure("checkpoint and sheet of 16", path, out)


if __name__ == "__main__":
    main()
