"""The config files agree with `base.py`, and with what lies in examples/."""

import importlib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from repgan_jax import main, stages
from repgan_jax.configs import base, face
from repgan_jax.data import masks

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("[!_]*.py"))
OPEN = {"evaluate.class_map"}  # groups whose names are data


def _types(config, prefix=""):
    """Returns the type of every field by its dotted name."""
    found = {}
    for name, value in config.items():
        name = prefix + name
        if isinstance(value, ConfigDict) and name not in OPEN:
            found |= _types(value, f"{name}.")
        else:
            found[name] = type(value)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_configs_have_the_fields_of_base_and_their_types(file):
    config = importlib.import_module(f"repgan_jax.configs.{file.stem}").get_config()
    assert _types(config) == _types(base.get_config())


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_configs_load_by_the_command(file):
    config = main.read_config([f"--config={file}", "--config.seed=3"])
    assert config.seed == 3
    assert config.workdir == f"runs/{file.stem}"
    assert set(config.stages) <= set(stages.STAGES)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_stages_depend_on_fields_that_exist(file):
    fields = _types(importlib.import_module(f"repgan_jax.configs.{file.stem}").get_config())
    for name in stages.STAGES:
        for field in getattr(stages.load(name), "FIELDS", ()):
            assert field in fields or any(known.startswith(f"{field}.") for known in fields)


@pytest.mark.parametrize("variant", ["fused", "celebamask"])
def test_class_map_of_faces_names_their_classes(variant):
    config = face.get_config(variant)
    palette = masks.read_classes(ROOT / config.classes)
    assert set(config.evaluate.class_map.values()) == set(palette.names) - (
        {"background"} if variant == "celebamask" else set()  # what no part covers
    )
    assert set(config.evaluate.merge_order) <= set(config.evaluate.class_map)


def test_faces_are_evaluated_where_there_are_photos(monkeypatch, tmp_path):
    monkeypatch.setenv("CELEBAMASK_HQ", str(tmp_path))
    assert face.get_config().evaluate.images == ""
    (tmp_path / "images").mkdir()
    assert face.get_config().evaluate.images == str(tmp_path / "images")
    assert face.get_config().evaluate.masks == str(tmp_path / "masks")


def test_labelled_faces_can_be_read():
    config = face.get_config()
    palette = masks.read_classes(ROOT / config.classes)
    shots = masks.read_shots(ROOT / config.fewshot.shots, palette, config.fewshot.names)
    assert len(shots.names) == 10 and palette.num_classes == 10
    assert shots.images.shape == (10, 512, 512, 3)
    assert shots.masks.shape == (10, 512, 512)
    assert shots.w.shape == (10, 512)
