"""The wheel works without a checkout: what is in it, and what it does in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import repgan_jax

pytest.importorskip("setuptools", minversion="77", reason="needs setuptools to build a wheel")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "setup.cfg")
FOLDERS = ("configs", "converters", "examples", "repgan_jax")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: building leaves files beside the sources."""
    root = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, root)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=ignored)
    _pip("wheel", "--no-build-isolation", "--wheel-dir", root / "built", root)
    (built,) = (root / "built").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the installed wheel, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    _pip("install", "--no-compile", "--target", folder, wheel)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Runs Python, or a console command, in an empty folder; returns exit code, output, errors."""

    def call(*arguments, command=(sys.executable,)):
        done = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed), "JAX_NUM_CPU_DEVICES": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return call


def _pip(action, *arguments):
    """Runs pip on this machine's files alone."""
    command = [sys.executable, "-m", "pip", action, "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_wheel_holds_the_library_and_nothing_else(wheel):
    expected = {"repgan_jax/py.typed", "repgan_jax/report/report.css"}
    for folder, inside in (
        ("repgan_jax", ""),
        ("configs", "repgan_jax/"),
        ("converters", "repgan_jax/"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            expected.add(f"{inside}{path.relative_to(ROOT)}")
    for path in (ROOT / "examples" / "face").rglob("*"):
        if path.is_file():
            expected.add(f"repgan_jax/{path.relative_to(ROOT)}")
    info = f"repgan_jax-{repgan_jax.__version__}.dist-info/"
    found = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in found if not name.startswith(info)} == expected
    licences = {f"{info}licenses/{name}" for name in ("LICENSE", "examples/face/LICENSE")}
    assert licences <= found


def test_package_is_the_installed_one(run, installed):
    names = (
        "repgan_jax",
        "repgan_jax.configs.face",
        "repgan_jax.converters.pytorch_files.torch_file",
    )
    code = f"import importlib\nfor x in {names}: print(importlib.import_module(x).__file__)"
    _, out, err = run("-c", code)
    assert err == "" and len(out.splitlines()) == 3
    assert all(Path(line).is_relative_to(installed) for line in out.splitlines())


def test_commands_explain_themselves(run, installed):
    console = installed / "bin" / "repgan-jax"
    by_name = run("--help", command=(sys.executable, console))
    assert by_name == run("-m", "repgan_jax", "--help")
    assert by_name[0] == 0 and "--config=face" in by_name[1]
    code, out, _ = run("-m", "repgan_jax.converters.stylegan2", "--help")
    assert code == 0 and "Converts a StyleGAN2 checkpoint" in out


def test_the_first_run_says_how_to_get_the_generator(run, tmp_path):
    code, _, err = run("-m", "repgan_jax", "--config=face")
    assert code == 2
    assert err.startswith("error: weights/face: no generator here") and err.count("\n") == 1
    assert err.endswith(": python -m repgan_jax.converters.mobilestylegan weights/face\n")
    assert list(tmp_path.iterdir()) == []


def test_a_converted_generator_is_used_from_the_users_own_config(run, tiny_chain, tmp_path):
    checkpoint = ROOT / "tests" / "golden" / "rosinality_64.pt"
    arguments = (checkpoint, "weights/mine", "--samples=0")
    code, out, err = run("-m", "repgan_jax.converters.stylegan2", *arguments)
    assert (code, err) == (0, "") and "stylegan2, 64 px" in out

    # These folders have the names of the library's own, and nothing of theirs.
    for name in ("configs", "converters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "configs" / "base.py").write_text("STEPS = 3\n")
    (tmp_path / "configs" / "mine.py").write_text(
        "from configs import base\n"
        "from repgan_jax.configs import tiny\n\n\n"
        "def get_config():\n"
        "    config = tiny.get_config()\n"
        "    config.fewshot.names, config.fewshot.steps = (), base.STEPS\n"
        "    return config\n"
    )
    fields = {
        "stages": "fewshot",
        "workdir": "runs/mine",
        "generator": "weights/mine",
        "classes": tiny_chain.shots / "classes.txt",
        "fewshot.shots": tiny_chain.shots,
        "compilation_cache": tiny_chain.cache,
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    code, _, err = run("-m", "repgan_jax", "--config=configs/mine.py", *flags)
    assert code == 0, err
    assert (tmp_path / "runs" / "mine" / "fewshot").is_dir()

    # The packaged faces were generated by another generator, which the run finds by reading them.
    flags = [flag for flag in flags if "shots" not in flag]
    code, _, err = run("-m", "repgan_jax", "--config=face", *flags, "--config.workdir=runs/face")
    assert code == 2
    assert "config.fewshot.shots: latents w of shape (512,); the generator expects (48,)" in err
