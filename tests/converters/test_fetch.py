"""Fetching from a package index: what pip is told, and what is never run."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile

import pytest

from repgan_jax.converters.fetch import Package
from repgan_jax.errors import UserError


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is the only index pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def make_sdist(index, trap):
    """Returns the content of a source distribution whose setup.py makes the file `trap`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        setup = f"open({str(trap)!r}, 'w'); import setuptools; setuptools.setup(name='some-data')"
        files = {"PKG-INFO": "Metadata-Version: 2.1\nName: some-data\nVersion: 1.2\n"}
        for name, text in {**files, "setup.py": setup}.items():
            info = tarfile.TarInfo(f"some_data-1.2/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    (index / "some_data-1.2.tar.gz").write_bytes(content.getvalue())
    return content.getvalue()


def make_wheel(index):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        info = "some_data-1.2.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.2\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")
    (index / "some_data-1.2-py3-none-any.whl").write_bytes(content.getvalue())
    return content.getvalue()


def test_sdist_arrives_and_its_code_does_not_run(index, tmp_path):
    trap = tmp_path / "trap"
    content = make_sdist(index, trap)
    make_wheel(index)  # must not be taken in its place
    assert Package("some-data", "1.2", "sdist", sha256(content)).read() == content
    assert not trap.exists()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:  # the trap does work
        script = archive.extractfile("some_data-1.2/setup.py").read()
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert trap.exists()


def test_wheel_arrives(index, tmp_path):
    make_sdist(index, tmp_path / "trap")
    content = make_wheel(index)
    assert Package("some-data", "1.2", "wheel", sha256(content)).read() == content
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("version", "reason"),
    [("1.2", "DO NOT MATCH THE HASHES"), ("1.3", "No matching distribution found")],
)
def test_what_pip_refuses_is_told_in_one_line(index, tmp_path, version, reason):
    make_sdist(index, tmp_path / "trap")
    with pytest.raises(UserError, match=reason) as info:
        Package("some-data", version, "sdist", "0" * 64).read()
    message = str(info.value)
    assert message.startswith(f"pip could not fetch the sdist of some-data {version} (")
    assert message.endswith("; give its file with --sdist")
    assert "\n" not in message
    assert not (tmp_path / "trap").exists()


def test_given_file_is_verified(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    package = Package("some-data", "1.2", "wheel", sha256(b"content"))
    assert package.read(path) == b"content"
    path.write_bytes(b"other")
    with pytest.raises(UserError, match=f"SHA-256 {sha256(b'other')}, expected {package.sha256}"):
        package.read(path)
    with pytest.raises(UserError, match="no-such: .*; expected the wheel of some-data 1.2"):
        package.read(tmp_path / "no-such")
