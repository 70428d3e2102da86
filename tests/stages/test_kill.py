"""A run that is killed again and again ends where an undisturbed one does."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

import repgan_jax
from repgan_jax.data import dataset

MOMENTS = (
    ("fewshot/labeller", 1),
    ("generated-train.array_record-00001-of-00003", 1),
    ("generate/scores.npz", 1),
    ("autoshot/curve.jsonl", 2),  # the best weights are those of a step not yet saved
    ("checkpoints/12", 1),
    ("autoshot/stage.json", 2),  # the first says that it is running
    ("evaluate/metrics.json", 1),
    ("segment/masks/2.png", 1),
    ("sample/sheet.png", 1),
    ("run/report.html", 1),
)


@pytest.fixture(scope="module")
def killed_run(tiny_chain, tmp_path_factory):
    """The folder of a run that was killed at all those moments, then left in peace."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    for name, count in MOMENTS:
        code, err = tiny_chain.run_killed(name, count, workdir)
        assert code == -signal.SIGKILL, f"not killed before {name}: {err}"
    code, err = tiny_chain.run_killed("no such name", 1, workdir)
    assert code == 0, err
    return workdir


@pytest.mark.slow
def test_weights_and_losses_are_those_of_an_undisturbed_run(killed_run, tiny_run):
    for load in (repgan_jax.load_labeller, repgan_jax.load_segmenter):
        killed, whole = (load(run).variables for run in (killed_run, tiny_run.workdir))
        # float32: devices may add up gradients in another order
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), killed, whole
        )
    for file in ("fewshot/curve.json", "autoshot/curve.jsonl"):
        killed, whole = (_rows(run / file) for run in (killed_run, tiny_run.workdir))
        assert len(killed) == len(whole)
        for row, expected in zip(killed, whole, strict=True):
            assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_records_are_those_of_an_undisturbed_run(killed_run, tiny_run):
    killed, whole = (
        dataset.open_dataset(run / "generate") for run in (killed_run, tiny_run.workdir)
    )
    assert len(killed) == len(whole) == 12
    for example, expected in zip(killed, whole, strict=True):
        jax.tree.map(np.testing.assert_array_equal, example, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("generate/scores.npz", 1),
        ("segment/masks/*.png", 5),
        ("segment/overlays/*.png", 5),
        ("segment/areas.csv", 1),
        ("sample/sheet.png", 1),
    ],
)
def test_files_are_those_of_an_undisturbed_run(killed_run, tiny_run, pattern, count):
    killed, whole = (
        {path.name: path.read_bytes() for path in run.glob(pattern) if path.name[0] != "."}
        for run in (killed_run, tiny_run.workdir)
    )
    assert len(whole) == count
    assert killed == whole


@pytest.mark.slow
def test_scores_are_those_of_an_undisturbed_run(killed_run, tiny_run):
    killed, whole = (
        json.loads((run / "evaluate/metrics.json").read_text())
        for run in (killed_run, tiny_run.workdir)
    )
    assert killed == whole
    assert (killed_run / "report.html").exists()


def _rows(path):
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else list(map(json.loads, text.splitlines()))


@pytest.mark.slow
def test_network_is_there_whenever_its_successor_is_interrupted(tiny_run, tmp_path):
    workdir = shutil.copytree(tiny_run.workdir, tmp_path / "run")
    change = {"stages": "autoshot", "autoshot__held_out": 0.4, "autoshot__eval_every": 4}
    photos = np.zeros((1, 70, 90, 3), np.uint8)
    photos[:, 20:50, 20:60] = 200

    def predict():
        return repgan_jax.load_segmenter(workdir).predict(photos)

    before, moments = predict(), ("autoshot.next/curve.jsonl", "next/segmenter")
    for moment in moments:
        code, err = tiny_run.run_killed(moment, 1, workdir, **change)
        assert code == -signal.SIGKILL, err
        np.testing.assert_array_equal(predict(), before)
    for moment in ("run/autoshot.previous", "run/autoshot"):  # the exchange
        code, err = tiny_run.run_killed(moment, 1, workdir, **change)
        assert code == -signal.SIGKILL, err
        after = repgan_jax.load_segmenter(workdir)
    code, err = tiny_run.run_killed("no such name", 1, workdir, **change)
    assert code == 0, err
    found = repgan_jax.load_segmenter(workdir)
    jax.tree.map(np.testing.assert_array_equal, found.variables, after.variables)
    assert not (workdir / "autoshot.next").exists()
    code, out, err = tiny_run.run(workdir, stages="autoshot,segment")  # as it was before
    assert code == 0 and "autoshot: done already (same settings), kept until now" in out, err
    np.testing.assert_array_equal(predict(), before)
