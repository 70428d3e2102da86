"""What may come out of a checkpoint, and that walking it is always easy."""

import numpy as np
import pytest

from repgan_jax.converters.pytorch_files.plain_data import (
    Allowance,
    ByteReader,
    Record,
    check_result,
)


def nested(depth, wrap=lambda value: [value]):
    value = 0
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: [value],
        lambda value: (value,),
        lambda value: {"a": value},
    ],
)
def test_depth_is_bounded(wrap):
    check_result(nested(100, wrap))
    for depth in (101, 100_000):
        with pytest.raises(ValueError, match="nested deeper"):
            check_result(nested(depth, wrap))


def test_depth_is_that_of_the_deepest_way():
    shared = nested(60)
    check_result([shared, nested(39, lambda value: [value, shared])])
    with pytest.raises(ValueError, match="nested deeper"):
        check_result([shared, [nested(41, lambda value: [value or shared])]])


def test_nothing_holds_itself():
    values = [[], {}, Record("x", {})]
    values[0].append(values[0])
    values[1]["a"] = [values[1]]
    values[2].state["a"] = values[2]
    for value in values:
        with pytest.raises(ValueError, match="nested deeper|in itself"):
            check_result(value)


def test_sharing_cannot_make_a_small_file_endless():
    check_result(nested(15, lambda value: [value, value]))
    with pytest.raises(ValueError, match="more than 1000000 values"):
        check_result(nested(60, lambda value: [value, value]))


def test_only_plain_data_come_out():
    plain = [1, 1.5, "a", True, None, b"b", memoryview(b"c"), np.zeros(2), {1}, frozenset("d")]
    check_result({"all": plain, "record": Record("x", {"y": (1,)})})
    for value in (
        object(),
        len,
        int,
        1j,
        np.float32(1),
        np.dtype("f4"),
        type("Dict", (dict,), {})(),
    ):
        with pytest.raises(ValueError, match="that nothing uses"):
            check_result([{"a": value}])


def test_source_hands_out_views_and_knows_its_end():
    data = b"line\nrest"
    source = ByteReader(memoryview(data))
    assert source.readline() == b"line\n"
    again = source.copy()
    assert source.view(4).obj is data and source.left() == 0
    assert again.read(4) == b"rest"
    for count in (1, 1 << 40):
        with pytest.raises(ValueError, match="midst"):
            source.view(count)
    assert ByteReader(memoryview(b"x" * 5000 + b"\n.")).readline() == b"x" * 5000 + b"\n"


def test_allowance_ends():
    allowance = Allowance(10)
    allowance.spend(128 << 20)
    allowance.spend(20)
    with pytest.raises(ValueError, match="far more"):
        allowance.spend(1)
