"""Converts a StyleGAN2 checkpoint of any known code base; nothing in the file is executed.

    python -m repgan_jax.converters.stylegan2 FILE OUT
    python -m repgan_jax.converters.stylegan2 --to-rosinality OUT FILE.pt

FILE is a checkpoint of rosinality/stylegan2-pytorch, NVlabs/stylegan2-ada-pytorch or NVIDIA's
TensorFlow code, of an encoder for rosinality's generator (pSp, e4e, ReStyle), or a safetensors file
with the tensor names of one of them. The format is recognised by the content of the file; see
docs/checkpoints.md. The second form converts a converted generator back.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint

from .command import add_samples_option, describe, mean_latent, run, write_samples
from .layouts import check_names, floats, shape, to_ours, to_theirs
from .pytorch_files import torch_file, torch_writer
from .pytorch_files.plain_data import listed
from .stylegan2_formats import ROSINALITY, infer, layers
from .stylegan2_sources import Source, locate


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
    tensors = {k: v for k, v in source.tensors.items() if k not in source.fmt.unused}
    check_names(tensors.keys(), table.keys(), filters | maps if draws else filters, source.path)
    flat, rng = {}, np.random.default_rng(0)
    for name, (layer, row) in table.items():
        if name in tensors:
            tensor = floats(tensors[name], shape(row.layout, layer.sides), name, source.path)
            if row.ours is not None:
                flat[f"{layer.ours}/{row.ours}"] = to_ours(tensor, row)
            elif row.fixed is not None and not np.allclose(tensor, row.fixed):
                raise UserError(
                    f"{source.path}: filter {name} is not (1, 3, 3, 1), the only one supported"
                )
        elif name in maps:
            drawn = rng.normal(size=(layer.size, layer.size))
            flat[f"{layer.ours}/{row.ours}"] = drawn.astype(np.float32)
    variables = traverse_util.unflatten_dict(flat, sep="/")
    if source.mean is None:
        mean, origin = mean_latent(architecture, variables), "estimated from 10,000 samples"
    else:
        mean, origin = _stored_mean(source, architecture)
    notes = (
        *_notes(source, num_filters=len(filters & tensors.keys()), draws=draws),
        f"mean latent: {origin}",
    )
    return Conversion(architecture, {**variables, "mean_latent": mean}, notes)


def _stored_mean(source: Source, architecture: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Returns the mean latent [D] that is stored, and what to say of it.

    Encoders store one a layer: the same each time, unless somebody has trained them. The centre of
    truncation is one for all layers here, so that the mean of different ones is taken.
    """
    name, w_dim = source.fmt.mean, architecture["w_dim"]
    num_layers = 2 * len(architecture["widths"])
    if np.shape(source.mean) not in ((1, w_dim), (num_layers, w_dim)):
        return floats(source.mean, (w_dim,), name, source.path), f"stored ({name})"
    rows = floats(source.mean, np.shape(source.mean), name, source.path)
    spread = float(np.abs(rows - rows[0]).max())
    if spread == 0:
        return rows[0], f"stored ({name}, {len(rows)} equal rows)"
    mean = rows.mean(0, dtype=np.float64).astype(np.float32)
    return mean, f"mean of the {len(rows)} rows of {name}, which differ by up to {spread:.2g}"


def _notes(source: Source, *, num_filters: int, draws: bool) -> tuple[str, ...]:
    count, unused = len(source.tensors), sorted(source.fmt.unused & source.tensors.keys())
    parts = [f"{count - num_filters - len(unused)} converted"]
    parts += [f"{num_filters} low-pass filters that equal the one built in"] if num_filters else []
    parts += [f"of no use in StyleGAN2: {', '.join(unused)}"] if unused else []
    clamp = "none" if source.clamp is None else f"{source.clamp:g}"
    if source.fmt is not ROSINALITY and not source.states_clamp:
        clamp = "not stated in this file, taken as none"
    return (
        f"format: {source.fmt.name}" + (f", its {source.key}" if source.key else ""),
        f"all {count} tensors accounted for: {', '.join(parts)}",
        f"noise maps: {'none stored, drawn with seed 0' if draws else 'stored'}",
        f"bound of the layers (conv_clamp): {clamp}",
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
                f"{path}: has {setting} {architecture[setting]}, for which rosinality's code has "
                "no place; it would draw other pictures"
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
    parser.add_argument("source", type=Path, help="file; with --to-rosinality: a folder")
    parser.add_argument("out", type=Path, help="folder; with --to-rosinality: a file")
    parser.add_argument(
        "--to-rosinality",
        action="store_true",
        help="convert back: from a converted folder to the format of rosinality/stylegan2-pytorch",
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
    checkpoint.check_target(out)
    started = time.perf_counter()
    source = locate(torch_file.read(path), str(path))
    found = translate(source)
    tensors = dict(source.discriminator)
    notes = [*found.notes, f"discriminator: {len(tensors) or 'no'} tensors kept"]
    for name, number in source.encoders.items():
        notes.append(f"{name}: {number} tensors, of no use to the generator, left out")
    if source.unused:
        notes.append(f"of use in training only, left out: {', '.join(source.unused)}")
    if source.unknown:
        notes.append(f"not known, and no tensor, left out: {listed(source.unknown)}")
    architecture, variables = found.architecture, found.variables
    if tensors:
        architecture = {**architecture, "discriminator": source.fmt.name}
        tensors = traverse_util.unflatten_dict(tensors, sep=source.fmt.separator)
    checkpoint.write_generator(out, architecture, variables, tensors)
    notes.append(f"converted in {time.perf_counter() - started:.1f} s")
    print(describe(out, architecture, variables), *notes, sep="\n", flush=True)


def _export(folder: Path, path: Path) -> None:
    if not checkpoint.is_generator(folder):
        raise UserError(f"{folder}: no generator here; expected a folder that was converted")
    architecture, variables = checkpoint.read_generator(folder)
    state = to_rosinality(architecture, variables, str(folder))
    if "discriminator" in architecture and architecture["discriminator"] != ROSINALITY.name:
        print(f"discriminator of {architecture['discriminator']}: other names, left out")
    elif "discriminator" in architecture:
        nested = checkpoint.read_tree(folder / "discriminator")
        state["d"] = traverse_util.flatten_dict(nested, sep=ROSINALITY.separator)
    torch_writer.write(path, state)
    print(f"{path}: {', '.join(state)}, as rosinality/stylegan2-pytorch stores them")


if __name__ == "__main__":
    run(main)
