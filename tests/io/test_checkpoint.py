"""Weights come back bit by bit, and bad folders end in one line."""

import errno
import os

import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint

TREE = {
    "mapping": {"params": {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}},
    "noise": {},
    "half": jnp.ones((3,), jnp.bfloat16),
    "count": np.int64(2**40),
}
ARCHITECTURE = {"name": "stylegan2", "resolution": 64}


def _full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, jax.tree.map(np.asarray, expected))


def test_tree_comes_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.write_tree("weights/heads", {"stale": np.zeros(3)})
    checkpoint.write_tree("weights/heads", TREE)  # relative, and replaces
    got = checkpoint.read_tree("weights/heads")
    _assert_same(got, TREE)
    assert got["half"].dtype == jnp.bfloat16 and got["count"].dtype == np.int64
    assert os.listdir("weights") == ["heads"]


def test_missing_tree_is_named(tmp_path):
    with pytest.raises(UserError, match="heads: no weights here; run the stage"):
        checkpoint.read_tree(tmp_path / "heads")


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "d"])
def test_damaged_tree_is_named(tmp_path, name):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    damaged = tmp_path / "heads" / "tree" / name
    for file in [damaged] if damaged.is_file() else list(damaged.iterdir()):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match="heads: cannot be read .*; delete it"):
        checkpoint.read_tree(tmp_path / "heads")


def test_full_disk_keeps_the_old_tree(tmp_path, monkeypatch):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "save", _full_disk)
    with pytest.raises(UserError, match="heads: not written .*No space left"):
        checkpoint.write_tree(tmp_path / "heads", {"other": np.zeros(3)})
    _assert_same(checkpoint.read_tree(tmp_path / "heads"), TREE)
    assert [path.name for path in tmp_path.iterdir()] == ["heads"]


def test_generator_comes_back(tmp_path):
    checkpoint.write_generator(tmp_path / "face", ARCHITECTURE, {"old": np.zeros(2)})
    checkpoint.write_generator(tmp_path / "face", ARCHITECTURE, TREE)  # converting again is fine
    architecture, variables = checkpoint.read_generator(tmp_path / "face")
    assert architecture == {"format": checkpoint.FORMAT, **ARCHITECTURE}
    _assert_same(variables, TREE)


def test_generator_leaves_nothing_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "save", _full_disk)
    with pytest.raises(UserError, match="face: not written"):
        checkpoint.write_generator(tmp_path / "face", ARCHITECTURE, TREE)
    assert not list(tmp_path.iterdir())


def test_generator_refuses_a_folder_with_other_things(tmp_path):
    (tmp_path / "diary.txt").write_text("dear me")
    with pytest.raises(UserError, match="holds something else"):
        checkpoint.write_generator(tmp_path, ARCHITECTURE, TREE)
    assert (tmp_path / "diary.txt").read_text() == "dear me"


def test_generator_missing_or_of_another_format(tmp_path):
    with pytest.raises(UserError, match="no generator here .*repgan_jax.converters.mobilestylegan"):
        checkpoint.read_generator(tmp_path)
    checkpoint.write_json(tmp_path / "architecture.json", {"format": 7})
    with pytest.raises(UserError, match=f"format 7, expected {checkpoint.FORMAT}; convert again"):
        checkpoint.read_generator(tmp_path)
    (tmp_path / "architecture.json").write_text("{")
    with pytest.raises(UserError, match="architecture.json: cannot be read"):
        checkpoint.read_generator(tmp_path)


OPTIMIZER = optax.adamw(1e-3)


def _state(seed):
    return flax.training.train_state.TrainState.create(
        apply_fn=None,
        params={"kernel": jax.random.normal(jax.random.key(seed), (4, 3))},
        tx=OPTIMIZER,
    )


def test_training_state_goes_on_from_the_newest_whole_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = checkpoint.Checkpoints("run", keep=2)
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        checkpoints.save(step, _state(step))
    (tmp_path / "run" / "20.orbax-checkpoint-tmp").mkdir()  # what a kill in mid-save leaves

    again = checkpoint.Checkpoints("run", keep=2)
    assert again.latest() == 15
    restored = again.restore(_state(0))
    _assert_same(restored, _state(15))
    assert isinstance(restored.params["kernel"], jax.Array)
    _assert_same(again.restore(_state(0), step=10), _state(10))
    assert not (tmp_path / "run" / "5").exists()


def test_damaged_training_state_is_named(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path / "run")
    checkpoints.save(5, _state(5))
    for file in (tmp_path / "run" / "5").rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="run/5: cannot be read"):
        checkpoint.Checkpoints(tmp_path / "run").restore(_state(0))
