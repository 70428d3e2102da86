"""Of a result and its successor, one is there, whole, whenever the work is interrupted."""

import json
import os
import shutil

import pytest

from repgan_jax.errors import UserError
from repgan_jax.io import results


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


def _write(folder, content, status="done", **inputs):
    folder.mkdir(parents=True)
    for part in ("a", "b"):
        (folder / part).write_text(content)
    record = {"status": status, "fingerprint": content, "inputs": inputs, "fields": {}}
    (folder / results.RECORD).write_text(json.dumps(record))


def _content(folder):
    """Returns what a result consists of, which must be of one kind, and its record's status."""
    found = results.current(folder)
    (content,) = {(found / part).read_text() for part in ("a", "b")}
    record = json.loads((found / results.RECORD).read_text())
    assert record == {"status": "done", "fingerprint": content, "inputs": {}, "fields": {}}
    return content


def _kill_before(monkeypatch, count):
    """Ends the work before the `count`th time that anything is renamed or removed."""
    left = count

    def watched(work):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            return work(*arguments, **options)

        return call

    for module, name in ((os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))


def _interrupted_at_each_step(monkeypatch, tmp_path, prepare, work, expected):
    """Checks that `work` on what `prepare` leaves, killed anywhere, and again, ends as expected."""
    for count in range(1, 100):
        workdir = tmp_path / str(count)
        folder = workdir / "autoshot"
        prepare(folder)
        with monkeypatch.context() as patch:
            _kill_before(patch, count)
            try:
                work(folder)
                killed = False
            except Killed:
                killed = True
        yield folder, killed
        results.settle(folder)
        assert _content(folder) == expected and results.current(folder) == folder
        leftovers = {path.name for path in workdir.iterdir()} - {"autoshot", "autoshot.previous"}
        assert not leftovers
        assert (results.predecessor(folder) / "a").read_text() == "old"
        if not killed:
            assert count > 3
            return


def test_kill_at_any_moment_of_the_exchange(monkeypatch, tmp_path):
    def prepare(folder):
        _write(folder, "old")
        _write(results.successor(folder), "new")
        _write(results.predecessor(folder), "older")

    for folder, _ in _interrupted_at_each_step(
        monkeypatch, tmp_path, prepare, results.settle, "new"
    ):
        assert _content(folder) == "new"  # readers find it before anybody goes on


def test_kill_at_any_moment_of_the_way_back(monkeypatch, tmp_path):
    def prepare(folder):
        _write(folder, "old")
        _write(results.successor(folder), "other", "running")
        _write(results.predecessor(folder), "older")

    def work(folder):
        if results.predecessor(folder).exists():  # as the same command finds it the next time
            results.bring_back(folder)

    for folder, killed in _interrupted_at_each_step(monkeypatch, tmp_path, prepare, work, "older"):
        assert _content(folder) in ("old", "older")
        if killed and _content(folder) == "old":
            results.settle(folder)
            results.bring_back(folder)


def test_unfinished_successor_is_not_in_use(tmp_path):
    folder = tmp_path / "autoshot"
    _write(folder, "old")
    _write(results.successor(folder), "new", "running")
    results.settle(folder)
    assert _content(folder) == "old" and results.successor(folder).exists()


def test_successor_of_what_was_deleted_takes_its_place(tmp_path):
    folder = tmp_path / "autoshot"
    _write(results.successor(folder), "new", "running")
    results.settle(folder)
    assert json.loads((folder / results.RECORD).read_text())["status"] == "running"


def test_reader_gets_all_of_one_result(tmp_path):
    folder, calls = tmp_path / "autoshot", []
    _write(folder, "old")

    def reader(found):
        first = (found / "a").read_text()
        calls.append(first)
        if len(calls) == 1:  # another run is faster
            _write(results.successor(folder), "new")
            results.settle(folder)
        return first, (found / "b").read_text()

    assert results.read(folder, reader) == ("new", "new")
    assert calls == ["old", "new"]


def test_reader_that_fails_fails_once(tmp_path):
    calls = []

    def reader(found):
        calls.append(found)
        raise UserError("damaged")

    _write(tmp_path / "autoshot", "old")
    with pytest.raises(UserError, match="damaged"):
        results.read(tmp_path / "autoshot", reader)
    assert len(calls) == 1


def test_what_was_made_with_an_earlier_result_is_found(tmp_path):
    _write(tmp_path / "fewshot", "heads")
    _write(tmp_path / "generate", "data", fewshot="heads", **{"config.classes": "digest"})
    _write(tmp_path / "autoshot", "network", generate="data")
    names = ("fewshot", "generate", "autoshot", "evaluate")
    assert [results.outdated(tmp_path, name) for name in names] == ["", "", "", ""]
    _write(tmp_path / "fewshot.next", "other heads", "running")
    assert [results.outdated(tmp_path, name) for name in names] == ["", "", "", ""]
    shutil.rmtree(tmp_path / "fewshot.next")
    _write(tmp_path / "fewshot.next", "other heads")
    assert [results.outdated(tmp_path, name) for name in names] == ["", "fewshot", "fewshot", ""]
    shutil.rmtree(tmp_path / "fewshot.next")
    shutil.rmtree(tmp_path / "fewshot")
    assert [results.outdated(tmp_path, name) for name in names] == ["", "", "", ""]
