"""Finds the generator in what a checkpoint file holds, whichever code base wrote it."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from repgan_jax.errors import UserError

from .pytorch_files.plain_data import Record, listed, shown
from .stylegan2_formats import FORMATS, NVIDIA, Format

# best first: the average over training draws better pictures than its last state
_GENERATORS = ("g_ema", "G_ema", "Gs", "g", "G", "decoder")
_DISCRIMINATORS = ("d", "D")
_ENCODERS = ("encoder", "hypernet", "face_pool")  # pSp, e4e, ReStyle, HyperStyle: photos to latents
_OF_TRAINING = (
    *("g_optim", "d_optim", "args", "ada_aug_p", "training_set_kwargs", "augment_pipe"),
    *("opts", "optimizer", "global_step", "best_val_loss"),
    *("discriminator_state_dict", "discriminator_optimizer_state_dict"),
)
_EXPECTED = (
    "expected StyleGAN2's generator as written by rosinality/stylegan2-pytorch, "
    "NVlabs/stylegan2-ada-pytorch or NVIDIA's TensorFlow code, or as decoder of pSp or e4e"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A generator as its code base names it.

    Attributes:
        path: of the file, for messages.
        fmt: the naming.
        key: of the generator in the file; "" if it is all there is.
        tensors: by name.
        mean: the mean latent [D], or one a layer [L, D], or None.
        clamp: bound of every layer's output, or None.
        states_clamp: whether the file says so; tensors alone do not.
        discriminator: its tensors by name; empty if there is none.
        unused: what else the file holds, known to be of use in training only.
        unknown: and what else it holds that is no tensor.
        encoders: networks beside it that turn photos into latents: numbers of their tensors.
    """

    path: str
    fmt: Format
    key: str
    tensors: Mapping[str, np.ndarray]
    mean: np.ndarray | None
    clamp: float | None
    states_clamp: bool
    discriminator: Mapping[str, np.ndarray]
    unused: tuple[str, ...]
    unknown: tuple[str, ...]
    encoders: Mapping[str, int]


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
    rest = _nested(_unwrapped(state))
    key = next((name for name in _GENERATORS if _is_network(rest.get(name))), "")
    network = rest.pop(key) if key else rest
    tensors, others = _tensors(network, key, path)
    fmt = next((fmt for fmt in FORMATS if fmt.signature in tensors), None)
    if fmt is None:
        found = listed(map(str, tensors or state)) or "nothing"
        raise UserError(f"{path}: no StyleGAN2 generator, found {found}; {_EXPECTED}")
    rest = rest if key else {}
    encoders = {name: len(rest.pop(name)) for name in _ENCODERS if _is_network(rest.get(name))}
    mean = tensors.pop(fmt.mean, None)
    mean = rest.pop(fmt.mean, None) if mean is None else mean
    critic = next((name for name in _DISCRIMINATORS if _is_network(rest.get(name))), None)
    discriminator, more = _tensors(rest.pop(critic), critic, path) if critic else ({}, ())
    names = [str(name) for name, value in rest.items() if value is not None]
    names += [*others, *more]
    strange = [name for name, value in rest.items() if isinstance(value, np.ndarray)]
    if strange:
        raise UserError(f"{path}: unknown tensors, nothing converted: {listed(strange)}")
    known = (*_GENERATORS, *_DISCRIMINATORS, *_OF_TRAINING)
    return Source(
        path,
        fmt,
        key,
        tensors,
        mean,
        _clamp(network, fmt, path),
        isinstance(network, Record),
        discriminator,
        tuple(sorted(name for name in names if name in known)),
        tuple(sorted(name for name in names if name not in known)),
        encoders,
    )


def _is_network(value: Any) -> bool:
    return isinstance(value, Record) or (isinstance(value, Mapping) and len(value) > 0)


def _unwrapped(state: Mapping) -> Mapping:
    """Returns `state` with the tensors of an encoder's checkpoint (pSp, e4e) beside the rest."""
    inner = state.get("state_dict")
    if not isinstance(inner, Mapping):
        return state
    inner = {str(name).removeprefix("module."): value for name, value in inner.items()}
    if not any(name.startswith("decoder.") for name in inner):
        return state
    return {**{name: value for name, value in state.items() if name != "state_dict"}, **inner}


def _nested(state: Mapping) -> dict[Any, Any]:
    """Returns `state` with the networks of a flat file ("g_ema.style.1.weight") as dicts."""
    nested: dict[Any, Any] = {}
    networks: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        start, dot, end = str(name).partition(".")
        if dot and start in (*_GENERATORS, *_DISCRIMINATORS, *_ENCODERS):
            networks.setdefault(start, {})[end] = value
        else:
            nested[name] = value
    return {**nested, **networks}


