"""Hostile files: each is refused for the reason it should be, and nothing in it runs."""

import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from repgan_jax.errors import UserError

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def as_pickle(program):
    return b"\x80\x04" + program


def as_zip(program):
    """A PyTorch file; checksums left out, so that mutations get past them."""
    head = struct.pack("<5H3I", 20, 0, 0, 0, 0, 0, len(program), len(program))
    name = b"net/data.pkl"
    body = b"PK\x03\x04" + head + struct.pack("<2H", len(name), 0) + name + program
    directory = b"PK\x01\x02" + struct.pack("<H", 20) + head
    directory += struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(body), 0)
    return body + directory + end


def as_legacy(program, keys=()):
    head = [pickle.dumps(item, 2) for item in (1001, {"little_endian": True})]
    return b"".join((MAGIC, *head, program, pickle.dumps(list(keys), 2)))


def as_nested(program):
    """A legacy file in a pickle, as NVIDIA's tensors are."""
    inner = as_legacy(program)
    return call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(inner)) + inner)


ALL = (as_pickle, as_zip, as_legacy, as_nested)


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call(module, attribute, *arguments):
    return b"\x80\x02" + name(module, attribute) + b"(" + b"".join(arguments) + b"tR."


def part(program):
    """Returns what a program pushes, without its frame."""
    return program.removeprefix(b"\x80\x02").removesuffix(b".")


@pytest.mark.parametrize(
    "harm", [lambda _: Path(__file__).read_bytes(), lambda _: compile("1", "", "eval")]
)
def test_the_watcher_sees_harm(harm, tmp_path, watched_read):
    with pytest.raises(AssertionError):
        watched_read(tmp_path / "net.pt", harm)


