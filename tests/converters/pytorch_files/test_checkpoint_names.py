"""What names in checkpoints mean, called with what they expect and with what they do not."""

import math

import numpy as np
import pytest

from repgan_jax.converters.pytorch_files.checkpoint_names import STORAGES, Storage, meanings
from repgan_jax.converters.pytorch_files.pickle_data import Symbol, Unbuilt
from repgan_jax.converters.pytorch_files.plain_data import Allowance, Record

TABLE = meanings(Allowance(0), lambda content: content)
DTYPE_STATE = (3, "<", None, None, None, -1, -1, 0)
ARRAY, NDARRAY = Symbol("numpy.core.multiarray", "_reconstruct"), Symbol("numpy", "ndarray")
TENSOR = Symbol("torch._utils", "_rebuild_tensor_v2")
NAME = Symbol("argparse", "Namespace")  # stands for any name, where data belong
F4 = np.dtype("<f4")


def mean(module, name, *arguments, table=TABLE):
    return table[Symbol(module, name)](*arguments)


def build_array(shape, data, dtype=F4, by_columns=False):
    return TABLE[ARRAY](NDARRAY, (0,), b"b").build((1, shape, dtype, by_columns, data))


def test_no_meaning_is_a_class_or_function_that_a_pickle_could_misuse():
    for symbol, meaning in TABLE.items():
        if callable(meaning):
            inner = getattr(meaning, "func", meaning)
            assert inner.__module__ in (
                "repgan_jax.converters.pytorch_files.checkpoint_names",
                __name__,
            ), symbol


