"""However many processes write a dataset, and however often they die, its bytes are the same."""

import fcntl
import json
import shutil
import signal

import numpy as np
import pytest

from repgan_jax.data import dataset
from repgan_jax.stages import common

SHARDS, SIZE = 6, 2  # of the fixture `whole`
KILLS = 30


@pytest.fixture
def workdir(whole, tmp_path):
    """A copy of that dataset's run."""
    return shutil.copytree(whole, tmp_path / "run")


def _files(workdir):
    """Returns the bytes of all that the dataset consists of; the stage's record has a duration."""
    folder = workdir / "generate"
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "stage.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _shard(workdir, i):
    return next(workdir.glob(f"generate/generated/*/*-0000{i}-of-0000{SHARDS}"))


def test_one_process_on_eight_devices_wrote_the_same_records(whole, tiny_run):
    found, expected = (dataset.open_dataset(w / "generate") for w in (whole, tiny_run.workdir))
    assert len(found) == len(expected) == SHARDS * SIZE
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], name)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_number_of_processes_and_batch_change_no_byte(forks, whole, tmp_path, count):
    batch = {"generate__batch_size": count + 1}
    for code, output in forks(tmp_path / "run", count=count, **batch):
        assert code == 0, output
    assert _files(tmp_path / "run") == _files(whole)


def test_metadata_and_notes_describe_the_records(whole):
    records = list(dataset.open_dataset(whole / "generate"))
    found = json.loads((whole / "generate/generated/1.0.0/metadata.json").read_text())
    record = json.loads((whole / "generate/stage.json").read_text())
    assert found == record["summary"]
    assert found["fingerprint"] == record["fingerprint"] and found["seed"] == 0
    confidence = [float(record["confidence"]) for record in records]
    assert found["mean_confidence"] == pytest.approx(np.mean(confidence))
    pixels = np.bincount(np.stack([record["mask"] for record in records]).ravel(), minlength=3)
    assert list(found["class_shares"].values()) == pytest.approx(pixels / pixels.sum())
    notes = [json.loads(path.read_text()) for path in sorted(whole.glob("generate/shards/*.json"))]
    assert sum((note["confidence"] for note in notes), []) == confidence
    manifest = json.loads((whole / "generate/manifest.json").read_text())
    assert (manifest["num_shards"], manifest["shard_size"]) == (SHARDS, SIZE)


