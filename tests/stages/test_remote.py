"""A run on remote storage is a local one: tested against an emulator, not Google's servers."""

import json
import os
import signal
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import fsspec
import numpy as np
import pytest
from etils import epath
from gcp_storage_emulator import server as emulator

import repgan_jax
from repgan_jax.io import images, remote

_SENT = []  # names of objects, in the order in which they got them


def _move(request, response, storage):
    """Renames an object at one stroke, which the emulator does not know yet."""
    bucket, old, new = (request.params[name] for name in ("bucket", "old", "new"))
    response.json(emulator.objects._copy(request.base_url, storage, bucket, old, bucket, new))
    storage.delete_file(bucket, old)
    _SENT.append(new)


def _forbid(request, response, storage):
    response.status = HTTPStatus.FORBIDDEN
    response.json({"error": {"code": 403, "message": "you may not"}})


@pytest.fixture(scope="module")
def bucket(forks):
    """The address of a bucket that an emulator serves; processes of `forks` find it as well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = emulator.settings.API_ENDPOINT
    handlers = (
        (r"^.*/b/private(/.*)?$", {"GET": _forbid, "POST": _forbid}),
        (rf"^{api}/b/(?P<bucket>[^/]+)/o/(?P<old>.+)/moveTo/o/(?P<new>.+)$", {"POST": _move}),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator, "HANDLERS", handlers + emulator.HANDLERS)
        patch.setattr(emulator.server.HTTPServer, "request_queue_size", 100)
        patch.setattr(emulator.server.HTTPServer, "handle_error", lambda *_: None)
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        forks.environment["STORAGE_EMULATOR_HOST"] = os.environ["STORAGE_EMULATOR_HOST"]
        patch.setitem(fsspec.config.conf, "gcs", {"use_listings_cache": False})
        with emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket"):
            yield epath.Path("gs://bucket")


@pytest.fixture
def heads(bucket, tiny_run, request):
    """The address of a run of its own for the test, with heads but without a dataset."""
    return _copy(tiny_run.workdir, bucket / request.node.name, "fewshot")


@pytest.fixture
def data(heads, whole):
    """The address of a run of its own for the test, with heads and a dataset."""
    return _copy(whole, heads, "generate")


@pytest.fixture(scope="module")
def remote_run(bucket, tiny_chain, tmp_path_factory):
    """(address, output, temporary folder) of a finished run on the bucket."""
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        stages = "fewshot,generate,verify,autoshot,segment,report"
        code, out, err = tiny_chain.run(bucket / "chain/run", stages=stages)
    assert code == 0, err
    return bucket / "chain/run", out, temporary


def _copy(workdir, url, stage):
    for path in (workdir / stage).rglob("*"):
        if path.is_file():
            (url / path.relative_to(workdir)).write_bytes(path.read_bytes())
    return url


def _files(folder):
    """Returns the bytes of all files, local or remote, by their path below `folder`."""
    names = _names(folder)
    with ThreadPoolExecutor(8) as pool:
        contents = pool.map(lambda name: (folder / name).read_bytes(), names)
        return dict(zip(names, contents, strict=True))


def _names(folder):
    found, top = [], None
    for root, _, names in epath.Path(folder).walk():
        top = top or root
        found += [str((root / name).relative_to(top)) for name in names]
    return sorted(found)


def _dataset(folder):
    """Returns the bytes of all that a dataset consists of; the stage's record has a duration."""
    return {
        name: data for name, data in _files(folder / "generate").items() if name != "stage.json"
    }


def test_chain_leaves_there_what_a_local_run_leaves_here(remote_run, tiny_run):
    url, _, temporary = remote_run
    found, expected = _names(url), _names(tiny_run.workdir)
    hashed = ("/d/", "tfevents")  # names with random numbers or the time in them
    plain = {name for name in expected if not any(part in name for part in hashed)}
    plain = {name for name in plain if not name.startswith(("evaluate", "sample", ".lock"))}
    assert plain == {name for name in found if not any(part in name for part in hashed)}
    assert len(found) > len(plain) + 20
    assert _dataset(url) == _dataset(tiny_run.workdir)
    for name in ("fewshot/shots.npz", "autoshot/curve.jsonl", "segment/masks/3.png"):
        assert (url / name).read_bytes() == (tiny_run.workdir / name).read_bytes()
    assert not any(temporary.iterdir())


def test_what_says_that_others_are_there_is_sent_after_them(remote_run):
    for stage in ("fewshot", "generate", "autoshot"):
        sent = [name for name in _SENT if name.startswith(f"chain/run/{stage}/")]
        places = [i for i, name in enumerate(sent) if name.endswith("stage.json")]
        assert places == [0, len(sent) - 1]  # when it begins, and when it is done
    for i in range(3):
        shard, note = (
            next(place for place, name in enumerate(_SENT) if name.endswith(end))
            for end in (f"array_record-0000{i}-of-00003", f"shards/0000{i}.json")
        )
        assert shard < note


def test_output_names_the_address(remote_run):
    url, out, temporary = remote_run
    assert f"report: {url}/report.html" in out and f"5 of 5 photos done, in {url}/segment" in out
    assert str(temporary) not in out


