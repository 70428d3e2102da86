"""An ensemble's disagreement decides from which pictures the stand-alone network learns."""

import json
import shutil

import numpy as np
import pytest

from repgan_jax import main
from repgan_jax.data import dataset
from repgan_jax.io import images
from repgan_jax.stages import datasets

FIELDS = {
    "fewshot__ensemble": 2,
    "generate__soft_size": 16,
    "generate__soft_type": "float16",
    "generate__drop": 0.25,
}


@pytest.fixture(scope="module")
def disputed(tiny_chain, tmp_path_factory):
    """Returns (folder of a run with an ensemble, what it printed)."""
    workdir = tmp_path_factory.mktemp("disputed") / "run"
    code, out, err = tiny_chain.run(workdir, stages="fewshot,generate,autoshot,sample", **FIELDS)
    assert code == 0, err
    return workdir, out


def test_the_most_disputed_pictures_are_left_out_and_listed(disputed):
    workdir, out = disputed
    disagreement = [float(e["disagreement"]) for e in dataset.open_dataset(workdir / "generate")]
    assert len(disagreement) == 12 and min(disagreement) > 0
    worst = sorted(range(12), key=lambda i: -disagreement[i])[:3]
    listed = json.loads((workdir / "autoshot/dropped.json").read_text())
    assert listed["indices"] == sorted(worst)
    assert listed["disagreement_from"] == pytest.approx(min(disagreement[i] for i in worst))
    assert "autoshot: 3 of 12 images left out (disagreement from " in out


def test_training_and_exports_see_the_others_alone(disputed, tiny_chain, tmp_path):
    workdir, _ = disputed
    config = main.read_config(tiny_chain.arguments(workdir, **FIELDS))
    kept = datasets.open_kept(config, workdir, tmp_path)
    listed = json.loads((tmp_path / "dropped.json").read_text())["indices"]
    assert sorted([*listed, *(int(example["index"]) for example in kept)]) == list(range(12))
    assert len(kept) == 9


def test_coarse_floats_are_learned_from(disputed):
    example = dataset.open_dataset(disputed[0] / "generate")[0]
    assert example["mask"].shape == (32, 32) and example["probabilities"].shape == (16, 16, 3)
    assert len(set(np.unique(example["probabilities"]))) > 256  # more than bytes could tell


def test_another_share_needs_no_other_dataset(tiny_chain, disputed, tmp_path):
    workdir = shutil.copytree(disputed[0], tmp_path / "run")
    code, out, err = tiny_chain.run(
        workdir, stages="generate,autoshot", **FIELDS | {"generate__drop": 0.5}
    )
    assert code == 0, err
    assert "generate: done already" in out
    assert "autoshot: starting again, for these changed: config.generate.drop 0.25 -> 0.5" in out
    assert len(json.loads((workdir / "autoshot/dropped.json").read_text())["indices"]) == 6


def test_sheet_shows_where_heads_disagree(disputed):
    sheet = images.read_photo(disputed[0] / "sample/sheet.png")
    assert sheet.shape[0] == 3 * 32
    shade = sheet[64:, :32]
    assert (shade[..., 0] == shade[..., 1]).all() and np.ptp(shade) > 0


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.25, "config.generate.drop: 0.25, but a single head never disagrees; expected "),
        (1.0, "config.generate.drop: 1.0, expected 0 <= share < 1"),
        (0.97, "config.generate.drop: 0.97 of 12 images leaves none"),
    ],
)
def test_shares_that_cannot_be_left_out(tiny_run, tmp_path, share, message):
    workdir = shutil.copytree(tiny_run.workdir, tmp_path / "run")
    code, _, err = tiny_run.run(workdir, stages="autoshot", generate__drop=share)
    assert code == 2 and err.startswith(f"error: {message}") and err.count("\n") == 1
