"""Damaged files, thousands of them: each ends in a value or in a UserError, cheaply."""

import argparse
import collections
import pickle
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
REAL = ("rosinality_32_map2.pt", "nvidia_ada_32_cond_nosource.pkl")
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
SPARE = 256 << 20
WEIGHTS = {"w": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "f2")}


def written(folder, kind):
    """Returns a small sound file of one of the formats."""
    path = folder / "whole"
    if kind in REAL:
        path = GOLDEN / kind
    elif kind == "zip":
        torch_file.write(path, {"g_ema": WEIGHTS, "args": [1, 2.5, "text", None, (True,)]})
    elif kind == "safetensors":
        safetensors.numpy.save_file(WEIGHTS, path)
    elif kind == "legacy":
        path.write_bytes(legacy())
    else:
        state = {**WEIGHTS, "n": np.float64(1), "set": {1}, "bytes": b"\xff" * 300, "": [b"", "x"]}
        state |= {"args": argparse.Namespace(size=64), "o": collections.OrderedDict(a=(1, 2, 3, 4))}
        path.write_bytes(pickle.dumps(state, int(kind[-1])))
    return bytearray(path.read_bytes())


def legacy():
    """Returns a legacy file of {"w": a tensor of two elements}."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x02\x85K\x01\x85\x89NtR"
    head = [MAGIC, pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    body = [
        b"\x80\x02}U\x01w" + tensor + b"s.",
        pickle.dumps(["0"], 2),
        struct.pack("<q2f", 2, 1, 2),
    ]
    return b"".join(head + body)


def without_checksums(content):
    """Returns a zip file whose checksums are left out, so that damage gets past them."""
    for entry in re.finditer(b"PK\x01\x02", content):
        content[entry.start() + 16 : entry.start() + 20] = bytes(4)
    return content


SMALL = ["zip", "legacy", "safetensors", *(f"pickle {protocol}" for protocol in range(6))]


@pytest.mark.parametrize(
    "kind", ["zip", "legacy", "safetensors", "pickle 0", "pickle 2", "pickle 5"]
)
def test_refuses_every_truncation(kind, tmp_path, watched_read):
    whole = written(tmp_path, kind)
    path = tmp_path / "cut"
    path.write_bytes(whole)
    assert watched_read(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut: "):
            watched_read(path)


@pytest.mark.parametrize("kind", REAL)
def test_refuses_truncations_of_real_files(kind, tmp_path, watched_read):
    whole = written(tmp_path, kind)
    path = tmp_path / "cut"
    lengths = np.random.default_rng(0).integers(0, len(whole), 20)
    for length in (*range(0, 200, 3), *lengths, *range(len(whole) - 100, len(whole), 10)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut: "):
            watched_read(path)


@pytest.mark.parametrize("kind", ["legacy", "safetensors", "zip"])
def test_refuses_bytes_behind_the_end(kind, tmp_path, watched_read):
    path = tmp_path / "long"
    path.write_bytes(written(tmp_path, kind) + b".")
    with pytest.raises(UserError, match="corrupt"):
        watched_read(path)


LENGTHS = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
PLACES = st.floats(0, 1, exclude_max=True)  # shares, since the length changes on the way
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(st.just("set"), PLACES, st.integers(0, 255)),
        st.tuples(st.just("length"), PLACES, st.sampled_from(LENGTHS), st.sampled_from([2, 4, 8])),
        st.tuples(st.just("delete"), PLACES, st.integers(1, 64)),
        st.tuples(st.just("repeat"), PLACES, st.integers(1, 64)),
        st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=12)),
        st.tuples(st.just("copy"), PLACES, PLACES, st.integers(1, 64)),
    ),
    min_size=1,
    max_size=4,
)


def mutate(content, structure, mutations):
    """Returns `content` after mutations at a share of its way, or of the bytes in `structure`."""

    def find(share):
        share *= 2  # half of the mutations anywhere, half where the structure is
        if share < 1:
            return int(share * len(content))
        return min(structure[int((share - 1) * len(structure))], len(content) - 1)

    for kind, share, value, *more in mutations:
        place = find(share) if content else 0
        if kind == "flip":
            content[place : place + 1] = bytes(c ^ (1 << value) for c in content[place : place + 1])
        elif kind == "set":
            content[place : place + 1] = bytes([value])
        elif kind == "length":
            number = (value % 256 ** more[0]).to_bytes(more[0], "little")
            content[place : place + more[0]] = number
        elif kind == "delete":
            del content[place : place + value]
        elif kind == "repeat":
            content[place:place] = content[place : place + value]
        elif kind == "insert":
            content[place:place] = value
        elif content:
            source = find(value)
            content[place : place + more[0]] = content[source : source + more[0]]
    return content


def structure_of(content):
    """Returns places in `content` that are not weights: around its headers and texts."""
    marks = re.finditer(rb"PK[\x01-\x07][\x02-\x08]|[A-Za-z_]{4,}|\x80[\x02-\x05]", content)
    return [place for mark in marks for place in range(mark.start(), mark.end() + 6)]


def outcome(path, content, read):
    """Returns whether `content` is refused, after checking that this costs what it may."""
    path.write_bytes(content)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        read(path)
        refused = False
    except UserError as error:
        assert len(str(error)) < 500 + len(str(path)) and "\n" not in str(error)
        refused = True
    assert tracemalloc.get_traced_memory()[1] - before < 2 * len(content) + SPARE
    return refused


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SMALL, *REAL])
def test_mutations_end_in_a_value_or_a_user_error(kind, tmp_path, watched_read):
    whole = without_checksums(written(tmp_path, kind))
    structure = structure_of(whole)
    refused = []

    @settings(
        max_examples=10 if kind in REAL else 60,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(MUTATIONS)
    def check(mutations):
        content = mutate(bytearray(whole), structure, mutations)
        refused.append(outcome(tmp_path / "bad", content, watched_read))

    tracemalloc.start()
    try:
        check()
    finally:
        tracemalloc.stop()
    assert sum(refused) > len(refused) // 4


def test_whole_files_pass_the_same_check(tmp_path, watched_read):
    for kind in (*SMALL, *REAL):
        content = without_checksums(written(tmp_path, kind))
        assert not outcome(tmp_path / "good", content, watched_read)
    with zipfile.ZipFile(GOLDEN / REAL[0]) as archive:
        assert archive.testzip() is None  # only the copies lack their checksums
