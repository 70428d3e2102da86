"""Weights come back bit by bit, and bad folders end in one line."""

import errno
import os
from pathlib import Path

import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, checksums, json_files

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


def _cut(folder, name):
    damaged = folder / "tree" / name
    for file in [damaged] if damaged.is_file() else list(damaged.iterdir()):
        file.write_bytes(file.read_bytes()[:20])


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "d"])
def test_damage_is_proven_by_checksums(tmp_path, name):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    _cut(tmp_path / "heads", name)
    expected = rf"heads: damaged, as its checksums show .tree/{name}.* not as it was written"
    for read in (checkpoint.read_tree, checkpoint.tree_digest):
        with pytest.raises(UserError, match=f"{expected}.*; delete it and make it again"):
            read(tmp_path / "heads")


def test_every_changed_bit_is_damage(tmp_path):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    for file in [p for p in (tmp_path / "heads").rglob("*") if p.is_file()]:
        whole = file.read_bytes()
        for place in range(0, len(whole), max(len(whole) // 3, 1)):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            try:  # the checksums' own layout, say, may change
                _assert_same(checkpoint.read_tree(tmp_path / "heads"), TREE)
                assert file.name == checksums.NAME
            except UserError as error:
                assert "damaged" in str(error)
        file.unlink()
        if file.name != checksums.NAME:
            with pytest.raises(UserError, match="damaged.* missing"):
                checkpoint.read_tree(tmp_path / "heads")
        file.write_bytes(whole)
    _assert_same(checkpoint.read_tree(tmp_path / "heads"), TREE)


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "d"])
def test_without_checksums_nobody_is_told_to_delete(tmp_path, name):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    (tmp_path / "heads" / checksums.NAME).unlink()  # as earlier versions wrote it
    _assert_same(checkpoint.read_tree(tmp_path / "heads"), TREE)
    _cut(tmp_path / "heads", name)
    with pytest.raises(UserError, match="heads: cannot be read .*; it has no checksums") as caught:
        checkpoint.read_tree(tmp_path / "heads")
    assert "delete" not in str(caught.value)


def test_sound_files_that_orbax_does_not_read(tmp_path, monkeypatch):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "metadata", _full_disk)
    with pytest.raises(UserError, match="as they were written, perhaps by a later version") as told:
        checkpoint.read_tree(tmp_path / "heads")
    assert "delete" not in str(told.value)


def test_file_in_place_of_weights(tmp_path):
    (tmp_path / "heads").write_text("")
    with pytest.raises(UserError, match="heads: is a file, expected a folder of weights"):
        checkpoint.read_tree(tmp_path / "heads")


def _forbidden(path, *_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_weights_that_may_not_be_read(tmp_path, monkeypatch):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    monkeypatch.setattr(Path, "read_bytes", _forbidden)  # root may read anything
    with pytest.raises(UserError, match="checksums.json: cannot be read .Permission denied.; ask"):
        checkpoint.read_tree(tmp_path / "heads")


def test_file_without_checksum_that_may_not_be_read(tmp_path, monkeypatch):
    checkpoint.write_tree(tmp_path / "heads", TREE)
    (tmp_path / "heads" / checksums.NAME).unlink()
    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "metadata", _full_disk)
    monkeypatch.setattr(checkpoint.os, "access", lambda path, mode: path.name != "_METADATA")
    with pytest.raises(UserError, match="tree/_METADATA: cannot be read .Permission denied.; ask"):
        checkpoint.read_tree(tmp_path / "heads")


def test_folder_that_may_not_be_entered(tmp_path, monkeypatch):
    checkpoint.write_generator(tmp_path / "face", ARCHITECTURE, TREE)
    monkeypatch.setattr(Path, "is_file", _forbidden)  # root may enter any
    for read in (checkpoint.read_generator, checkpoint.read_tree, checkpoint.generator_digest):
        with pytest.raises(UserError, match="face.*: cannot be read .Permission denied.; ask"):
            read(tmp_path / "face")


def test_digest_of_tensors_is_of_numbers_not_of_bytes(tmp_path):
    for name in ("one", "two"):
        checkpoint.write_tree(tmp_path / name, TREE)
    (tmp_path / "two" / checksums.NAME).unlink()
    digest = checkpoint.tree_digest(tmp_path / "one")
    assert checkpoint.tree_digest(tmp_path / "two") == digest == checksums.tensor_digest(TREE)
    backwards = {name: TREE[name] for name in reversed(TREE)}
    assert checksums.tensor_digest(backwards) == digest


@pytest.mark.parametrize(
    "change",
    [
        {"count": np.int64(2**40 + 1)},
        {"count": np.float64(2**40)},
        {"half": jnp.ones((3, 1), jnp.bfloat16)},
        {"half": jnp.ones((3,), jnp.float16)},
        {"more": np.zeros(())},
        {"half": -jnp.ones((3,), jnp.bfloat16)},
    ],
)
def test_digest_of_tensors_sees_every_change(change):
    assert checksums.tensor_digest({**TREE, **change}) != checksums.tensor_digest(TREE)


def test_digest_of_a_generator(tmp_path):
    def digest(name, architecture=ARCHITECTURE, variables=TREE, discriminator=None):
        checkpoint.write_generator(tmp_path / name, architecture, variables, discriminator)
        return checkpoint.generator_digest(tmp_path / name)

    first = digest("first")
    assert digest("again") == first  # Orbax's bytes are others
    assert digest("d", {**ARCHITECTURE, "discriminator": "x"}, discriminator=TREE) == first
    assert digest("other architecture", {**ARCHITECTURE, "resolution": 32}) != first
    assert digest("other tensors", variables={**TREE, "count": np.int64(3)}) != first
    (tmp_path / "first/samples.png").write_bytes(b"anything")
    assert checkpoint.generator_digest((tmp_path / "first").rename(tmp_path / "moved")) == first


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
    with pytest.raises(
        UserError, match="no generator here .no arch.*repgan_jax.conv.*mobilestylegan"
    ):
        checkpoint.read_generator(tmp_path)
    with pytest.raises(UserError, match="gone: no generator here .no such folder."):
        checkpoint.read_generator(tmp_path / "gone")
    (tmp_path / "face.pt").write_bytes(b"")
    with pytest.raises(
        UserError, match="face.pt: is a file.* repgan_jax.converters.stylegan2 .*face.pt OUT"
    ):
        checkpoint.read_generator(tmp_path / "face.pt")
    json_files.write(tmp_path / "architecture.json", {"format": 7})
    with pytest.raises(UserError, match=f"format 7, expected {checkpoint.FORMAT}; was .*later"):
        checkpoint.read_generator(tmp_path)
    json_files.write(tmp_path / "architecture.json", {"format": 1})
    with pytest.raises(UserError, match=f"format 1, expected {checkpoint.FORMAT}; convert again"):
        checkpoint.read_generator(tmp_path)
    (tmp_path / "architecture.json").write_text("{")
    with pytest.raises(UserError, match="architecture.json: not JSON"):
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
    with pytest.raises(UserError, match="run/5: cannot be read .*move it away to go on"):
        checkpoint.Checkpoints(tmp_path / "run").restore(_state(0))
