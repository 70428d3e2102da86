"""Left and right through the stages: one decision for heads, network and predictions."""

import dataclasses
import shutil

import numpy as np
import pytest

import repgan_jax
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import Palette, default_colours
from repgan_jax.training import mirroring

STAGES = "fewshot,generate,autoshot"


def _labels(count, names=("background", "alpha", "beta")):
    """Returns labels [count, 20, 20] of two sides, and their palette."""
    labels = np.zeros((count, 20, 20), np.int32)
    labels[:, :, 3:9], labels[:, :, 10:16] = 1, 2
    return labels, Palette(names, default_colours(3))


@pytest.mark.parametrize(
    ("count", "wanted", "decision", "said"),
    [
        (3, True, False, "nothing is mirrored: 'alpha' is on the left in 3 shots"),
        (2, True, True, "warning: 'alpha' is on the left in 2 shots"),
        (3, "always", True, "warning: 'alpha' is on the left in 3 shots"),
        (3, False, False, "nothing is mirrored, as flip=False says"),
    ],
)
def test_labels_of_one_side_decide(count, wanted, decision, said):
    lines = []
    assert mirroring.decide(*_labels(count), wanted, say=lines.append) is decision
    (line,) = lines
    assert line.startswith(said)
    if wanted:
        assert "'NAME <-> NAME' after the classes in the class list or in mirror_pairs" in line


def test_pairs_are_said_with_their_origin():
    lines = []
    labels, palette = _labels(3, ("background", "lado izquierdo", "lado derecho"))
    assert mirroring.decide(labels, palette, True, say=lines.append)
    assert "mirrored images: lado izquierdo and lado derecho (guessed from the names; " in lines[0]
    labels, palette = _labels(3)
    palette = palette.with_pairs("alpha <-> beta", "test")
    assert mirroring.decide(labels, palette, True, say=lines.append)
    assert lines[1:] == ["swapped in mirrored images: alpha and beta"]


@pytest.mark.parametrize("value", ["auto", "yes", 2, None])
def test_values_of_flip(value):
    with pytest.raises(UserError, match=r"^flip: .*expected True, False or always"):
        mirroring.check(value)


@pytest.mark.parametrize(
    ("heads_flip", "probability", "decision"),
    [(True, 0.0, False), (False, 0.5, False)],
)
def test_the_network_mirrors_where_heads_and_its_own_training_do(
    tiny_run, tmp_path, heads_flip, probability, decision
):
    for stage in ("fewshot", "generate"):
        shutil.copytree(tiny_run.workdir / stage, tmp_path / "run" / stage)
    folder = tmp_path / "run/fewshot/labeller"
    labeller = repgan_jax.load_labeller(folder)
    assert labeller.flip and repgan_jax.load_segmenter(tiny_run.workdir).flip
    dataclasses.replace(labeller, flip=heads_flip).save(folder)
    fields = {"autoshot__augment__flip": probability, "autoshot__steps": 3}
    code, _, err = tiny_run.run(tmp_path / "run", stages="autoshot", **fields)
    assert code == 0, err
    assert repgan_jax.load_segmenter(tmp_path / "run").flip is decision


def test_pairs_that_are_wrong_cost_no_finished_heads(tiny_run, tmp_path):
    shutil.copytree(tiny_run.workdir / "fewshot", tmp_path / "run/fewshot")
    pairs = {"stages": "fewshot", "mirror_pairs": "disc <-> bride"}
    code, _, err = tiny_run.run(tmp_path / "run", **pairs)
    assert code == 2 and err.startswith("error: config.mirror_pairs: no class is named 'bride'; ")
    code, out, err = tiny_run.run(tmp_path / "run", stages="fewshot")
    assert code == 0 and "fewshot: done already" in out, err


@pytest.fixture(scope="module")
def sided(tiny_chain, tmp_path_factory):
    """Arguments of runs whose shots show two sides of a disc."""
    shots = shutil.copytree(tiny_chain.shots, tmp_path_factory.mktemp("sided") / "shots")
    row, column = np.mgrid[:64, :64]
    disc = np.hypot(row - 31.5, column - 31.5) < 28
    mask = np.where(disc, np.where(column < 32, 1, 2), 0).astype(np.uint8)
    for path in (shots / "masks").iterdir():
        images.write_png(path, mask)
    (shots / "classes.txt").write_text("background\nalpha\nbeta\n")
    return {"classes": shots / "classes.txt", "fewshot__shots": shots, "autoshot__steps": 60}


@pytest.fixture(scope="module")
def unpaired(tiny_chain, sided, tmp_path_factory):
    """A run in which nobody can know from the names what is left and what is right."""
    workdir = tmp_path_factory.mktemp("unpaired") / "run"
    code, out, err = tiny_chain.run(workdir, stages=STAGES, **sided)
    assert code == 0, err
    assert "fewshot: nothing is mirrored: 'alpha' is on the left in 3 shots, 'beta' is" in out
    assert "autoshot: nothing is mirrored, as stage fewshot decided\n" in out
    return workdir


@pytest.fixture
def photos(tiny_chain):
    """uint8 [5, 32, 32, 3]."""
    paths = sorted((tiny_chain.photos / "images").iterdir())
    return np.stack([images.resize_area(images.read_photo(path), 32) for path in paths])


def _sides(masks):
    """Returns the share of `alpha` on the left and of `beta` on the right, among both classes."""
    left, right = masks[:, :, :16], masks[:, :, 16:]
    counts = [[(half == k).sum() for k in (1, 2)] for half in (left, right)]
    return counts[0][0] / sum(counts[0]), counts[1][1] / sum(counts[1])


def test_sides_that_no_name_tells_are_not_mixed_up(unpaired, photos):
    assert repgan_jax.load_labeller(unpaired).flip is False
    segmenter = repgan_jax.load_segmenter(unpaired)
    assert not segmenter.flip and segmenter.palette.mirrored == ()
    assert min(_sides(segmenter.predict(photos))) > 0.8


def test_stated_sides_trade_places(tiny_chain, sided, unpaired, photos, tmp_path):
    workdir = tmp_path / "run"
    code, out, err = tiny_chain.run(workdir, stages=STAGES, mirror_pairs="alpha <-> beta", **sided)
    assert code == 0 and "mirrored" in out, err
    segmenter = repgan_jax.load_segmenter(workdir)
    masks, mirrored = segmenter.predict(photos), segmenter.predict(photos[:, :, ::-1])
    np.testing.assert_array_equal(mirrored[:, :, ::-1], np.array([0, 2, 1])[masks])
    assert min(_sides(masks)) > 0.8
