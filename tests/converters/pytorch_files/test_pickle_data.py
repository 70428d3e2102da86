"""The pickle machine: what it makes of data, and that it makes nothing else."""

import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from repgan_jax.converters.pytorch_files import pickle_data, plain_data
from repgan_jax.converters.pytorch_files.pickle_data import RefusedError, Symbol, Unbuilt
from repgan_jax.converters.pytorch_files.plain_data import Allowance, ByteReader, Record

PAIR, THING, MARKER = Symbol("our", "pair"), Symbol("our", "Thing"), Symbol("our", "marker")
MEANINGS = {
    PAIR: lambda a, b: [a, b],
    THING: lambda: Record("our.Thing", {}),
    Symbol("our", "late"): lambda: Unbuilt(lambda state: ("built", state)),
    Symbol("our", "float32"): "our.float32",
    MARKER: None,
    Symbol("copy_reg", "_reconstructor"): None,
    Symbol("copyreg", "_reconstructor"): None,
    Symbol("__builtin__", "object"): None,
}
SHARED = [1, "two"]
DATA = {
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**31, 2**80, -(2**300), 0.5, -1e300],
    "constants": (None, True, False),
    "texts": ["", "é", "\U0001f600", "line\nfeed", "x" * 300],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "shared": [SHARED, SHARED],
    3: {2.5: {None: {True: "keys"}}},
}


def load(content, persistent=None):
    return pickle_data.load(
        ByteReader(memoryview(content)), MEANINGS, Allowance(len(content)), persistent
    )


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


@pytest.mark.parametrize("protocol", range(6))
def test_reads_data_as_python_does(protocol):
    content = pickle.dumps(DATA, protocol)
    found = load(content)
    assert found == pickle.loads(content) == DATA
    assert found["shared"][0] is found["shared"][1]
    assert type(found["constants"][1]) is bool


@pytest.mark.parametrize("protocol", [4, 5])
def test_reads_sets_and_bytes(protocol):
    value = [{1, "a"}, frozenset((2.5, None)), b"short", b"long" * 100, b""]
    assert load(pickle.dumps(value, protocol)) == value
    assert load(pickle.dumps(bytearray(b"bytes"), 5)) == b"bytes"


def test_long_bytes_are_views():
    content = pickle.dumps(b"long" * 100)
    assert load(content).obj is content


def test_strings_of_python_2_are_latin_1():
    assert load(b"S'a\\xe9\\n'\np0\n.") == load(b"T\x03\x00\x00\x00a\xe9\n.") == "aé\n"
    assert load(b"U\x01\xff.") == "ÿ"


def test_goes_on_behind_the_pickle():
    source = ByteReader(memoryview(pickle.dumps(1) + pickle.dumps("b", 0) + b"rest"))
    loaded = [pickle_data.load(source, {}, Allowance(0)) for _ in range(2)]
    assert loaded == [1, "b"]
    assert source.read(source.left()) == b"rest"


ROUTES = {
    "reduce": b"c%b\n%b\n(K\x01K\x02tR.",
    "stack": b"X\x03\x00\x00\x00%bX%b\x93K\x01K\x02\x86R.",
    "new": b"\x80\x02c%b\n%b\nK\x01K\x02\x86\x81.",
    "new with names": b"\x80\x04c%b\n%b\nK\x01K\x02\x86}\x92.",
    "object": b"(c%b\n%b\nK\x01K\x02o.",
    "instance": b"(K\x01K\x02i%b\n%b\n.",
}


@pytest.mark.parametrize("route", ROUTES)
def test_every_kind_of_call_means_our_function_or_is_refused(route):
    def program(name):
        size = struct.pack("<I", len(name)) if route == "stack" else b""
        return ROUTES[route] % (b"our", size + name)

    assert load(program(b"pair")) == [1, 2]
    with pytest.raises(RefusedError, match=r"^our\.other$"):
        load(program(b"other"))
    with pytest.raises(RefusedError, match=r"a call of our\.marker"):
        load(program(b"marker"))


def test_a_name_is_two_strings_and_no_more():
    assert load(b"cour\npair\n.") == PAIR
    assert type(load(b"cour\npair\n.")) is Symbol
    assert load(b"cour\nfloat32\n.") == "our.float32"
    for program in (
        b"cour.pair\n\n.",
        b"c\nour.pair\n.",
        b"cour\npair.__globals__\n.",
        b"ca b\nc\n.",
    ):
        with pytest.raises(RefusedError):
            load(program)
    for program in (b"K\x01K\x02\x93.", text("our") + b"]\x93.", b"}K\x01\x93."):
        with pytest.raises(ValueError, match="not text"):
            load(program)


@pytest.mark.parametrize("target", [text("pair"), b"K\x01", b"}", b"N", text("our.pair"), b"(t"])
def test_only_names_are_called(target):
    with pytest.raises(ValueError, match="what is no name"):
        load(target + b"K\x01K\x02\x86R.")
    with pytest.raises(ValueError, match="what is no name"):
        load(b"cour\npair\n]R.")


