"""Training by several processes: the same curve, also after SIGTERM and kills, on other devices."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

import repgan_jax
from repgan_jax import main
from repgan_jax.training import batches

QUICK = "--xla_backend_optimization_level=0"  # to compile, which all but process 0 do each time


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """A run whose dataset is there."""
    for stage in ("fewshot", "generate"):
        shutil.copytree(tiny_run.workdir / stage, tmp_path / "run" / stage)
    return tmp_path / "run"


@pytest.fixture
def train(forks, workdir):
    """Trains in processes of their own; `ends` {process: (batch, signal)}; (codes, outputs)."""

    def run(*, ends=None, **options):
        ends = {i: (batch, 0, number) for i, (batch, number) in (ends or {}).items()}
        options |= {"stages": "autoshot", "watched": "batch", "flags": QUICK}
        options |= {"cluster__lost_after": 3.0}
        return tuple(zip(*forks(workdir, ends=ends, **options), strict=True))

    return run


def _saved(workdir):
    return sorted(int(path.name) for path in workdir.glob("autoshot/checkpoints/[0-9]*"))


def _expect_same(workdir, whole):
    """Twelve small steps, on means of eight in another order: 1e-5."""
    found, expected = (
        [json.loads(row) for row in (run / "autoshot/curve.jsonl").read_text().splitlines()]
        for run in (workdir, whole)
    )
    assert [row["step"] for row in found] == [6, 6, 12, 12]
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    found, expected = (repgan_jax.load_segmenter(run).variables for run in (workdir, whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    status = json.loads((workdir / "autoshot/stage.json").read_text())["status"]
    assert status == "done"


def test_two_processes_learn_what_eight_devices_do(train, workdir, tiny_run):
    codes, outputs = train(count=2)
    assert codes == (0, 0), outputs
    assert "autoshot" in outputs[0] and "autoshot" not in outputs[1]  # one alone validates
    _expect_same(workdir, tiny_run.workdir)


@pytest.mark.slow
def test_all_keep_the_step_at_which_one_is_stopped(train, workdir, tiny_run):
    codes, outputs = train(count=2, backend="pmap", ends={1: (9, signal.SIGTERM)})
    assert codes == (75, 0), outputs
    assert outputs[1].endswith(main.TERMINATED + "\n")
    why = "error: process 1 of 2 has failed or was stopped; see its own output"
    assert why in outputs[0]
    assert _saved(workdir) == [6, 10]  # the flag goes with the ninth batch, and is read one later
    codes, outputs = train(devices=2)
    assert codes == (0,), outputs
    _expect_same(workdir, tiny_run.workdir)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_costs_the_steps_since(train, workdir, tiny_run):
    codes, outputs = train(count=2, ends={1: (9, signal.SIGKILL)})
    assert codes == (75, -signal.SIGKILL)
    assert "error: no sign of life from process 1 of 2 for 3 s; run the same" in outputs[0]
    codes, _ = train(count=2, ends={0: (3, signal.SIGKILL)})
    assert codes == (-signal.SIGKILL, -signal.SIGABRT)  # by JAX itself, at once
    assert _saved(workdir) == [6]
    codes, outputs = train()
    assert codes == (0,), outputs
    _expect_same(workdir, tiny_run.workdir)


@pytest.mark.slow
def test_alone_it_keeps_its_step_too(tiny_run, workdir, monkeypatch):
    """Stopped before a first validation, in the step of one, and in the last step."""
    make_batches, saved = batches.make_batches, []
    for told in (2, 3, 6):  # counted from where the one before was stopped

        def stopping(*arguments, told=told, **options):
            for i, batch in enumerate(make_batches(*arguments, **options), 1):
                if i == told:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        monkeypatch.setattr(batches, "make_batches", stopping)
        start = time.monotonic()
        code, out, err = tiny_run.run(workdir, stages="autoshot")
        assert (code, out.splitlines()[-1]) == (0, main.TERMINATED), err
        assert time.monotonic() - start < 30  # compilation included
        saved.append(_saved(workdir)[-1])
    assert saved == [3, 6, 12]
    assert tiny_run.run(workdir, stages="autoshot")[0] == 0
    _expect_same(workdir, tiny_run.workdir)


def test_a_batch_that_devices_cannot_share(train):
    codes, outputs = train(count=2, autoshot__batch_size=7)
    assert codes == (2, 2)
    assert "config.autoshot.batch_size: 7, expected a multiple of the 2 devices" in outputs[0]


def test_two_processes_fit_heads_on_batches_of_shots(forks, tiny_run, tmp_path):
    fields = {"stages": "fewshot", "fewshot__batch_size": 8, "fewshot__ensemble": 2}
    assert tiny_run.run(tmp_path / "one", **fields)[0] == 0  # on eight devices
    (tmp_path / "two").mkdir()
    codes, outputs = zip(*forks(tmp_path / "two", count=2, **fields), strict=True)
    assert codes == (0, 0), outputs
    one, two = (repgan_jax.load_labeller(tmp_path / name).variables for name in ("one", "two"))
    # twenty steps of 1e-2, on sums in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, two)
    one, two = (
        json.loads((tmp_path / name / "fewshot/curve.json").read_text()) for name in ("one", "two")
    )
    assert len(one) == 20 and one[-1]["loss"] < one[0]["loss"] / 2
    for row, other in zip(two, one, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_two_processes_make_a_successor_beside_the_result(forks, tiny_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run.workdir / "fewshot", workdir / "fewshot")
    fields = {"stages": "fewshot", "fewshot__batch_size": 8, "fewshot__steps": 2}
    codes, outputs = zip(*forks(workdir, count=2, **fields), strict=True)
    assert codes == (0, 0), outputs
    for folder, steps in (("fewshot", 2), ("fewshot.previous", 20)):
        assert len(json.loads((workdir / folder / "curve.json").read_text())) == steps
    assert not (workdir / "fewshot.next").exists()


def test_a_batch_of_shots_that_devices_cannot_share(tiny_run, tmp_path):
    code, _, err = tiny_run.run(tmp_path / "run", stages="fewshot", fewshot__batch_size=3)
    assert code == 2
    assert err == ("error: config.fewshot.batch_size: 3, expected a multiple of the 8 devices\n")