FORBIDDEN = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "open"),
    ("builtins", "__import__"),
    ("__builtin__", "eval"),
    ("__builtin__", "apply"),
    ("subprocess", "Popen"),
    ("runpy", "run_path"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("pickle", "loads"),
    ("torch", "load"),
    ("torch", "os.system"),
    ("torch.os", "system"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("torch", "_utils._rebuild_tensor_v2"),
    ("collections", "OrderedDict.__init__.__globals__"),
    ("collections.OrderedDict", "update"),
    ("numpy", "load"),
    ("numpy.core.multiarray", "fromfile"),
    ("torch_utils.persistence", "exec"),
    ("argparse", "_os.system"),
]
ROUTES = {
    "reduce": lambda where, what: name(where, what) + b"(" + text("touch hostile") + b"tR.",
    "stack": lambda where, what: text(where) + text(what) + b"\x93)R.",
    "new": lambda where, what: name(where, what) + b")\x81.",
    "object": lambda where, what: b"(" + name(where, what) + text("touch hostile") + b"o.",
    "instance": lambda where, what: b"(" + text("x") + b"i" + name(where, what)[1:] + b".",
    "value": lambda where, what: b"}" + text("a") + name(where, what) + b"s.",
    "argument": lambda where, what: call("collections", "OrderedDict", name(where, what)),
    "state": lambda where, what: name("argparse", "Namespace") + b")R" + name(where, what) + b"b.",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("module", "attribute"), FORBIDDEN)
def test_refuses_names_however_they_are_used(
    module, attribute, route, tmp_path, monkeypatch, watched_read
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pt"
    for wrap in ALL:
        path.write_bytes(wrap(ROUTES[route](module, attribute)))
        with pytest.raises(UserError) as caught:
            watched_read(path)
        found = str(caught.value)
        assert found.startswith(f"{path}: refused: it asks for {module}.{attribute}, which a")
        assert "nothing in it was run. Take the file from a source you trust" in found
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.pt"]


def stored(kind=b"ctorch\nFloatStorage\n", key=b"U\x010", count=b"K\x00", view=b""):
    return b"(" + text("storage") + kind + key + text("cpu") + count + view + b"tQ"


def tensor(storage=None, offset=b"K\x00", shape=b"K\x00\x85", strides=b"K\x01\x85"):
    storage = stored() if storage is None else storage
    return call("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, b"\x89N")


ANYWHERE = {
    "an OrderedDict of a function": (
        call("collections", "OrderedDict", name("argparse", "Namespace")),
        "neither a dict nor pairs",
    ),
    "an OrderedDict of functions": (
        call("collections", "OrderedDict", b"(" + name("argparse", "Namespace") + b"l"),
        "no pairs",
    ),
    "an OrderedDict with a tuple for a key": (
        call("collections", "OrderedDict", b"((tK\x01\x86l"),
        "key of type tuple",
    ),
    "methods set on an OrderedDict": (
        call("collections", "OrderedDict")[:-1] + b"}" + text("update") + b"K\x01sb.",
        "state for a dict",
    ),
    "a set of lists": (call("builtins", "set", b"(]l"), "key of type list"),
    "a set of a text": (call("builtins", "set", text("abc")), "set of no list"),
    "a frozenset of tuples": (b"(N\x85\x91.", "key of type tuple"),
    "a parameter of a name": (
        call("torch._utils", "_rebuild_parameter", name("argparse", "Namespace"), b"\x89N"),
        "no tensor",
    ),
    "a tensor of a name": (
        call("torch._utils", "_rebuild_tensor_v2", name("argparse", "Namespace"), b"K\x00))\x89N"),
        "without storage",
    ),
    "too few arguments": (call("torch._utils", "_rebuild_tensor_v2"), "TypeError.*argument"),
    "lists, twenty thousand deep": (b"]" * 20_000 + b"a" * 19_999, "nested deeper"),
    "tuples, twenty thousand deep": (b")" + b"\x85" * 20_000, "nested deeper"),
    "dicts, ten thousand deep": (b"}N" * 10_000 + b"N" + b"s" * 10_000, "nested deeper"),
    "a list in itself": (b"]q\x00h\x00a.", "in itself"),
    "a dict in itself": (b"}q\x00(Nh\x00u.", "in itself"),
    "a record in itself": (
        name("argparse", "Namespace") + b")Rq\x00}" + text("a") + b"h\x00sb.",
        "in itself",
    ),
    "endless by sharing": (b"N" + b"2\x86" * 64 + b".", "more than 1000000 values"),
    "tuples as a key, endless to hash": (b"}N" + b"2\x86" * 64 + b"Ns.", "key of type tuple"),
    "a name with a line feed": (text("os\nmoved") + text("sys\x1b[2Jtem") + b"\x93.", r"os\?moved"),
    "a name without end": (text("os" * 5000) + text("x") + b"\x93.", r"osos\.\.\., which"),
}
ANYWHERE = {
    key: (program if program.endswith(b".") else program + b".", reason)
    for key, (program, reason) in ANYWHERE.items()
}


@pytest.mark.parametrize("trick", ANYWHERE)
def test_refuses_tricks_with_allowed_names(trick, tmp_path, watched_read):
    program, reason = ANYWHERE[trick]
    path = tmp_path / "net.pt"
    for wrap in ALL:
        path.write_bytes(wrap(program))
        with pytest.raises(UserError, match=reason) as caught:
            watched_read(path)
        assert len(str(caught.value)) < 500 + len(str(path))
        assert str(caught.value).isprintable()


LARGE = b"\x8a\x08" + (2**62).to_bytes(8, "little")
MINUS = b"J\xff\xff\xff\xff"
TENSORS = {
    "another kind of id": (tensor(b"(" + text("module") + b"NNNK\x00tQ"), "not of a storage"),
    "an id of a list": (tensor(b"]Q"), "odd id"),
    "an id of two": (tensor(text("storage") + b"K\x00\x86Q"), "odd id"),
    "an id of text": (tensor(b"Pstorage\n"), "odd id"),
    "an unknown type": (tensor(stored(kind=text("FloatStorage"))), "odd type"),
    "a type that is no storage": (tensor(stored(kind=name("argparse", "Namespace"))), "odd type"),
    "a key that is no text": (tensor(stored(key=b"K\x00")), "odd size"),
    "a negative count": (tensor(stored(count=MINUS)), "odd size"),
    "a truth for a count": (tensor(stored(count=b"\x89")), "odd size"),
    "part of another storage": (tensor(stored(view=b"(t")), "part of another"),
    "a storage as a value": (stored() + b".", "Storage that nothing uses"),
    "a key of two types": (
        b"(" + stored() + stored(kind=b"ctorch\nLongStorage\n") + b"l.",
        "two types or sizes",
    ),
    "a key of two sizes": (b"(" + stored() + stored(count=b"K\x01") + b"l.", "two types or sizes"),
    "a negative offset": (tensor(offset=MINUS), "odd numbers"),
    "a negative stride": (tensor(strides=MINUS + b"\x85"), "odd numbers"),
    "a negative size": (tensor(shape=MINUS + b"\x85"), "odd numbers"),
    "a size beyond 64 bits": (tensor(shape=b"\x8a\x09" + bytes(8) + b"\x01\x85"), "odd numbers"),
    "more sizes than strides": (tensor(shape=b"K\x01K\x01\x86"), "other strides"),
    "33 axes": (
        tensor(shape=b"(" + b"K\x01" * 33 + b"t", strides=b"(" + b"K\x01" * 33 + b"t"),
        "short",
    ),
    "a list for a shape": (tensor(shape=b"]"), "short tuple"),
    "one element of none": (tensor(shape=b"K\x01\x85"), "outside its storage"),
    "no stride, no end": (
        tensor(shape=LARGE + b"\x85", strides=b"K\x00\x85"),
        "outside its storage",
    ),
    "a product beyond 64 bits": (
        tensor(shape=LARGE + LARGE + b"\x86", strides=b"K\x00K\x00\x86"),
        "outside its storage",
    ),
}


@pytest.mark.parametrize("trick", TENSORS)
def test_refuses_tricks_with_storages(trick, tmp_path, watched_read):
    program, reason = TENSORS[trick]
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", program)
        archive.writestr("net/data/0", b"")
    with pytest.raises(UserError, match=reason):
        watched_read(path)
    for wrap in (lambda program: as_legacy(program, ["0"]) + bytes(8), as_pickle):
        path.write_bytes(wrap(program))
        with pytest.raises(UserError, match=f"{reason}|storage|within"):
            watched_read(path)


def test_nested_files_end_after_one_level(tmp_path, watched_read):
    path = tmp_path / "net.pkl"
    path.write_bytes(as_nested(b"N."))
    assert watched_read(path) is None
    for content in (
        as_nested(as_nested(b"N.")),
        as_legacy(as_nested(b"N.")),
        as_zip(as_nested(b"N.")),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match="within a PyTorch file"):
            watched_read(path)
    inner = b"B" + struct.pack("<I", 4) + b"N..."
    path.write_bytes(call("torch.storage", "_load_from_bytes", inner))
    with pytest.raises(UserError, match="what should be a PyTorch file"):
        watched_read(path)
