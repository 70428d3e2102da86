"""Converts a StyleGAN2 checkpoint in the format of rosinality/stylegan2-pytorch.

    python -m converters.stylegan2 CHECKPOINT.pt OUT

The averaged generator (`g_ema`) is converted; `latent_avg` is its mean latent, or, where a
checkpoint has none, the mean of 10,000 seeded samples. What the original multiplies weights with
at run time (the equalised learning rate) is multiplied in here, once.
"""

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from converters import torch_file
from converters.command import describe, mean_latent, run
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint

_MAPPING_RATE = 0.01  # learning rate of the mapping, relative to the rest
_FIR = np.outer((1, 3, 3, 1), (1, 3, 3, 1)) / 16  # the low-pass filter of `ops.smooth`


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _dense(x: np.ndarray) -> np.ndarray:
    return x.T / math.sqrt(x.shape[1])


def _conv(x: np.ndarray) -> np.ndarray:
    return x[0].transpose(2, 3, 1, 0) / math.sqrt(x[0, 0].size)


# Their name, their shape, our name, what to do. Letters of a shape: F and C channels out and in,
# D and Z widths of w and z, R pixels a side. Rows without our name are built into `ops`.
_DENSE = (
    ("weight", "D Z", "kernel", lambda x: _MAPPING_RATE * _dense(x)),
    ("bias", "D", "bias", lambda x: _MAPPING_RATE * x),
)
_STYLE = (
    ("conv.modulation.weight", "C D", "style/kernel", _dense),
    ("conv.modulation.bias", "C", "style/bias", _same),
)
_CONV_ANY = (
    *_STYLE,
    ("noise.weight", "1", "noise_strength", lambda x: x[0]),
    ("activate.bias", "F", "bias", _same),
)
_CONV = (*_CONV_ANY, ("conv.weight", "1 F C 3 3", "kernel", _conv))
_CONV_UP = (
    *_CONV_ANY,  # a transposed convolution correlates with the kernel turned around
    ("conv.weight", "1 F C 3 3", "kernel", lambda x: _conv(x[..., ::-1, ::-1])),
    ("conv.blur.kernel", "4 4", None, _same),
)
_RGB = (
    *_STYLE,
    ("conv.weight", "1 3 C 1 1", "kernel", _conv),
    ("bias", "1 3 1 1", "bias", np.ravel),
)
_RGB_UP = (*_RGB, ("upsample.kernel", "4 4", None, _same))
_CONSTANT = (("input", "1 F 4 4", "constant", lambda x: x[0].transpose(1, 2, 0)),)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What becomes of one tensor.

    Attributes:
        source: its name in the checkpoint.
        shape: that it must have there.
        target: its path in our variables; None for a filter that must equal ours.
        transform: from their array to ours.
    """

    source: str
    shape: tuple[int, ...]
    target: str | None
    transform: Callable[[np.ndarray], np.ndarray]


def _rows(table: tuple, theirs: str, ours: str, **letters: int) -> Iterator[Rule]:
    """Yields the rules of `table` for their module `theirs`, which is our module `ours`."""
    for name, shape, target, transform in table:
        sides = tuple(letters[side] if side in letters else int(side) for side in shape.split())
        yield Rule(f"{theirs}.{name}", sides, target and f"{ours}/{target}", transform)


def rules(architecture: Mapping[str, Any]) -> Iterator[Rule]:
    """Yields the rule for every tensor that a generator of `architecture` has."""
    w_dim, z_dim = architecture["w_dim"], architecture["z_dim"]
    for i in range(architecture["mapping_layers"]):
        ours = f"mapping/params/dense_{i}"
        yield from _rows(_DENSE, f"style.{i + 1}", ours, D=w_dim, Z=w_dim if i else z_dim)
    params = "synthesis/params"
    widths = list(architecture["widths"].values())
    yield from _rows(_CONSTANT, "input", params, F=widths[0])
    for i in range(2 * len(widths) - 1):  # convolutions; the odd ones double the size
        level, up = (i + 1) // 2, i % 2 == 1
        width, size = widths[level], 4 << level
        before = widths[level - 1] if up else width
        conv, theirs = f"conv_{i:02d}", f"convs.{i - 1}" if i else "conv1"
        table = _CONV_UP if up else _CONV
        yield from _rows(table, theirs, f"{params}/{conv}", F=width, C=before, D=w_dim)
        noise = (f"noise_{i}", "1 1 R R", "map", lambda x: x[0, 0])
        yield from _rows((noise,), "noises", f"synthesis/noise/{conv}", R=size)
        if not up:
            theirs, table = (f"to_rgbs.{level - 1}", _RGB_UP) if level else ("to_rgb1", _RGB)
            yield from _rows(table, theirs, f"{params}/rgb_{level:02d}", C=width, D=w_dim)


def infer(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Returns the architecture that the names and shapes of `tensors` state."""

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in tensors)

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = getattr(tensors.get(name), "shape", None)
        if found is None or len(found) != rank:
            raise UserError(
                f"{source}: tensor {name} has shape {found}, expected {rank} dimensions"
            )
        return found

    # halves are rounded up, so that a missing tensor is found missing, and its peers not unknown
    levels = (count(r"convs\.\d+\.conv\.weight") + 1) // 2 + 1
    if not 4 <= levels <= 9:
        raise UserError(f"{source}: a generator of {2 << levels} px; expected one of 32 to 1024")
    widths = {"4": shape("input.input", 4)[1]}
    for level in range(1, levels):
        widths[str(4 << level)] = shape(f"convs.{2 * level - 2}.conv.weight", 5)[1]
    w_dim, z_dim = shape("style.1.weight", 2)
    return {
        "name": "stylegan2",
        "resolution": 2 << levels,
        "z_dim": z_dim,
        "w_dim": w_dim,
        "mapping_layers": (count(r"style\.\d+\.(weight|bias)") + 1) // 2,
        "widths": widths,
    }