def _tensors(network: Any, key: str, path: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns (tensors by name, names of what is no tensor) of a state dict or pickled module."""
    if isinstance(network, Record):
        parts = _variables(network, "", path) if "variables" in network.state else _weights(network)
        return dict(parts), ()
    arrays = {str(name): value for name, value in network.items() if isinstance(value, np.ndarray)}
    others = tuple(f"{key}.{name}".strip(".") for name in network if str(name) not in arrays)
    if arrays and all(name.startswith("module.") for name in arrays):  # DataParallel's
        arrays = {name.removeprefix("module."): value for name, value in arrays.items()}
    return arrays, others


def _weights(network: Record) -> Iterator[tuple[str, np.ndarray]]:
    for path, module in _modules(network, ""):
        for group in ("_parameters", "_buffers"):
            for name, value in _mapping(module.state.get(group)).items():
                if isinstance(value, np.ndarray):
                    yield f"{path}{name}", value


def _modules(module: Record, path: str) -> Iterator[tuple[str, Record]]:
    """Yields ("synthesis.b4.", module) for a pickled PyTorch module and all modules in it."""
    yield path, module
    for name, inner in _mapping(module.state.get("_modules")).items():
        if isinstance(inner, Record):
            yield from _modules(inner, f"{path}{name}.")


def _variables(network: Any, prefix: str, path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) for a pickled dnnlib network: its own variables, then components'."""
    pairs = network.state.get("variables") if isinstance(network, Record) else None
    if not isinstance(pairs, list) or not all(_is_variable(pair) for pair in pairs):
        raise UserError(f"{path}: {shown(prefix) or 'a network'} without variables; {_EXPECTED}")
    for name, value in pairs:
        yield f"{prefix}{name}", np.asarray(value)
    for name, inner in _mapping(network.state.get("components")).items():
        yield from _variables(inner, f"{prefix}{name}/", path)


def _is_variable(pair: Any) -> bool:
    return (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], (np.ndarray, np.number, int, float))
    )


def _clamp(network: Any, fmt: Format, path: str) -> float | None:
    """Returns the bound of the layers' outputs, after a check that they compute what ours do."""
    if not isinstance(network, Record):
        return None
    if fmt is not NVIDIA:
        found = [_check_tensorflow(network, path)]
    else:
        found = _check_nvidia(network, path)
    for value in found:
        number = isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        if value is not None and not number:
            raise UserError(f"{path}: conv_clamp is {shown(value)}, expected a number above 0")
    if len(set(found)) > 1:
        raise UserError(f"{path}: layers with different conv_clamp; expected one for all")
    return float(found[0]) if found and found[0] is not None else None


def _check_nvidia(network: Record, path: str) -> list[Any]:
    """Returns the clamp of every layer that states one; raises UserError as `_check` does."""
    clamps = []
    for name, module in _modules(network, ""):
        state, weight = module.state, _mapping(module.state.get("_parameters")).get("weight")
        expected: dict[str, Any] = {"architecture": "skip", "use_noise": True}
        expected["act_gain"] = math.sqrt(2)
        if isinstance(weight, np.ndarray):  # factors of the equalised learning rate
            rate = 0.01 if name.startswith("mapping.fc") else 1.0
            expected["weight_gain"] = rate / math.sqrt(max(1, math.prod(weight.shape[1:])))
            expected["bias_gain"] = rate
        linear = name.endswith(("affine.", "embed."))
        expected["activation"] = "linear" if linear else "lrelu"
        for setting, value in expected.items():
            _check(path, f"{name}{setting}", state.get(setting, value), value)
        if "conv_clamp" in state:
            clamps.append(state["conv_clamp"])
    return clamps


def _check_tensorflow(network: Record, path: str) -> Any:
    """Returns the clamp of the layers; raises UserError as `_check` does."""
    settings = _mapping(network.state.get("static_kwargs"))
    expected = {
        "architecture": "skip",
        "nonlinearity": "lrelu",
        "mapping_nonlinearity": "lrelu",
        "mapping_lrmul": 0.01,
        "normalize_latents": True,
        "use_noise": True,
        "resample_kernel": [1, 3, 3, 1],
    }
    for name, value in expected.items():
        _check(path, name, settings.get(name, value), value)
    return settings.get("conv_clamp")


def _check(path: str, name: str, found: Any, expected: Any) -> None:
    """Raises UserError unless a setting is what our own modules have built in."""
    if isinstance(expected, float):
        same = isinstance(found, (int, float)) and math.isclose(found, expected, rel_tol=1e-5)
    else:
        same = type(found) is type(expected) and found == expected
    if not same:
        raise UserError(
            f"{path}: {shown(name)} is {shown(found)}, expected {expected}; not converted, since "
            "it would draw other pictures"
        )


def _mapping(value: Any) -> Mapping:
    return value if isinstance(value, Mapping) else {}