def test_containers():
    assert mean("collections", "OrderedDict") == {}
    assert mean("collections", "OrderedDict", [["a", 1], ("b", 2)]) == {"a": 1, "b": 2}
    assert mean("dnnlib.util", "EasyDict", {"a": 1}) == {"a": 1}
    assert mean("builtins", "set", [1, "a"]) == {1, "a"}
    assert mean("__builtin__", "frozenset", [1]) == frozenset([1])
    assert mean("builtins", "bytes") == b""
    assert mean("torch", "Size", (1, 2)) == (1, 2)
    assert mean("torch", "device", "cuda", 1) == "cuda:1"
    assert mean("_codecs", "encode", "a\xff", "latin1") == b"a\xff"
    assert TABLE[Symbol("torch", "float32")] == "torch.float32"
    lightning = Symbol("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    assert TABLE[lightning] == str(lightning)


def test_objects_are_records_and_their_source_is_dropped():
    meta = {"class_name": "Generator", "module_src": "raise SystemExit", "state": {"z_dim": 8}}
    found = mean("torch_utils.persistence", "_reconstruct_persistent_obj", meta)
    assert found == Record("Generator", {"z_dim": 8})
    network = mean("dnnlib.tflib.network", "Network")
    assert network == Record("dnnlib.tflib.network.Network", {})
    assert mean("argparse", "Namespace").state is not mean("argparse", "Namespace").state


@pytest.mark.parametrize("kind", ["b1", "i1", "i2", "i4", "i8", "u1", "u4", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays(kind, order):
    dtype = mean("numpy", "dtype", kind, False, True).build((3, order, *DTYPE_STATE[2:]))
    expected = np.arange(6).reshape(2, 3).astype(dtype)
    assert dtype == np.dtype(order + kind)
    for data in (expected.tobytes(), expected.tobytes().decode("latin-1")):
        np.testing.assert_array_equal(build_array((2, 3), data, dtype), expected, strict=True)
    by_columns = expected.T.tobytes()
    np.testing.assert_array_equal(build_array((2, 3), by_columns, dtype, True), expected)
    found = mean("numpy._core.numeric", "_frombuffer", by_columns, dtype, (2, 3), "F")
    np.testing.assert_array_equal(found, expected)
    assert mean("numpy._core.multiarray", "scalar", dtype, expected[0, 1:2].tobytes()) == 1
    assert build_array((0, 3), b"", dtype).shape == (0, 3)


@pytest.mark.parametrize(
    "kind", ["O", "object", "S8", "U4", "V8", "c8", "M8", "f4,O", "(2,)f4", F4]
)
def test_numpy_types_are_of_numbers(kind):
    with pytest.raises(ValueError, match="not of numbers"):
        mean("numpy", "dtype", kind, False, True)


@pytest.mark.parametrize(
    "state",
    [
        None,
        (),
        (3, "<"),
        (3, "O", None, None, None),
        (3, "<O", None, None, None),
        (3, 1, None, None, None),
        (3, "<", "f4", None, None),
        (3, "|", None, ("a",), {"a": 1}),
        list(DTYPE_STATE),
    ],
)
def test_the_state_of_a_numpy_type_is_its_byte_order_alone(state):
    with pytest.raises(ValueError, match="NumPy type|byte order"):
        mean("numpy", "dtype", "f4", False, True).build(state)


@pytest.mark.parametrize(
    ("shape", "data", "dtype"),
    [
        ((2,), bytes(7), F4),
        ((2,), bytes(9), F4),
        ((), b"", F4),
        ((-1, -2), bytes(8), F4),
        ((2**62, 4), b"", F4),
        ((2**63,), bytes(8), F4),
        ((1,) * 33, bytes(4), F4),
        ((True,), bytes(4), F4),
        ([2], bytes(8), F4),
        (2, bytes(8), F4),
        ((2,), [0] * 8, F4),
        ((2,), np.zeros(8, "u1"), F4),
        ((2,), "Ā" * 8, F4),
        ((2,), bytes(8), "f4"),
        ((2,), bytes(8), None),
        ((2,), bytes(8), Unbuilt(len)),
        ((2,), bytes(8), NAME),
    ],
)
def test_arrays_are_refused_unless_all_fits(shape, data, dtype):
    for make in (
        lambda: build_array(shape, data, dtype),
        lambda: mean("numpy.core.numeric", "_frombuffer", data, dtype, shape, "C"),
    ):
        with pytest.raises(ValueError, match="array|shape|latin-1"):
            make()


def test_arrays_are_of_no_other_class_and_state():
    for kind in (NAME, "ndarray", None, Symbol("numpy", "memmap")):
        with pytest.raises(ValueError, match="odd class"):
            TABLE[ARRAY](kind, (0,), b"b")
    for state in (None, (), [1, (), F4, False, bytes(4)], (1, (), F4, False, bytes(4), "more")):
        with pytest.raises(ValueError, match="odd state"):
            TABLE[ARRAY](NDARRAY, (0,), b"b").build(state)
    for order in ("A", None, 1):
        with pytest.raises(ValueError, match="odd order"):
            mean("numpy.core.numeric", "_frombuffer", bytes(4), F4, (), order)
    with pytest.raises(ValueError, match="in 8 bytes"):
        mean("numpy.core.multiarray", "scalar", F4, bytes(8))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("collections.OrderedDict", (NAME,)),
        ("collections.OrderedDict", (len,)),
        ("collections.OrderedDict", ("abcd",)),
        ("collections.OrderedDict", ([NAME],)),
        ("collections.OrderedDict", ([[(), 1]],)),
        ("collections.OrderedDict", ([[1, 2, 3]],)),
        ("builtins.set", ("abc",)),
        ("builtins.set", ([()],)),
        ("builtins.frozenset", ([[]],)),
        ("torch_utils.persistence._reconstruct_persistent_obj", (None,)),
        ("torch_utils.persistence._reconstruct_persistent_obj", ({"state": {}},)),
        (
            "torch_utils.persistence._reconstruct_persistent_obj",
            ({"class_name": NAME, "state": {}},),
        ),
        (
            "torch_utils.persistence._reconstruct_persistent_obj",
            ({"class_name": "G", "state": []},),
        ),
        ("torch.Size", ([1],)),
        ("torch.Size", (("a",),)),
        ("torch.device", (NAME,)),
        ("torch.device", ("cuda", "0")),
        ("_codecs.encode", ("a", "rot13")),
        ("_codecs.encode", ("a", NAME)),
        ("_codecs.encode", (b"a", "latin1")),
        ("_codecs.encode", ("Ā", "latin1")),
        ("torch._utils._rebuild_parameter", (NAME,)),
        ("torch._utils._rebuild_parameter", ([],)),
        ("torch._utils._rebuild_tensor", (np.zeros(4), 0, (), ())),
        ("torch._utils._rebuild_tensor_v2", (NAME, 0, (), ())),
    ],
)
def test_refuses_arguments_of_another_kind(name, arguments):
    with pytest.raises(ValueError):
        mean(*name.rsplit(".", 1), *arguments)


def test_copies_are_paid_for_however_often_they_are_asked_for():
    big = [[i, i] for i in range(10_000)]
    for name, arguments in (
        ("collections.OrderedDict", (big,)),
        ("collections.OrderedDict", (dict(big),)),
        ("builtins.set", (list(range(10_000)),)),
        ("_codecs.encode", ("x" * 1_000_000, "latin1")),
        ("numpy.core.multiarray.scalar", (F4, "x" * 1_000_000)),
    ):
        table = meanings(Allowance(0), len)
        with pytest.raises(ValueError, match="far more than its size"):
            for _ in range(200):
                try:
                    mean(*name.rsplit(".", 1), *arguments, table=table)
                except ValueError as error:
                    if "bytes" not in str(error):
                        raise


@pytest.mark.parametrize("dtype", STORAGES.values())
def test_tensors_are_views(dtype):
    data = np.arange(12).astype(dtype)
    storage = Storage(dtype, 12, memoryview(data.tobytes()))
    found = TABLE[TENSOR](storage, 1, (2, 3), (1, 4), False, {})
    expected = np.lib.stride_tricks.as_strided(
        data[1:], (2, 3), (dtype.itemsize, 4 * dtype.itemsize)
    )
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    assert not found.flags.owndata and not found.flags.writeable
    assert TABLE[TENSOR](storage, 12, (0, 3), (3, 1)).shape == (0, 3)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (4, (1,), (1,)),
        (0, (2, 2), (4, 1)),
        (0, (2, 2), (2,)),
        (0, (1 << 40,), (0,)),
        (0, (5,), (0,)),
        (0, (3, 3), (1, 1)),
        (0, (2**62, 2**62), (0, 0)),
        (2**62, (1,), (1,)),
        (0, (2,), (2**62,)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (-2, -2), (1, 1)),
        (0, (2**63,), (0,)),
        (0.0, (1,), (1,)),
        (0, (True,), (1,)),
        (0, [1], [1]),
        (0, (1,) * 33, (1,) * 33),
        (0, ((1,),), (1,)),
    ],
)
def test_tensors_stay_inside_their_storage(offset, shape, strides):
    storage = Storage(F4, 4, memoryview(bytes(16)))
    assert TABLE[TENSOR](storage, 3, (1,), (1,)) == 0
    with pytest.raises(ValueError, match="outside its storage|strides|shape|offset"):
        TABLE[TENSOR](storage, offset, shape, strides, False, {})


def test_not_a_number_survives():
    assert math.isnan(mean("numpy.core.multiarray", "scalar", F4, b"\x00\x00\xc0\x7f"))
