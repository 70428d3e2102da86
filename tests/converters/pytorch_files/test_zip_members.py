"""Zip files as PyTorch writes them, and every other way to lay one out."""

import struct
import zipfile

import pytest

from repgan_jax.converters.pytorch_files.plain_data import Allowance
from repgan_jax.converters.pytorch_files.zip_members import members

CONTENTS = {"net/data.pkl": b"pickle", "net/data/0": bytes(range(64)), "net/empty": b""}


@pytest.fixture
def write(tmp_path):
    def write(contents=CONTENTS, compression=zipfile.ZIP_STORED, **options):
        with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
            for name, content in contents.items():
                info = zipfile.ZipInfo(name)
                info.compress_type = compression
                with archive.open(info, "w", **options) as member:
                    member.write(content)
        return bytearray((tmp_path / "net.pt").read_bytes())

    return write


def read(content):
    return members(memoryview(content), Allowance(len(content)))


def end_with_zip64(content):
    """Returns a zip file whose end states its numbers in 64 bits only, as PyTorch's do."""
    count, size, start = struct.unpack("<HII", content[-12:-2])
    wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(content) - 22, 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return content[:-22] + wide + locator + end


@pytest.mark.parametrize("force_zip64", [False, True])
@pytest.mark.parametrize("end", [bytearray, end_with_zip64])
def test_members_are_views_of_what_was_written(write, force_zip64, end):
    content = end(write(force_zip64=force_zip64))
    found = read(content)
    assert {name: bytes(member.data) for name, member in found.items()} == CONTENTS
    for name, member in found.items():
        assert member.data.obj is content
        assert content[member.start :].startswith(CONTENTS[name])


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "net/../../evil",
        "net/..",
        "/evil",
        "evil",
        "other/data",
        "net\\..\\evil",
        "net/a\\b",
        "C:/evil",
    ],
)
def test_members_stay_inside_their_folder(write, name):
    with pytest.raises(ValueError, match="lies outside"):
        read(write({**CONTENTS, name: b""}))
    if name in ("/evil", "C:/evil", "../evil"):
        with pytest.raises(ValueError, match="lies outside"):
            read(write({name: b""}))


def test_members_have_one_name_each(write):
    content = write({"net/a": b"1", "net/b": b"2"})
    twice = content.replace(b"net/b", b"net/a")
    with pytest.raises(ValueError, match="twice"):
        read(twice)
    at = content.rindex(b"net/b")
    content[at : at + 5] = b"net/c"  # in the directory, not before the member
    with pytest.raises(ValueError, match="second name"):
        read(content)


def test_refuses_compression(write):
    with pytest.raises(ValueError, match="compressed"):
        read(write({"net/zeros": bytes(10_000)}, zipfile.ZIP_DEFLATED))
    encrypted = write()
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ValueError, match="encrypted"):
        read(encrypted)


@pytest.mark.parametrize(
    ("field", "value"),
    [(20, 2**31), (24, 2**31), (42, 1), (42, 2**31), (42, 2**32 - 1), (20, 65), (28, 65535)],
)
def test_refuses_directories_that_lie(write, field, value):
    """Sizes past the end, sizes that differ, headers that are none."""
    content = write()
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    size = 2 if field == 28 else 4
    content[entry + field : entry + field + size] = value.to_bytes(size, "little")
    with pytest.raises(ValueError, match="overlaps|zip header|compressed|directory"):
        read(content)


def test_members_do_not_overlap(write):
    content = write()
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 1)
    bomb = bytearray(content)
    bomb[first + 20 : first + 28] = struct.pack("<II", 60, 60)  # into the second member
    with pytest.raises(ValueError, match="overlaps"):
        read(bomb)
    bomb = bytearray(content)
    bomb[second + 20 : second + 28] = struct.pack("<II", 200, 200)  # into the directory
    with pytest.raises(ValueError, match="overlaps"):
        read(bomb)


def test_refuses_every_truncation_and_every_addition(write):
    content = end_with_zip64(write())
    for length in range(len(content)):
        with pytest.raises(ValueError, match="zip header|directory"):
            read(content[:length])
    for changed in (content + b"x", b"x" + content, content[:-30] + b"x" + content[-30:]):
        with pytest.raises(ValueError, match="zip header|directory"):
            read(changed)


def test_many_members_cost_an_allowance(write):
    content = write({f"net/{i}": b"" for i in range(40)})
    allowance = Allowance(0)
    allowance.spend((128 << 20) - 20_000)
    with pytest.raises(ValueError, match="far more"):
        members(memoryview(content), allowance)