def test_finished_stages_are_skipped_and_the_network_is_loaded(remote_run, tiny_chain, tiny_run):
    url, *_ = remote_run
    code, out, err = tiny_chain.run(url, stages="fewshot,generate,autoshot")
    assert code == 0 and out.count("done already (same settings)") == 3, err
    photo = images.read_photo(tiny_run.photos / "images/1.png")[None]
    found, expected = (repgan_jax.load_segmenter(run) for run in (url, tiny_run.workdir))
    np.testing.assert_array_equal(found.predict(photo), expected.predict(photo))


def test_other_settings_are_refused_and_nothing_is_lost(remote_run, tiny_chain):
    url, *_ = remote_run
    before = _files(url / "fewshot")
    code, _, err = tiny_chain.run(url, stages="fewshot", fewshot__steps=3)
    assert code == 2 and err.count("\n") == 1
    assert f"error: {url}/fewshot: made with other settings (config.fewshot.steps 20 -> 3)" in err
    assert _files(url / "fewshot") == before


def test_a_run_that_took_the_folder_meanwhile_is_noticed(heads, tiny_chain, monkeypatch):
    path = heads / "sample/stage.json"

    def take(*_, **__):
        record = json.loads(path.read_text())
        record["fields"]["sample.num_images"] = 5
        path.write_text(json.dumps(record))

    monkeypatch.setattr(images, "write_png", take)
    code, _, err = tiny_chain.run(heads, stages="sample")
    assert code == 2 and err.count("\n") == 1
    assert f"{heads}/sample: another run has other settings (config.sample.num_images 5" in err


def test_processes_without_a_common_folder_write_the_same_bytes(heads, forks, whole, tmp_path):
    for code, output in forks(tmp_path / "both", url=heads, count=2):
        assert code == 0, output
    assert _dataset(heads) == _dataset(whole)
    assert not any((tmp_path / "both").iterdir())


def test_two_runs_at_once_do_no_harm(heads, forks, whole, tmp_path):
    alone = {"cluster__address": "", "cluster__processes": 0, "cluster__process": -1}
    for code, output in forks(tmp_path, url=heads, count=2, changes={0: alone, 1: alone}):
        assert code == 0, output
    assert _dataset(heads) == _dataset(whole)


def test_killed_it_goes_on_elsewhere(heads, forks, whole, tmp_path):
    for i, moment in enumerate((9, 12)):
        ends = {"watched": "array_record", "ends": {0: (moment, 0.0, 9)}}
        ((code, _),) = forks(tmp_path / f"{i}", url=heads, **ends)
        assert code == -signal.SIGKILL
    left = sum("shards/0" in name for name in _names(heads))  # notes, that come last
    assert 0 < left < 6  # what it had written and sent stays
    ((code, output),) = forks(tmp_path / "last", url=heads)
    assert code == 0 and f"{6 - left} of 6 shards to be written" in output
    assert _dataset(heads) == _dataset(whole)


def test_bad_shards_are_named_and_made_again(data, forks, whole, tmp_path):
    cut, changed, lost = sorted(data.glob("generate/generated/*/*array_record*"))[:3]
    cut.write_bytes(cut.read_bytes()[:-9])
    changed.write_bytes(changed.read_bytes()[:-9] + b"123456789")
    lost.unlink()
    (code, output), (other, _) = forks(tmp_path / "verify", url=data, count=2, stages="verify")
    assert (code, other) == (2, 75)
    assert f"error: {data}/generate: 3 of 6 shards are bad: " in output
    ((code, output),) = forks(tmp_path / "repair", url=data, stages="repair,verify")
    assert code == 0 and "3 of 6 shards to be written" in output
    assert "12 records in 6 shards are as they were written" in output
    assert _dataset(data) == _dataset(whole)


def test_training_goes_on_elsewhere(data, forks, tmp_path):
    fields = {"url": data, "stages": "autoshot"}
    ends = {"watched": "kept.tar", "ends": {0: (7, 0.0, 9)}}  # once it is there
    ((code, output),) = forks(tmp_path / "first", **fields, **ends)
    assert code == -signal.SIGKILL, output
    ((code, output),) = forks(tmp_path / "second", **fields)
    assert code == 0 and "| 6/12 [00:00<" in output, output
    assert (data / "autoshot/segmenter/config.json").exists()
    assert not (data / "autoshot/.kept.tar").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workdir": "gs://nowhere/run"}, "gs://nowhere/run"),
        ({"workdir": "gs://private/run"}, "gs://private/run"),
        (
            {"segment__output": "gs://bucket/out"},
            "config.segment.output: gs://bucket/out, expected",
        ),
        ({"workdir": "s3://bucket/run"}, "config.workdir: s3://bucket/run, expected"),
    ],
)
def test_errors_say_in_a_line_what_to_do(bucket, tiny_chain, tmp_path, fields, message):
    fields = {"workdir": tmp_path, **fields}
    code, _, err = tiny_chain.run(fields.pop("workdir"), stages="fewshot", **fields)
    assert code == 2 and err.count("\n") == 1 and err.startswith(f"error: {message}")


def test_any_name_of_a_photo_is_a_name_there(bucket):
    with remote.working_folder(bucket / "names") as here:
        (here / "masks").mkdir()
        (here / "masks/img[1] *.png").write_bytes(b"mask")
        remote.push(here)
    with remote.working_folder(bucket / "names") as there:
        remote.pull(there)
        assert [path.read_bytes() for path in there.rglob("*.png")] == [b"mask"]
