"""What the names in checkpoints mean: each a function of ours, from plain data to plain data."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .pickle_data import Symbol, Unbuilt
from .plain_data import Allowance, Record, check_key, expect

STORAGES = {
    Symbol("torch", "FloatStorage"): np.dtype(np.float32),
    Symbol("torch", "DoubleStorage"): np.dtype(np.float64),
    Symbol("torch", "HalfStorage"): np.dtype(np.float16),
    Symbol("torch", "BFloat16Storage"): np.dtype(jnp.bfloat16),
    Symbol("torch", "LongStorage"): np.dtype(np.int64),
    Symbol("torch", "IntStorage"): np.dtype(np.int32),
    Symbol("torch", "ShortStorage"): np.dtype(np.int16),
    Symbol("torch", "CharStorage"): np.dtype(np.int8),
    Symbol("torch", "ByteStorage"): np.dtype(np.uint8),
    Symbol("torch", "BoolStorage"): np.dtype(np.bool_),
    Symbol("torch.storage", "UntypedStorage"): np.dtype(np.uint8),
}
# classes that stand as keys in checkpoints of PyTorch Lightning 1, which MobileStyleGAN's are
_KEYS = (Symbol("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),)
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_TORCH_TYPES = (*_FLOATS, "int8", "int16", "int32", "int64", "uint8", "bool")
_NUMPY_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_MOST_AXES = 32
_PER_ITEM = 128  # bytes of heap for an item of a set or dict, at most


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """The memory under tensors: `count` elements; no data yet where only the layout is read."""

    dtype: np.dtype
    count: int
    data: memoryview | None


def meanings(
    allowance: Allowance, load_from_bytes: Callable[[Any], Any]
) -> dict[Symbol, Callable | str | None]:
    """Returns the table that `pickle_data.load` takes.

    Args:
        allowance: what functions that copy spend from.
        load_from_bytes: reads a PyTorch file within a pickle, as NVIDIA's tensors are stored.
    """
    table: dict[Symbol, Callable | str | None] = dict.fromkeys(STORAGES)
    table |= {Symbol("torch", name): f"torch.{name}" for name in _TORCH_TYPES}
    table |= {key: str(key) for key in _KEYS}
    make_dict = functools.partial(_dict, allowance)
    table |= {
        Symbol("argparse", "Namespace"): functools.partial(_record, "argparse.Namespace"),
        Symbol("collections", "OrderedDict"): make_dict,
        Symbol("collections", "Counter"): make_dict,
        Symbol("dnnlib.util", "EasyDict"): make_dict,
        Symbol("dnnlib.tflib.network", "Network"): functools.partial(
            _record, "dnnlib.tflib.network.Network"
        ),
        Symbol("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
        Symbol("torch", "Size"): _size,
        Symbol("torch", "device"): _device,
        Symbol("torch._utils", "_rebuild_tensor"): _tensor,
        Symbol("torch._utils", "_rebuild_tensor_v2"): _tensor,
        Symbol("torch._utils", "_rebuild_parameter"): _parameter,
        Symbol("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        Symbol("torch.storage", "_load_from_bytes"): load_from_bytes,
        Symbol("numpy", "ndarray"): None,
        Symbol("numpy", "dtype"): _dtype,
        Symbol("_codecs", "encode"): functools.partial(_latin1, allowance),
        Symbol("copyreg", "_reconstructor"): None,
        Symbol("copy_reg", "_reconstructor"): None,
    }
    for module in ("builtins", "__builtin__"):
        table |= {
            Symbol(module, "set"): functools.partial(_set, allowance, set),
            Symbol(module, "frozenset"): functools.partial(_set, allowance, frozenset),
            Symbol(module, "dict"): make_dict,
            Symbol(module, "bytes"): _no_bytes,
            Symbol(module, "object"): None,
        }
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        table[Symbol("pathlib", name)] = _path
    for module in ("numpy.core", "numpy._core"):
        array = functools.partial(_new_array, allowance)
        table |= {
            Symbol(f"{module}.multiarray", "_reconstruct"): array,
            Symbol(f"{module}.multiarray", "scalar"): functools.partial(_scalar, allowance),
            Symbol(f"{module}.numeric", "_frombuffer"): _from_buffer,
        }
    return table


def _record(name: str) -> Record:
    return Record(name, {})


def _persistent_object(meta: Any) -> Record:
    """Returns an NVIDIA network; the Python source in its `module_src` is nothing to us."""
    expect(type(meta) is dict and type(meta.get("class_name")) is str, "an object without class")
    expect(type(meta.get("state")) is dict, "an object without state")
    return Record(meta["class_name"], meta["state"])


def _dict(allowance: Allowance, pairs: Any = ()) -> dict:
    """Returns a dict of another one, or of pairs, as Python 2 writes an OrderedDict."""
    expect(type(pairs) in (dict, list, tuple), "a dict of neither a dict nor pairs")
    allowance.spend(_PER_ITEM * len(pairs))
    if type(pairs) is dict:
        return dict(pairs)
    for pair in pairs:
        expect(type(pair) in (list, tuple) and len(pair) == 2, "a dict of what are no pairs")
        check_key(pair[0])
    return {key: value for key, value in pairs}  # noqa: C416


def _set(allowance: Allowance, kind: type, items: Any = ()) -> Any:
    expect(type(items) in (list, tuple), "a set of no list")
    allowance.spend(_PER_ITEM * len(items))
    for item in items:
        check_key(item)
    return kind(items)


def _path(*parts: Any) -> str:
    """Returns the path of a file, from arguments of the training, as text."""
    expect(all(type(part) is str for part in parts), "a path of what is no text")
    return "/".join(parts)


def _no_bytes() -> bytes:
    """Returns empty bytes: protocol 2 has a call for them."""
    return b""


def _latin1(allowance: Allowance, text: Any, encoding: Any) -> bytes:
    """Returns bytes that protocol 2 had to write as text."""
    expect(type(text) is str and encoding in ("latin1", "latin-1"), "a text that is not latin-1")
    allowance.spend(len(text))
    return text.encode("latin-1")


def _size(sizes: Any) -> tuple:
    return _sizes(sizes, "a torch.Size")


def _device(kind: Any, index: Any = None) -> str:
    expect(type(kind) is str and type(index) in (int, type(None)), "an odd device")
    return kind if index is None else f"{kind}:{index}"


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """Returns a view into `storage`, after checking that it lies inside."""
    expect(type(storage) is Storage, "a tensor without storage")
    _sizes((offset,), "an offset")
    _sizes(shape, "a shape")
    _sizes(strides, "strides")
    expect(len(shape) == len(strides), "a shape with other strides")
    last = offset + sum(stride * (n - 1) for n, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if not count or storage.data is None:
        return np.empty(shape if not count else 0, storage.dtype)
    # a stride of 0 could make a small storage look endless: hence the second comparison
    inside = last < storage.count and count <= storage.count
    expect(inside, f"a tensor {shape} outside its storage of {storage.count}")
    steps = [stride * storage.dtype.itemsize for stride in strides]
    start = offset * storage.dtype.itemsize
    return np.ndarray(shape, storage.dtype, storage.data, start, steps)


def _parameter(tensor: Any, *_: Any) -> np.ndarray:
    expect(type(tensor) is np.ndarray, "a parameter that is no tensor")
    return tensor


def _dtype(name: Any, *_: Any) -> Unbuilt:
    """Returns a NumPy type of numbers; BUILD brings its byte order."""
    expect(type(name) is str and name in _NUMPY_TYPES, "a NumPy type that is not of numbers")

    def build(state: Any) -> np.dtype:
        expect(type(state) is tuple and len(state) >= 5, "a NumPy type of odd state")
        expect(type(state[1]) is str and state[1] in ("<", ">", "|"), "an odd byte order")
        plain = all(item is None for item in state[2:5])
        expect(plain, "a NumPy type with fields")
        return np.dtype(name).newbyteorder(state[1])

    return Unbuilt(build)


def _new_array(allowance: Allowance, kind: Any, *_: Any) -> Unbuilt:
    """Returns a NumPy array that BUILD fills."""
    expect(kind == Symbol("numpy", "ndarray"), "an array of an odd class")

    def build(state: Any) -> np.ndarray:
        expect(type(state) is tuple and len(state) == 5, "an array of odd state")
        _, shape, dtype, by_columns, data = state
        return _array(_bytes(allowance, data), dtype, shape, "F" if by_columns is True else "C")

    return Unbuilt(build)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Returns a NumPy array as protocol 5 writes it."""
    expect(type(order) is str and order in ("C", "F"), "an array of odd order")
    return _array(data, dtype, shape, order)


def _scalar(allowance: Allowance, dtype: Any, data: Any) -> Any:
    return _array(_bytes(allowance, data), dtype, (), "C").item()


def _array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    expect(isinstance(dtype, np.dtype), "an array without type")
    expect(type(data) in (bytes, memoryview), "an array without bytes")
    _sizes(shape, "a shape")
    size = math.prod(shape) * dtype.itemsize
    expect(size == len(data), f"an array {shape} in {len(data)} bytes")
    return np.ndarray(shape, dtype, data, order=order)


def _bytes(allowance: Allowance, data: Any) -> Any:
    """Returns bytes as they are; text, as Python 2 writes them, encoded."""
    return _latin1(allowance, data, "latin-1") if type(data) is str else data


def _sizes(sizes: Any, what: str) -> tuple:
    """Returns `sizes`, a short tuple of non-negative 63-bit integers."""
    expect(type(sizes) is tuple and len(sizes) <= _MOST_AXES, f"{what} that is not a short tuple")
    for size in sizes:
        expect(type(size) is int and 0 <= size < 2**63, f"{what} of odd numbers")
    return sizes
