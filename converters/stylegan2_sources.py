"""Finds the generator in what a checkpoint file holds, whichever code base wrote it."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from converters.plain_data import Record
from converters.stylegan2_formats import FORMATS, NVIDIA, Format
from repgan_jax.errors import UserError

# best first: the average over training draws better pictures than its last state
_GENERATORS = ("g_ema", "G_ema", "Gs", "g", "G")
_DISCRIMINATORS = ("d", "D")
_EXPECTED = (
    "expected StyleGAN2's generator as written by rosinality/stylegan2-pytorch, "
    "NVlabs/stylegan2-ada-pytorch or NVIDIA's TensorFlow code"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A generator as its code base names it.

    Attributes:
        path: of the file, for messages.
        fmt: the naming.
        key: of the generator in the file; "" if it is all there is.
        tensors: by name.
        mean: the mean latent [D], or None.
        clamp: bound of every layer's output, or None.
        discriminator: its tensors by name; empty if there is none.
        unused: what else the file holds.
    """

    path: str
    fmt: Format
    key: str
    tensors: Mapping[str, np.ndarray]
    mean: np.ndarray | None
    clamp: float | None
    discriminator: Mapping[str, np.ndarray]
    unused: tuple[str, ...]


def locate(state: Any, path: str) -> Source:
    """Returns the generator in `state`, which is what `torch_file.read` has found at `path`.

    Raises:
        UserError: there is none, or one that computes something else.
    """
    if isinstance(state, (tuple, list)) and len(state) == 3:  # NVIDIA's TensorFlow code
        state = dict(zip(("G", "D", "Gs"), state, strict=True))
    if isinstance(state, Record):
        state = {"G": state}
    if not isinstance(state, Mapping):
        raise UserError(f"{path}: holds a {type(state).__name__}; {_EXPECTED}")
    state = _nested(state)
    key = next((key for key in _GENERATORS if _is_network(state.get(key))), "")
    network = state[key] if key else state
    tensors = _tensors(network)
    fmt = next((fmt for fmt in FORMATS if fmt.signature in tensors), None)
    if fmt is None:
        names = sorted(map(str, tensors or state))
        found = ", ".join(name[:60] for name in names[:4]) or "nothing"
        raise UserError(f"{path}: no StyleGAN2 generator, found {found}, ...; {_EXPECTED}")
    rest = {name: value for name, value in state.items() if name != key}
    if not key:
        rest = {name: value for name, value in rest.items() if not isinstance(value, np.ndarray)}
    mean = tensors.pop(fmt.mean, None)
    mean = rest.pop(fmt.mean, None) if mean is None else mean
    critic = next((name for name in _DISCRIMINATORS if _is_network(rest.get(name))), None)
    discriminator = _tensors(rest.pop(critic)) if critic else {}
    clamp = None
    if isinstance(network, Record):
        clamp = _nvidia_clamp(network, path) if fmt is NVIDIA else _tensorflow_clamp(network, path)
    unused = tuple(sorted(str(name) for name, value in rest.items() if value is not None))
    return Source(path, fmt, key, tensors, mean, clamp, discriminator, unused)


def _is_network(value: Any) -> bool:
    return isinstance(value, Record) or (isinstance(value, Mapping) and len(value) > 0)


def _nested(state: Mapping) -> dict[str, Any]:
    """Returns `state` with the networks of a flat file ("g_ema.style.1.weight") as dicts."""
    prefixes = {f"{name}.": name for name in (*_GENERATORS, *_DISCRIMINATORS)}
    nested: dict[str, Any] = {}
    for name, value in state.items():
        start, dot, end = str(name).partition(".")
        if start + dot in prefixes:
            nested.setdefault(start, {})[end] = value
        else:
            nested[name] = value
    return nested


def _tensors(network: Any) -> dict[str, np.ndarray]:
    """Returns the tensors of a network by name, whether a state dict or a pickled module."""
    if not isinstance(network, Record):
        arrays = {name: value for name, value in network.items() if isinstance(value, np.ndarray)}
        if arrays and all(str(name).startswith("module.") for name in arrays):  # DataParallel's
            arrays = {name.removeprefix("module."): value for name, value in arrays.items()}
        return arrays
    if "variables" in network.state:
        return dict(_tensorflow_variables(network, ""))
    return {
        f"{path}{name}": value
        for path, module in _modules(network, "")
        for group in ("_parameters", "_buffers")
        for name, value in _mapping(module.state.get(group)).items()
        if isinstance(value, np.ndarray)
    }


def _modules(module: Record, path: str) -> Iterator[tuple[str, Record]]:
    """Yields ("synthesis.b4.", module) for a pickled PyTorch module and all modules in it."""
    yield path, module
    for name, inner in _mapping(module.state.get("_modules")).items():
        if isinstance(inner, Record):
            yield from _modules(inner, f"{path}{name}.")


def _tensorflow_variables(network: Record, path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) for a pickled dnnlib network: its own variables, then components'."""
    for name, value in network.state["variables"]:
        yield f"{path}{name}", np.asarray(value)
    for name, inner in _mapping(network.state.get("components")).items():
        yield from _tensorflow_variables(inner, f"{path}{name}/")


def _nvidia_clamp(network: Record, path: str) -> float | None:
    """Returns the bound of the layers, after checking that they compute what ours do."""
    clamps = set()
    for name, module in _modules(network, ""):
        state, weight = module.state, _mapping(module.state.get("_parameters")).get("weight")
        expected: dict[str, Any] = {"architecture": "skip", "use_noise": True}
        if "weight_gain" in state and isinstance(weight, np.ndarray):  # of the equalised rate
            rate = 0.01 if name.startswith("mapping.fc") else 1.0
            expected["weight_gain"] = rate / math.sqrt(math.prod(weight.shape[1:]))
            expected["bias_gain"] = rate
        if "activation" in state:
            linear = name.endswith(("affine.", "embed."))
            expected["activation"] = "linear" if linear else "lrelu"
        expected["act_gain"] = math.sqrt(2)
        for setting, value in expected.items():
            _check(path, f"{name}{setting}", state.get(setting, value), value)
        if "conv_clamp" in state:
            clamps.add(state["conv_clamp"])
    if len(clamps) > 1:
        raise UserError(f"{path}: layers with different conv_clamp; expected one for all")
    return _number(clamps.pop()) if clamps else None


def _tensorflow_clamp(network: Record, path: str) -> float | None:
    """Returns the bound of the layers, after checking that they compute what ours do."""
    settings = _mapping(network.state.get("static_kwargs"))
    expected = {
        "architecture": "skip",
        "nonlinearity": "lrelu",
        "mapping_nonlinearity": "lrelu",
        "mapping_lrmul": 0.01,
        "normalize_latents": True,
        "use_noise": True,
    }
    for name, value in expected.items():
        _check(path, name, settings.get(name, value), value)
    kernel = settings.get("resample_kernel") or [1, 3, 3, 1]
    _check(path, "resample_kernel", list(kernel), [1, 3, 3, 1])
    return _number(settings.get("conv_clamp"))


def _check(path: str, name: str, found: Any, expected: Any) -> None:
    number = isinstance(expected, float) and isinstance(found, (int, float, np.number))
    if not (math.isclose(found, expected, rel_tol=1e-5) if number else found == expected):
        raise UserError(f"{path}: {name} is {str(found)[:60]}, expected {expected}; not converted")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _mapping(value: Any) -> Mapping:
    return value if isinstance(value, Mapping) else {}
