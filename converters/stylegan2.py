"""Converts a StyleGAN2 checkpoint, whichever code base wrote it; nothing in the file is run.

    python -m converters.stylegan2 FILE OUT
    python -m converters.stylegan2 --to-rosinality OUT FILE.pt

FILE is what rosinality/stylegan2-pytorch, NVlabs/stylegan2-ada-pytorch or NVIDIA's TensorFlow code
wrote, or a safetensors file with the names of one of them; its content tells which. See
docs/checkpoints.md. The second form takes a converted generator back.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from converters import torch_file, torch_writer
from converters.command import add_samples_option, describe, mean_latent, run, write_samples
from converters.layouts import shape, to_ours, to_theirs
from converters.stylegan2_formats import ROSINALITY, infer, layers
from converters.stylegan2_sources import Source, locate
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted generator.

    Attributes:
        architecture: what `Generator.build` builds it from.
        variables: {"mapping": ..., "synthesis": ..., "mean_latent": [D]}.
        notes: lines that say what became of every tensor.
    """

    architecture: dict[str, Any]
    variables: dict[str, Any]
    notes: tuple[str, ...]


def convert(state: Any, path: str = "checkpoint") -> tuple[dict, dict]:
    """Returns (architecture, variables) of the generator in a checkpoint.

    Args:
        state: what `torch_file.read` returns.
        path: of the checkpoint, for messages.

    Raises:
        UserError: naming the tensors that are missing, unknown, or of another shape.
    """
    found = translate(locate(state, path))
    return found.architecture, found.variables


def translate(source: Source) -> Conversion:
    """Returns the generator of `source`, after accounting for each of its tensors.

    A mean latent or noise maps that it does not store are drawn, from a fixed seed.

    Raises:
        UserError: naming the tensors that are missing, unknown, or of another shape.
    """
    architecture = _architecture(source)
    table = {
        source.fmt.tensor_name(layer, row): (layer, row)
        for layer in layers(architecture)
        for row in source.fmt.rows.get(layer.kind, ())
    }
    filters = {name for name, (_, row) in table.items() if row.ours is None}
    maps = {name for name, (layer, _) in table.items() if layer.kind == "noise"}
    draws = not maps & source.tensors.keys()  # as in rosinality's first files
    _check_names(source, table.keys(), optional=filters | maps if draws else filters)
    flat, rng = {}, np.random.default_rng(0)
    for name, (layer, row) in table.items():
        if name in source.tensors:
            tensor = _floats(source, name, source.tensors[name], shape(row.layout, layer.sides))
            if row.ours is not None:
                flat[f"{layer.ours}/{row.ours}"] = to_ours(tensor, row)
            elif not np.allclose(tensor, row.fixed):
                raise UserError(
                    f"{source.path}: filter {name} is not (1, 3, 3, 1), the only one supported"
                )
        elif name in maps:
            drawn = rng.normal(size=(layer.size, layer.size))
            flat[f"{layer.ours}/{row.ours}"] = drawn.astype(np.float32)
    variables = traverse_util.unflatten_dict(flat, sep="/")
    if source.mean is None:
        mean = mean_latent(architecture, variables)
    else:
        mean = _floats(source, source.fmt.mean, source.mean, (architecture["w_dim"],))
    notes = _notes(source, num_filters=len(filters & source.tensors.keys()), draws=draws)
    return Conversion(architecture, {**variables, "mean_latent": mean}, notes)


def _notes(source: Source, *, num_filters: int, draws: bool) -> tuple[str, ...]:
    count, mean = len(source.tensors), f"stored ({source.fmt.mean})"
    return (
        f"format: {source.fmt.name}" + (f", its {source.key}" if source.key else ""),
        f"all {count} tensors accounted for: {count - num_filters} converted, {num_filters} "
        "low-pass filters that equal the one built in",
        f"noise maps: {'none stored, drawn with seed 0' if draws else 'stored'}",
        f"mean latent: {'estimated from 10,000 samples' if source.mean is None else mean}",
    )


def _architecture(source: Source) -> dict[str, Any]:
    try:
        architecture = infer(source.tensors, source.fmt)
    except ValueError as error:
        raise UserError(f"{source.path}: {error}") from None
    if not 32 <= architecture["resolution"] <= 1024:
        found = architecture["resolution"]
        raise UserError(f"{source.path}: a generator of {found} px; expected one of 32 to 1024")
    return architecture if source.clamp is None else {**architecture, "clamp": source.clamp}