def convert(state: Mapping[str, Any], source: str = "checkpoint") -> tuple[dict, dict]:
    """Returns (architecture, variables) of the averaged generator in a checkpoint.

    Args:
        state: what `torch_file.read` returns.
        source: name of the checkpoint, for messages.

    Raises:
        UserError: naming the tensors that are missing, unknown, or of another shape.
    """
    if not isinstance(state, dict) or not isinstance(state.get("g_ema"), dict):
        found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise UserError(
            f"{source}: no generator g_ema, found {found}; expected rosinality's format"
        )
    tensors = state["g_ema"]
    architecture = infer(tensors, source)
    table = {rule.source: rule for rule in rules(architecture)}
    for what, names in (("missing", table.keys() - tensors), ("unknown", tensors.keys() - table)):
        if names:
            raise UserError(
                f"{source}: {what} tensors, nothing converted: {', '.join(sorted(names))}"
            )
    flat = {}
    for name, rule in table.items():
        found = getattr(tensors[name], "shape", None)
        if found != rule.shape:
            raise UserError(f"{source}: tensor {name} has shape {found}, expected {rule.shape}")
        array = rule.transform(np.asarray(tensors[name], np.float32))
        if rule.target:
            flat[rule.target] = np.array(array, order="C")
        elif not np.allclose(array, _FIR):
            raise UserError(f"{source}: filter {name} is not (1, 3, 3, 1), the only one supported")
    variables = traverse_util.unflatten_dict(flat, sep="/")
    mean, expected = state.get("latent_avg"), (architecture["w_dim"],)
    mean = mean_latent(architecture, variables) if mean is None else np.asarray(mean, np.float32)
    if mean.shape != expected:
        raise UserError(f"{source}: latent_avg has shape {mean.shape}, expected {expected}")
    return architecture, {**variables, "mean_latent": mean}


def main() -> None:
    """Converts as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="PyTorch file with g_ema; read, never run")
    parser.add_argument("out", type=Path, help="folder to write the generator to")
    args = parser.parse_args()
    state = torch_file.read(args.checkpoint)
    architecture, variables = convert(state, str(args.checkpoint))
    checkpoint.write_generator(args.out, architecture, variables)
    print(describe(args.out, architecture, variables))
    origin = "latent_avg" if "latent_avg" in state else "estimated from 10,000 samples"
    print(f"all {len(state['g_ema'])} tensors accounted for; mean latent: {origin}")


if __name__ == "__main__":
    run(main)
