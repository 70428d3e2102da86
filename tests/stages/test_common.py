"""Stages skip, go on, start again or refuse, as they should."""

import errno
import fcntl
import json
import shutil

import pytest
from ml_collections import ConfigDict

from repgan_jax.errors import UserError
from repgan_jax.stages import common, fingerprints, folders

FIELDS = ("seed", "fewshot.steps", "fewshot.augment")


def _config(**changes):
    config = ConfigDict(
        {"seed": 0, "fewshot": {"steps": 3, "augment": {"flip": 0.5, "scale": (1, 2)}}}
    )
    config.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return config


def _run(workdir, config, *, finish=True, **options):
    """Runs a stage that leaves a file; returns whether it was finished and what lay there."""
    with common.stage("fewshot", config, workdir, FIELDS, **options) as stage:
        before = sorted(path.name for path in stage.folder.iterdir())
        if stage.finished:
            return True, before
        (stage.folder / "work").write_text("half")
        if finish:
            stage.finish({"steps": 3})
        return False, before


def test_finished_stage_is_skipped(tmp_path, capsys):
    assert _run(tmp_path, _config()) == (False, ["stage.json"])
    record = json.loads((tmp_path / "fewshot/stage.json").read_text())
    assert record["status"] == "done" and record["summary"] == {"steps": 3}
    assert record["fields"]["fewshot.augment.scale"] == [1, 2]
    assert record["seconds"] >= 0
    assert _run(tmp_path, _config()) == (True, ["stage.json", "work"])
    assert "fewshot: done already (same settings)\n" in capsys.readouterr().out


def test_interrupted_stage_goes_on(tmp_path):
    _run(tmp_path, _config(), finish=False)
    assert _run(tmp_path, _config()) == (False, ["stage.json", "work"])


@pytest.mark.parametrize("finish", [True, False])
def test_changed_field_starts_again(tmp_path, capsys, finish):
    _run(tmp_path, _config(), finish=finish)
    assert _run(tmp_path, _config(fewshot__augment__flip=0.0)) == (False, ["stage.json"])
    assert "starting again, for these changed: config.fewshot.augment.flip 0.5 -> 0.0" in (
        capsys.readouterr().out
    )


def test_changed_input_starts_again(tmp_path, capsys):
    shots = tmp_path / "shots"
    shots.mkdir()
    (shots / "a.png").write_bytes(b"a")
    run = tmp_path / "run"
    _run(run, _config(), inputs={"shots": fingerprints.digest(shots)})
    assert _run(run, _config(), inputs={"shots": fingerprints.digest(shots)})[0]
    (shots / "a.png").write_bytes(b"b")
    assert not _run(run, _config(), inputs={"shots": fingerprints.digest(shots)})[0]
    assert "these changed: shots\n" in capsys.readouterr().out