def _check_names(source: Source, expected: Set[str], *, optional: Set[str]) -> None:
    """Raises UserError unless `source` has the tensors that are expected, and no other."""
    found = source.tensors.keys()
    for what, names in (("missing", expected - found - optional), ("unknown", found - expected)):
        if names:
            raise UserError(
                f"{source.path}: {what} tensors, nothing converted: {', '.join(sorted(names))}"
            )


def _floats(source: Source, name: str, value: Any, expected: tuple[int, ...]) -> np.ndarray:
    """Returns `value`, the tensor `name`, as float32, after a check of its shape and numbers."""
    found = getattr(value, "shape", None)
    if found != expected:
        raise UserError(f"{source.path}: tensor {name} has shape {found}, expected {expected}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(f"{source.path}: tensor {name} has type {value.dtype}, expected floats")
    value = np.asarray(value, np.float32)
    if not np.isfinite(value).all():
        raise UserError(f"{source.path}: tensor {name} has infinite numbers or NaN")
    return value


def to_rosinality(
    architecture: Mapping[str, Any], variables: Mapping[str, Any], path: str = "generator"
) -> dict[str, Any]:
    """Returns the generator as rosinality's code stores it: {"g_ema": ..., "latent_avg": [D]}.

    What `convert` made of such a checkpoint comes back bit for bit.

    Args:
        architecture: of the generator.
        variables: of the generator, converted, trained or edited.
        path: of the generator, for messages.

    Raises:
        UserError: a generator that rosinality's code cannot compute.
    """
    if architecture["name"] != "stylegan2":
        raise UserError(f"{path}: a generator {architecture['name']}; expected stylegan2")
    for setting in ("num_classes", "clamp"):
        if setting in architecture:
            raise UserError(
                f"{path}: has {setting} {architecture[setting]}, which rosinality's code has not"
            )
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    tensors = {}
    for layer in layers(architecture):
        for row in ROSINALITY.rows.get(layer.kind, ()):
            if row.ours is None:
                tensor = row.fixed.astype(np.float32)
            else:
                tensor = to_theirs(np.asarray(flat[f"{layer.ours}/{row.ours}"]), row)
            tensors[ROSINALITY.tensor_name(layer, row)] = tensor
    return {"g_ema": tensors, "latent_avg": np.asarray(variables["mean_latent"])}


def main() -> None:
    """Converts as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="checkpoint; read as data, never run")
    parser.add_argument("out", type=Path, help="folder to write the generator to")
    parser.add_argument(
        "--to-rosinality",
        action="store_true",
        help="the other way: from a converted folder to a PyTorch file of rosinality's format",
    )
    add_samples_option(parser)
    args = parser.parse_args()
    if args.to_rosinality:
        _export(args.source, args.out)
    else:
        _convert(args.source, args.out)
        write_samples(args.out, args.samples)


def _convert(path: Path, out: Path) -> None:
    if checkpoint.is_generator(path):
        raise UserError(f"{path}: already converted; give it as config.generator")
    started = time.perf_counter()
    source = locate(torch_file.read(path), str(path))
    found = translate(source)
    tensors = dict(source.discriminator)
    notes = [*found.notes, f"discriminator: {len(tensors) or 'no'} tensors kept"]
    if source.unused:
        notes.append(f"understood and not used: {', '.join(source.unused)}")
    architecture, variables = found.architecture, found.variables
    if tensors:
        architecture = {**architecture, "discriminator": source.fmt.name}
        tensors = traverse_util.unflatten_dict(tensors, sep=source.fmt.separator)
    checkpoint.write_generator(out, architecture, variables, tensors)
    notes.append(f"converted in {time.perf_counter() - started:.1f} s")
    print(describe(out, architecture, variables), *notes, sep="\n", flush=True)


def _export(folder: Path, path: Path) -> None:
    architecture, variables = checkpoint.read_generator(folder)
    state = to_rosinality(architecture, variables, str(folder))
    if architecture.get("discriminator") == ROSINALITY.name:
        nested = checkpoint.read_tree(folder / "discriminator")
        state["d"] = traverse_util.flatten_dict(nested, sep=ROSINALITY.separator)
    torch_writer.write(path, state)
    print(f"{path}: {', '.join(state)}, as rosinality/stylegan2-pytorch stores them")


if __name__ == "__main__":
    run(main)
