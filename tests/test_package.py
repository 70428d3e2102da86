"""The package: what importing it costs, its names, and one copy of each module."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import repgan_jax

ROOT = Path(__file__).parents[1]
LATER = ("jax", "flax", "grain", "orbax", "tensorflow_datasets", "torch", "PIL", "numpy")


def _python(*arguments, cwd=ROOT):
    """Returns the standard output of Python in the root of the checkout."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_in_no_library():
    out = _python("-c", f"import sys, repgan_jax; print([x for x in {LATER} if x in sys.modules])")
    assert out == "[]\n"


def test_names_are_found_on_first_use():
    out = _python(
        "-c",
        "import repgan_jax\n"
        "before = dir(repgan_jax)\n"
        "from repgan_jax import *\n"
        "from repgan_jax.errors import UserError as error\n"
        "from repgan_jax.segmenter import load_segmenter as loader\n"
        "print(UserError is error, load_segmenter is loader, {*repgan_jax.__all__} <= {*before})",
    )
    assert out == "True True True\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'repgan_jax' has no attribute 'nonsense'"):
        repgan_jax.nonsense  # noqa: B018


def test_type_checkers_see_the_public_names():
    tree = ast.parse(Path(repgan_jax.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {name: getattr(repgan_jax, name).__module__ for name in repgan_jax.__all__}


@pytest.mark.parametrize("module", ["converters.pytorch_files.plain_data", "configs.base"])
def test_a_module_is_the_same_under_both_names(module):
    package, _, name = module.rpartition(".")
    out = _python(
        "-c",
        f"import sys, {module} as one, repgan_jax.{module} as other\n"
        f"from {package} import {name} as third\n"
        "print(one is other is third, one.__name__, one.__spec__.name)",
    )
    assert out == f"True repgan_jax.{module} repgan_jax.{module}\n"


def test_the_order_of_import_does_not_matter():
    out = _python(
        "-c",
        "import repgan_jax.converters.pytorch_files.pickle_data as ours\n"
        "from converters.pytorch_files.pickle_data import RefusedError\n"
        "from converters.pytorch_files import plain_data\n"
        "print(RefusedError is ours.RefusedError, plain_data.__name__)",
    )
    assert out == "True repgan_jax.converters.pytorch_files.plain_data\n"


@pytest.mark.parametrize("package", ["converters", "repgan_jax.converters"])
def test_converters_run_under_both_names(package):
    assert "Converts a StyleGAN2 checkpoint" in _python("-m", f"{package}.stylegan2", "--help")


def test_a_missing_module_is_named():
    with pytest.raises(AssertionError, match="No module named 'converters.nonsense'"):
        _python("-c", "import converters.nonsense")