def test_file_system_without_locks(tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", flock)
    with pytest.raises(UserError, match="its file system has no locks .No locks available.; "):
        _run(tmp_path, _config())


def test_lock_can_be_shared_where_that_needs_reading(tmp_path):
    with folders.lock(tmp_path, fcntl.LOCK_EX) as file:
        assert file.readable()


def test_precious_work_is_not_thrown_away(tmp_path):
    _run(tmp_path, _config())
    with pytest.raises(UserError, match="config.seed 0 -> 4.*delete that folder or choose"):
        _run(tmp_path, _config(seed=4), refuse_changes=True)
    assert (tmp_path / "fewshot/work").exists()


def test_nothing_done_is_no_work_to_protect(tmp_path):
    with common.stage("fewshot", _config(seed=9), tmp_path, FIELDS):
        pass  # it failed on its first check, say
    assert _run(tmp_path, _config(), refuse_changes=True) == (False, ["stage.json"])


def test_finished_result_stays_until_its_successor_is_complete(tmp_path, capsys):
    _run(tmp_path, _config())
    (tmp_path / "fewshot/work").write_text("first")
    assert _run(tmp_path, _config(seed=1), finish=False) == (False, ["stage.json"])
    assert (
        "the finished result stays in use until the new one is complete" in capsys.readouterr().out
    )
    assert (common.finished_folder(tmp_path, "fewshot") / "work").read_text() == "first"
    assert _run(tmp_path, _config()) == (True, ["stage.json", "work"])
    assert _run(tmp_path, _config(seed=1), finish=False) == (False, ["stage.json", "work"])
    assert "going on with what was interrupted, where these changed: config.seed 0 -> 1" in (
        capsys.readouterr().out
    )
    before = common.fingerprint(tmp_path, "fewshot")
    assert _run(tmp_path, _config(seed=1)) == (False, ["stage.json", "work"])
    assert common.fingerprint(tmp_path, "fewshot") != before
    assert (common.finished_folder(tmp_path, "fewshot") / "work").read_text() == "half"
    assert _folders(tmp_path) == {"fewshot", "fewshot.previous"}


def test_settings_of_the_result_before_bring_it_back(tmp_path, capsys):
    for seed in (0, 1, 2):
        _run(tmp_path, _config(seed=seed))
        (tmp_path / "fewshot/work").write_text(f"seed {seed}")
    assert _folders(tmp_path) == {"fewshot", "fewshot.previous"}  # one is kept, not two
    for seed in (1, 2, 1):
        capsys.readouterr()
        assert _run(tmp_path, _config(seed=seed))[0]
        assert (tmp_path / "fewshot/work").read_text() == f"seed {seed}"
        assert "done already (same settings), kept until now" in capsys.readouterr().out
    assert not _run(tmp_path, _config(seed=0))[0]


def test_unfinished_work_makes_room_for_yet_other_settings(tmp_path, capsys):
    _run(tmp_path, _config())
    _run(tmp_path, _config(seed=1), finish=False)
    assert _run(tmp_path, _config(seed=2), finish=False) == (False, ["stage.json"])
    assert "unfinished work of yet other settings is dropped" in capsys.readouterr().out
    assert _run(tmp_path, _config())[0]
    assert _folders(tmp_path) == {"fewshot", "fewshot.next"}


def test_unfinished_work_can_be_protected(tmp_path):
    _run(tmp_path, _config())
    _run(tmp_path, _config(seed=1), finish=False, keep_unfinished=True)
    with pytest.raises(UserError, match="fewshot.next: made with other settings .config.seed 1 ->"):
        _run(tmp_path, _config(seed=2), keep_unfinished=True)
    assert (tmp_path / "fewshot.next/work").exists()
    _run(tmp_path, _config(seed=1), keep_unfinished=True)
    assert _run(tmp_path, _config(seed=2), keep_unfinished=True) == (False, ["stage.json"])


def test_bringing_a_result_back_drops_no_protected_work(tmp_path):
    for seed in (0, 1):  # 0 becomes the result before
        _run(tmp_path, _config(seed=seed))
    shutil.rmtree(tmp_path / "fewshot")
    _run(tmp_path, _config(seed=2), finish=False, keep_unfinished=True)
    with pytest.raises(UserError, match="fewshot: made with other settings .config.seed 2 -> 0"):
        _run(tmp_path, _config(seed=0), keep_unfinished=True)
    assert (tmp_path / "fewshot/work").exists()


def test_foreign_folders_beside_a_stage_are_left_alone(tmp_path):
    _run(tmp_path, _config())
    (tmp_path / "fewshot.previous").mkdir()
    (tmp_path / "fewshot.previous/novel.txt").write_text("it was a dark night")
    with pytest.raises(UserError, match="fewshot.previous: not the folder of a stage"):
        _run(tmp_path, _config(seed=1))


def _folders(workdir):
    return {path.name for path in workdir.iterdir() if path.is_dir()}


@pytest.mark.parametrize("field", ["fewshot.steps", "seed"])
def test_numbers_that_must_be_positive(field):
    common.expect_positive(_config(seed=1), "seed", "fewshot.steps")
    with pytest.raises(UserError, match=f"^config.{field}: 0, expected at least 1$"):
        common.expect_positive(_config(**{"seed": 1, field.replace(".", "__"): 0}), field)


def test_change_travels_to_later_stages(tmp_path):
    def later():
        with common.stage("generate", _config(), tmp_path, (), after=("fewshot",)) as stage:
            if not stage.finished:
                stage.finish({})
                return "ran"
            return "skipped"

    with pytest.raises(UserError, match="stage fewshot is not finished; run it first"):
        later()
    _run(tmp_path, _config())
    assert (later(), later()) == ("ran", "skipped")
    _run(tmp_path, _config(seed=1))
    assert (later(), later()) == ("ran", "skipped")


def test_unfinished_stage_is_not_read(tmp_path):
    _run(tmp_path, _config(), finish=False)
    with pytest.raises(UserError, match="not finished"):
        common.finished_folder(tmp_path, "fewshot")
    _run(tmp_path, _config())
    assert common.finished_folder(tmp_path, "fewshot") == tmp_path / "fewshot"


def test_foreign_folder_is_not_emptied(tmp_path):
    (tmp_path / "fewshot").mkdir()
    (tmp_path / "fewshot/novel.txt").write_text("it was a dark night")
    with pytest.raises(UserError, match="not the folder of a stage"):
        _run(tmp_path, _config())


def test_two_runs_do_not_share_a_workdir(tmp_path):
    with (
        common.stage("fewshot", _config(), tmp_path, FIELDS),
        pytest.raises(UserError, match="another run is working here"),
    ):
        _run(tmp_path, _config())
