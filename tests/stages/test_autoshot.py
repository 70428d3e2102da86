import json
import shutil

import numpy as np
import pytest
from tensorboardX import SummaryWriter

import repgan_jax
from repgan_jax.configs import base
from repgan_jax.data import dataset
from repgan_jax.stages import autoshot


@pytest.fixture(scope="module")
def data(tiny_run):
    return dataset.open_dataset(tiny_run.workdir / "generate")


def _options(**changes):
    options = base.get_config().autoshot
    options.update(steps=9, batch_size=4, **changes)
    return options


def test_network_learns(tiny_run):
    rows = list(
        map(json.loads, (tiny_run.workdir / "autoshot/curve.jsonl").read_text().splitlines())
    )
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    scores = [row["validation_mean_iou"] for row in rows if "validation_mean_iou" in row]
    assert list(losses) == [6, 12] and losses[12] < losses[6]
    summary = json.loads((tiny_run.workdir / "autoshot/stage.json").read_text())["summary"]
    assert summary["held_out_mean_iou"] == max(scores)


def test_validation_is_of_a_few_pictures_at_a_time(tiny_run, data, monkeypatch, tmp_path):
    segmenter, sizes = repgan_jax.load_segmenter(tiny_run.workdir), []

    def predict(self, pictures):
        sizes.append(len(pictures))
        return np.stack([data[i]["mask"] for i in range(2, 12)])[: len(pictures)]

    monkeypatch.setattr(type(segmenter), "predict", predict)
    with SummaryWriter(str(tmp_path)) as board:
        assert autoshot._validate(segmenter, data, 10, board, 1) == 1.0
        monkeypatch.setattr(autoshot, "_VALIDATED", 7)
        autoshot._validate(segmenter, data, 10, board, 1)
    assert sizes == [10, 7]


def test_batches_of_a_restart_are_those_that_were_left(data):
    whole, rest = (list(autoshot._batches(data, 10, start, 3, _options())) for start in (0, 4))
    assert (len(whole), len(rest)) == (9, 5)
    for batch, expected in zip(rest, whole[4:], strict=True):
        for name, value in batch.items():
            np.testing.assert_array_equal(value, expected[name])
    assert not list(autoshot._batches(data, 10, 9, 3, _options()))


def test_every_picture_comes_once_an_epoch_and_none_that_is_held_out(data):
    batches = list(autoshot._batches(data, 10, 0, 3, _options()))
    seen = [picture.tobytes() for batch in batches for picture in batch["image"]]
    known = {data[i]["image"].tobytes() for i in range(10)}
    for epoch in range(3):
        assert set(seen[10 * epoch : 10 * (epoch + 1)]) == known
    assert seen[:10] != seen[10:20]  # shuffled anew
    positions = np.concatenate([batch["position"] for batch in batches])
    np.testing.assert_array_equal(positions, np.arange(36))


def test_hard_targets_are_the_masks(data):
    soft, hard = (
        next(autoshot._batches(data, 10, 0, 3, _options(soft_targets=soft)))["targets"]
        for soft in (True, False)
    )
    assert hard.shape == soft.shape and set(np.unique(hard)) == {0, 1}
    np.testing.assert_array_equal((hard * soft).sum(-1), soft.max(-1))


def test_curve_forgets_what_will_be_made_again(tmp_path):
    curve = autoshot.Curve(tmp_path / "curve.jsonl", 0)
    assert curve.best() == -1
    with SummaryWriter(str(tmp_path / "board")) as board:
        for step in (2, 4, 6):
            curve.add(step, board, loss=1.0, learning_rate=0.1, score=step / 10)
    again = autoshot.Curve(tmp_path / "curve.jsonl", 4)
    assert [row["step"] for row in again.rows] == [2, 2, 4, 4]
    assert again.best() == 0.4


def test_training_that_diverges_ends_there(tiny_run, tmp_path):
    for stage in ("fewshot", "generate"):
        shutil.copytree(tiny_run.workdir / stage, tmp_path / "run" / stage)
    fields = {"stages": "autoshot", "autoshot__learning_rate": 1e30}
    code, _, err = tiny_run.run(tmp_path / "run", **fields)
    assert code == 2
    assert "error: autoshot: the loss became nan by step" in err
    assert "try a lower config.autoshot.learning_rate than 1e+30\n" in err
    assert not (tmp_path / "run/autoshot/best").exists()
