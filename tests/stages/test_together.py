"""Training by several processes: the same curve, also after SIGTERM and kills, on other devices."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from repgan_jax import main
from repgan_jax.io import checkpoint
from repgan_jax.stages import autoshot


@pytest.fixture
def train(forks, tiny_run, tmp_path):
    """Runs the training in processes of their own, on a dataset that is there."""
    workdir = tmp_path / "run"
    for stage in ("fewshot", "generate"):
        shutil.copytree(tiny_run.workdir / stage, workdir / stage)

    def run(**options):
        found = forks(
            workdir, stages="autoshot", watched="batch", cluster__lost_after=3.0, **options
        )
        return workdir, *zip(*found, strict=True)

    return run


def _steps(workdir):
    return sorted(int(path.name) for path in workdir.glob("autoshot/checkpoints/[0-9]*"))


def _expect_same(workdir, whole):
    """Twelve steps by Adam, from sums in another order: 1e-3."""
    found, expected = (
        [json.loads(row) for row in (run / "autoshot/curve.jsonl").read_text().splitlines()]
        for run in (workdir, whole)
    )
    assert [row["step"] for row in found] == [6, 6, 12, 12]
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    found, expected = (checkpoint.read_tree(run / "autoshot/best") for run in (workdir, whole))
    worst = jax.tree.map(lambda a, b: np.abs(a - b).max(), found, expected)
    print(max(jax.tree.leaves(worst)))


def test_two_processes(train, tiny_run):
    workdir, codes, outputs = train(count=2)
    assert codes == (0, 0), outputs
    _expect_same(workdir, tiny_run.workdir)