def test_bad_shards_are_named_and_made_again(forks, whole, workdir):
    data = _shard(workdir, 0).read_bytes()
    _shard(workdir, 0).write_bytes(data[: len(data) // 2])
    data = bytearray(_shard(workdir, 2).read_bytes())
    data[len(data) // 2] ^= 4
    _shard(workdir, 2).write_bytes(data)
    (workdir / "generate/shards/00003.json").write_text("{")
    _shard(workdir, 5).unlink()
    good = {path: path.stat().st_mtime_ns for path in (_shard(workdir, 1), _shard(workdir, 4))}

    ((code, output),) = forks(workdir, stages="verify")
    assert code == 2 and "4 of 6 shards are bad" in output and "--config.stages=repair" in output
    for i in range(SHARDS):
        assert (f"-0000{i}-of-00006 (" in output) == (i in (0, 2, 3, 5))
    ((code, output),) = forks(workdir, stages="repair,verify")
    assert code == 0 and "generate: 4 of 6 shards to be written" in output
    assert "12 records in 6 shards are as they were written; 8 of them, generated" in output
    assert _files(workdir) == _files(whole)
    assert good == {path: path.stat().st_mtime_ns for path in good}


def test_records_of_other_settings_are_found_by_generating_them_again(forks, whole, tmp_path):
    """Shard and note agree, but are not of this seed."""
    workdir = shutil.copytree(whole, tmp_path / "run")
    other = tmp_path / "other"
    assert forks(other, generate__truncation=0.9)[0][0] == 0
    shutil.copy(_shard(other, 3), _shard(workdir, 3))
    shutil.copy(other / "generate/shards/00003.json", workdir / "generate/shards/00003.json")
    ((code, output),) = forks(workdir, stages="verify", verify__samples=12)
    assert code == 2 and "1 of 6 shards are bad" in output
    assert "00003-of-00006 (sample 7 is not what is generated here and now)" in output
    assert forks(workdir, stages="repair")[0][0] == 0
    assert _files(workdir) == _files(whole)


@pytest.mark.parametrize("stage", ["verify", "repair"])
def test_an_unfinished_dataset_is_not_repaired(tiny_run, workdir, stage):
    record = json.loads((workdir / "generate/stage.json").read_text())
    (workdir / "generate/stage.json").write_text(json.dumps({**record, "status": "running"}))
    code, _, err = tiny_run.run(workdir, stages=stage, generate__shard_size=SIZE)
    assert code == 2 and "stage generate is not finished; run it first" in err


@pytest.mark.slow
def test_killed_at_random_it_ends_as_if_undisturbed(forks, whole, tmp_path):
    """One or two processes; any of them dies, or all at once, at any moment of their work."""
    rng = np.random.default_rng()
    kills, runs, workdir = 0, 0, tmp_path / "run0"
    while kills < KILLS or workdir.exists():
        count = int(rng.choice([1, 2], p=[0.7, 0.3]))
        doomed = rng.permutation(count)[: rng.integers(1, count + 1)] if kills < KILLS else ()
        ends = {int(i): (int(rng.integers(1, 45)), rng.uniform(0, 0.02), 9) for i in doomed}
        done = forks(workdir, count=count, ends=ends, cluster__lost_after=2.0)
        codes = [code for code, _ in done]
        kills += codes.count(-signal.SIGKILL)
        if codes == [0] * count:
            assert _files(workdir) == _files(whole)
            runs, workdir = runs + 1, tmp_path / f"run{runs + 1}"
    assert runs > 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_sigterm_ends_it_without_a_loss(forks, whole, tmp_path, count):
    workdir = tmp_path / "run"
    first_shard = str(workdir / "generate/shards")
    ends = {count - 1: (1, 0.0, signal.SIGTERM)}
    *others, (code, output) = forks(workdir, count=count, ends=ends, watched=first_shard)
    assert code == 0 and "stopped by SIGTERM; what is written is whole" in output
    for code, output in others:
        assert code == 75 and "error: process 1 of 2 has failed or was stopped" in output
    assert json.loads((workdir / "generate/stage.json").read_text())["status"] == "running"
    for code, output in forks(workdir, count=count):
        assert code == 0, output
    assert _files(workdir) == _files(whole)


@pytest.mark.slow
def test_no_process_outlives_another(forks, tmp_path):
    codes, outputs = zip(
        *forks(tmp_path / "a", count=2, ends={1: (12, 0, 9)}, cluster__lost_after=4.0), strict=True
    )
    assert codes == (75, -signal.SIGKILL)
    assert "error: no sign of life from process 1 of 2 for 4 s; run the same" in outputs[0]
    codes, _ = zip(*forks(tmp_path / "b", count=2, ends={0: (20, 0, 9)}), strict=True)
    assert codes == (-signal.SIGKILL, -signal.SIGABRT)  # by JAX itself, at once
    changes = {1: {"generate__truncation": 0.9}}
    codes, outputs = zip(*forks(tmp_path / "c", count=2, changes=changes), strict=True)
    assert codes == (75, 2)
    assert "error: process 1 of 2 has failed or was stopped; see its own output" in outputs[0]
    assert "process 0 has other settings (config.generate.truncation 1.0 -> 0.9)" in outputs[1]


@pytest.mark.parametrize("fields", [{"distributed": True}, {"cluster__address": "localhost:1"}])
def test_a_process_that_nobody_tells_who_it_is(forks, tmp_path, fields):
    ((code, output),) = forks(tmp_path / "run", **fields)
    assert code == 2
    assert output.startswith("error: config.distributed: ") and output.count("\n") == 1
    assert "Set config.cluster.address, processes and process, where no cluster sets" in output


def test_what_is_left_of_a_run_keeps_others_out(tiny_run, workdir):
    """A process that is not the first one shares the lock, while it lives."""
    with (workdir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        code, _, err = tiny_run.run(workdir, stages="generate", generate__shard_size=SIZE)
    assert code == 2 and "another run is working here" in err
    assert common.finished_folder(workdir, "generate")