def test_states_go_to_our_records_only():
    state = b"}" + text("x") + b"K\x01s"
    assert load(b"cour\nThing\n)\x81" + state + b"b.") == Record("our.Thing", {"x": 1})
    old = b"ccopy_reg\n_reconstructor\n(cour\nThing\nc__builtin__\nobject\nNtR"
    assert load(old + state + b"b.") == Record("our.Thing", {"x": 1})
    for program in (
        b"cour\nThing\n" + state + b"b.",  # the name itself
        b"]" + state + b"b.",
        b"cour\nThing\n)\x81" + state + b"b" + state + b"b.",
        b"cour\nThing\n)\x81K\x01b.",
        b"}" + state + b"b.",
    ):
        with pytest.raises(ValueError, match="state"):
            load(program)


def test_the_metadata_of_state_dicts_are_left_out():
    assert load(b"}" + text("w") + b"K\x01s}" + text("_metadata") + b"}sb.") == {"w": 1}


def test_what_is_built_late_is_built_wherever_the_memo_has_it():
    assert load(b"(cour\nlate\n)Rq\x05q\x07K\x03bh\x05h\x07t.") == (("built", 3),) * 3


def test_persistent_ids_go_to_their_handler():
    assert load(b"K\x07Q.", lambda key: ["stored", key]) == ["stored", 7]
    assert load(b"Pseven\n.", lambda key: ["stored", key]) == ["stored", "seven"]
    for program in (b"K\x07Q.", b"Pseven\n."):
        with pytest.raises(ValueError, match="id of a storage"):
            load(program)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b".", "stack"),
        (b"0.", "stack"),
        (b"2.", "stack"),
        (b"(K\x011.", "stack"),
        (b"(.", "stack"),
        (b"K\x01(\x85.", "stack"),
        (b"t.", "mark"),
        (b"1.", "mark"),
        (b"}(K\x01u.", "zip"),
        (b"K\x01K\x02s.", "stack"),
        (b"K\x01K\x02K\x03s.", "int where a dict"),
        (b"(K\x01a.", "stack"),
        (b"}K\x01a.", "dict where a list"),
        (b"](K\x01\x90.", "list where a set"),
        (b"h\x00.", "not stated"),
        (b"g7\n.", "not stated"),
        (b"j\xff\xff\xff\xff.", "not stated"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"]\x98.", "READONLY_BUFFER"),
        (b"\xff.", "no operation"),
        (b"\x8b\xff\xff\xff\x7f.", "text of"),
        (b"\x8b\xff\xff\xff\xff.", "long4"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "midst"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "text of"),
        (b"X\xff\xff\xff\xff.", "text of"),
        (b"\x8a\xff" + bytes(254) + b"\x01.", "bits"),
        (b"I" + b"9" * 5000 + b"\n.", "digits"),
        (b"L" + b"9" * 5000 + b"L\n.", "digits"),
        (b"F1.5", "line without end"),
        (b"I1\n", "midst"),
        (b"", "midst"),
        (b"\x80\x04\x95\x01", "midst"),
    ],
)
def test_refuses_what_no_pickler_writes(program, reason):
    with pytest.raises(ValueError, match=reason):
        load(program)


@pytest.mark.parametrize("key", [b")", b"]", b"}", b"(K\x01t", b"\x8f", b"cour\nmarker\n"])
@pytest.mark.parametrize("use", [b"}%bNs.", b"}(%bNu.", b"(%bNd.", b"\x8f(%b\x90.", b"(%b\x91."])
def test_keys_are_scalars(use, key):
    with pytest.raises(ValueError, match="a key of type"):
        load(use % key)
    assert load(use % b"K\x01") in ({1: None}, {1})


def test_keys_cannot_be_made_to_collide():
    large = b"\x8a\x09" + (2**61 - 1 << 3).to_bytes(9, "little")
    assert load(large + b".") == 2**61 - 1 << 3
    with pytest.raises(ValueError, match="a key of type int"):
        load(b"}" + large + b"Ns.")


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
def test_a_huge_memo_index_costs_no_memory(put):
    tracemalloc.start()
    try:
        assert load(b"}" + put + b".") == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "item", [b"]", b"}", b"\x8f", b"(", b"N", b"h\x00", b"h\x00\x85", b"cour\nThing\n)R", b"2"]
)
def test_heap_is_bounded_whatever_a_pickle_piles_up(item, monkeypatch):
    monkeypatch.setattr(plain_data, "_SPARE", 4 << 20)  # a 32nd of the real one, for speed
    content = b"]q\x00" + item * (150_000 // len(item))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="far more than its size"):
            load(content)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(content) + (4 << 20)
    finally:
        tracemalloc.stop()


def test_never_asks_numpy_arrays_for_their_truth():
    arrays = {"K": np.arange(3)}
    with pytest.raises(ValueError, match="by name"):
        load(b"cour\npair\n)K\x01Q\x92.", lambda _: arrays["K"])
