"""What README.md and docs/ say can be done as they say it; the documentation builds."""

import argparse
import configparser
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from ml_collections import ConfigDict
from PIL import Image

import repgan_jax
from repgan_jax import main, stages
from repgan_jax.configs import base
from tests import snippets

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [snippet for page in PAGES for snippet in snippets.read(page)]
SHELL = [snippet for snippet in SNIPPETS if snippet.language == "bash"]
PYTHON = [page for page in PAGES if any(s.language == "python" for s in snippets.read(page))]
UNCHECKED = ("bibtex", "csv", "text", "{eval-rst}", "{literalinclude}", "{toctree}")

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # by `runpy`

# What would take minutes in a snippet, and the value that a test can afford.
SHORTER = {
    "generator, shots)": "generator, shots, label_size=32, steps=3)",
    "4, image_size=128)": "4, image_size=32)",
    "num_images=1000": "num_images=32, image_size=32, shard_size=16",
    "steps=1500": "steps=2, batch_size=8, eval_every=2, widths=(4, 8), warmup_steps=1",
    "steps=60": "steps=2, size=32",
}


def page_name(page: Path) -> str:
    return page.name


@pytest.fixture
def config_file(tmp_path, monkeypatch) -> Callable[[str], str]:
    """Finds a config file that a command names: in the repository, or in a snippet before it."""
    monkeypatch.chdir(ROOT)

    def find(name: str) -> str:
        path, *argument = name.split(":")
        for snippet in SNIPPETS:
            if snippet.text.startswith(f"# {path}\n"):
                written = tmp_path / path.replace("/", "_")
                written.write_text(snippet.text)
                return ":".join([str(written), *argument])
        return name

    return find


@pytest.fixture
def check(config_file, monkeypatch) -> Callable[[Sequence[str]], None]:
    """Lets a command read its arguments, and nothing more."""

    class Parsed(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def stop(parser, *args):
        parse(parser, *args)
        raise Parsed

    def run_main(*arguments: str) -> None:
        if arguments == ("--help",):
            return
        config = main.read_config(
            [
                f"--config={config_file(word.removeprefix('--config='))}"
                if word.startswith("--config=")
                else word.replace("$i", "0").replace("$JOB_COMPLETION_INDEX", "0")
                for word in arguments
            ]
        )
        assert set(config.stages) <= set(stages.STAGES)

    def run_module(module: str, *arguments: str) -> None:
        if module in ("repgan_jax.main", "repgan_jax"):
            return run_main(*arguments)
        if module == "venv":
            return None
        with monkeypatch.context() as patched, pytest.raises(Parsed):
            patched.setattr(argparse.ArgumentParser, "parse_args", stop)
            patched.setattr(sys, "argv", [module, *arguments])
            runpy.run_module(module, run_name="__main__", alter_sys=True)

    def make(target: str, *variables: str) -> None:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
        for variable in variables:
            name, value = variable.split("=")
            assert f"{name} ?=" in (ROOT / "Makefile").read_text()
            if name == "EXTRAS":
                assert set(value.split(",")) <= extras()

    def pip(verb: str, *arguments: str) -> None:
        assert verb in ("install", "wheel")
        for found in re.findall(r"^(?:\.|repgan-jax)\[(.*)\]$", "\n".join(arguments), re.MULTILINE):
            assert set(found.split(",")) <= extras()

    programs = {
        **dict.fromkeys(["python", "python3"], lambda flag, *words: run_module(*words)),
        "repgan-jax": run_main,
        "make": make,
        "pip": pip,
        "srun": lambda *words: run(words),
        "sh": lambda flag, text: [run(words) for words in snippets.commands(text)],
        **dict.fromkeys(  # not ours
            [".", "apt-get", "cd", "export", "gcloud", "git", "pre-commit", "pytest"],
            lambda *words: None,
        ),
    }

    def run(words: Sequence[str]) -> None:
        programs[words[0].rsplit("/", 1)[-1]](*words[1:])

    return run


def extras() -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options.extras_require"])


def test_every_fence_names_a_language_that_is_checked():
    known = ("bash", "json", "python", "yaml", *UNCHECKED)
    assert [str(s) for s in SNIPPETS if s.language not in known] == []


@pytest.mark.parametrize("snippet", SHELL, ids=str)
def test_shell_snippet_is_accepted(snippet, check):
    for words in snippets.commands(snippet.text):
        check(words)


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.language == "yaml"], ids=str)
def test_yaml_snippet_is_accepted(snippet, check):
    check(yaml.safe_load(snippet.text)["command"])


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.language == "json"], ids=str)
def test_json_snippet_is_json(snippet):
    json.loads(snippet.text)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_inline_commands_and_flags_are_accepted(page, check):
    for code in snippets.inline(page):
        if re.match(r"(python3? -m|make|pip|pytest|repgan-jax) ", code):
            check(shlex.split(code))
        elif code.startswith("--config"):
            words = shlex.split(code)
            base = [] if words[0].startswith("--config=") else ["--config=configs/base.py"]
            check(["repgan-jax", *base, *words])


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_fields_that_are_named_exist(page):
    defaults = base.get_config()
    groups = [name for name, value in defaults.items() if isinstance(value, ConfigDict)]
    field = re.compile(rf"(?:config\.|(?=(?:{'|'.join(groups)})\.))([a-z_.]+)(=\S+)?")
    for code in snippets.inline(page):
        if code != "config.json" and (match := field.fullmatch(code)):  # that is a file
            found = defaults
            for name in match[1].split("."):
                assert name in found, code
                found = found[name]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    for target in snippets.links(page):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in snippets.anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_that_are_named_exist(page):
    folders = "benchmarks|configs|converters|docs|examples|repgan_jax|tests"
    written = {s.text.splitlines()[0].removeprefix("# ") for s in SNIPPETS if s.text}
    for code in snippets.inline(page):
        if re.fullmatch(rf"({folders})/[\w./]*", code) and code not in written:
            assert (ROOT / code).exists(), code


@pytest.fixture
def desk(tiny_run, tiny_inversion, tmp_path, monkeypatch) -> Path:
    """A working folder where every path that a Python snippet reads is a small stand-in."""
    for name, target in {
        "weights/face": tiny_run.generator,
        "weights/mine": tiny_run.generator,
        "weights/lpips": tiny_inversion["invert__perceptual"],
        "examples/face": tiny_run.shots,
        "runs/face": tiny_run.workdir,
        "photos": tiny_run.photos / "images",
        "true-masks": tiny_run.photos / "masks",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target, target_is_directory=True)
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=page_name)
def test_python_snippets_run_in_their_order(page, desk):
    names = {}
    for snippet in snippets.read(page):
        if snippet.language == "python" and not re.match(r"# \S+\.py\n", snippet.text):
            text = snippet.text
            for long, short in SHORTER.items():
                text = text.replace(long, short)
            exec(compile(text, str(snippet), "exec"), names)


def test_every_public_name_is_in_the_reference():
    reference = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^\.\. auto\w+:: (\w+)$", reference, re.MULTILINE)
    assert sorted(documented) == sorted(repgan_jax.__all__)


@pytest.mark.slow
def test_documentation_builds_without_warnings(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(package, reason="needs pip install --editable .[docs]")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "docs", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "load_generator" in (tmp_path / "api.html").read_text()
