"""Which examples a training step sees."""

import numpy as np
import pytest

from repgan_jax.data import dataset
from repgan_jax.errors import UserError
from repgan_jax.training import batches


@pytest.fixture(scope="module")
def data(tiny_run):
    return dataset.open_dataset(tiny_run.workdir / "generate")


def _batches(data, start=0, **options):
    settings = {"count": 10, "batch_size": 4, "steps": 9, "seed": 3, "soft_targets": True}
    return batches.make_batches(data, 3, start=start, **settings | options)


def test_batches_of_a_restart_are_those_that_were_left(data):
    whole, rest = (list(_batches(data, start)) for start in (0, 4))
    assert (len(whole), len(rest)) == (9, 5)
    for batch, expected in zip(rest, whole[4:], strict=True):
        for name, value in batch.items():
            np.testing.assert_array_equal(value, expected[name])
    assert not list(_batches(data, 9))


def test_every_picture_comes_once_an_epoch_and_none_that_is_held_out(data):
    found = list(_batches(data))
    seen = [picture.tobytes() for batch in found for picture in batch["image"]]
    known = {data[i]["image"].tobytes() for i in range(10)}
    for epoch in range(3):
        assert set(seen[10 * epoch : 10 * (epoch + 1)]) == known
    assert seen[:10] != seen[10:20]  # shuffled anew
    positions = np.concatenate([batch["position"] for batch in found])
    np.testing.assert_array_equal(positions, np.arange(36))


def test_hard_targets_are_the_masks(data):
    soft, hard = (next(_batches(data, soft_targets=soft))["targets"] for soft in (True, False))
    assert hard.shape == soft.shape and set(np.unique(hard)) == {0, 1}
    np.testing.assert_array_equal((hard * soft).sum(-1), soft.max(-1))


def test_held_out_share_leaves_something():
    assert batches.num_held_out(100, 0.05) == 5 and batches.num_held_out(10, 0.0) == 1
    with pytest.raises(UserError, match="held_out: 1.0 of 12 generated images leaves none"):
        batches.num_held_out(12, 1.0)
