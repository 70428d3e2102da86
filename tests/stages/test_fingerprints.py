"""What counts for a stage's result is content: not spelling, place or machine."""

import os
import sys
from pathlib import Path

import pytest

from repgan_jax.configs import base
from repgan_jax.errors import UserError
from repgan_jax.stages import fingerprints

# Fields of text that are no paths: names, choices and formats.
NO_PATHS = {
    "dtype",
    "backend",
    "background",
    "mirror_pairs",
    "fewshot.reading",
    "evaluate.reading",
    "cluster.address",
    "fewshot.head",
    "fewshot.resize",
    "fewshot.decay",
    "generate.noise",
    "generate.soft_type",
    "generate.encoding",
    "evaluate.layout",
    "evaluate.split",
    "segment.method",
    "invert.preset",
    *(
        f"invert.{preset}.{name}"
        for preset in ("fast", "standard", "paper")
        for name in ("net", "space")
    ),
    "export.format",
}


def _describe(config, *fields, **inputs):
    digests = {name.replace("__", "."): value for name, value in inputs.items()}
    return fingerprints.describe(config, fields, digests)


def test_every_field_of_text_is_a_path_or_not():
    config = base.get_config()
    texts = {
        name for name, value in fingerprints.values(config, config).items() if type(value) is str
    }
    assert texts - NO_PATHS == fingerprints.PATHS  # a new field of text belongs into one of them
    assert not fingerprints.PATHS & NO_PATHS


def test_spelling_of_a_path_is_no_change():
    config, other = base.get_config(), base.get_config()
    other.fewshot.shots = "/somewhere/else/"
    old = _describe(config, "fewshot", config__fewshot__shots="1")
    new = _describe(other, "fewshot", config__fewshot__shots="1")
    assert old["fingerprint"] == new["fingerprint"]
    assert list(fingerprints.changes(old, new)) == []
    assert new["fields"]["fewshot.shots"] == "/somewhere/else/"  # for the reader
    drawn_anew = _describe(other, "fewshot", config__fewshot__shots="2")
    assert drawn_anew["fingerprint"] != new["fingerprint"]
    assert list(fingerprints.changes(new, drawn_anew)) == ["config.fewshot.shots"]


def test_value_that_is_no_path_is_a_change():
    config, other = base.get_config(), base.get_config()
    other.fewshot.steps, other.fewshot.names = 7, ("a",)
    old, new = (_describe(c, "fewshot", config__fewshot__shots="1") for c in (config, other))
    assert old["fingerprint"] != new["fingerprint"]
    expected = ['config.fewshot.names [] -> ["a"]', "config.fewshot.steps 300 -> 7"]
    assert list(fingerprints.changes(old, new)) == expected


def test_what_lies_beside_shots_does_not_count(tmp_path):
    for name in ("images/a.png", "masks/a.png", "labelme/a.json", "latents.npz", "classes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    former = fingerprints.digest(tmp_path)  # in records of earlier versions
    shots = fingerprints.shots_digest(tmp_path)
    assert former != shots and fingerprints.is_same(former, shots)
    (tmp_path / "LICENSE").write_text("CC BY-NC 4.0")
    assert fingerprints.shots_digest(tmp_path) == shots
    assert fingerprints.is_same(former, fingerprints.shots_digest(tmp_path))
    for name in ("images/a.png", "masks/a.png", "labelme/a.json", "latents.npz"):
        (tmp_path / name).write_bytes(b"other")
        changed = fingerprints.shots_digest(tmp_path)
        assert changed != shots and not fingerprints.is_same(former, changed)
        (tmp_path / name).write_bytes(name.encode())


def test_path_whose_content_would_not_count_is_a_mistake():
    with pytest.raises(ValueError, match="without a digest among the inputs: fewshot.shots"):
        _describe(base.get_config(), "fewshot")
    _describe(base.get_config(), "evaluate")  # none given, nothing read


def test_digest_of_what_counts(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/b.png").write_bytes(b"b")
    whole, part = fingerprints.digest(tmp_path), fingerprints.digest(tmp_path, ("more",))
    assert whole != part
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "more/._b.png").write_bytes(b"")
    (tmp_path / "more/Thumbs.db").write_bytes(b"")
    (tmp_path / "desktop.ini").write_bytes(b"")
    os.utime(tmp_path / "a.png", (0, 0))
    assert fingerprints.digest(tmp_path) == whole
    (tmp_path / "c.png").write_bytes(b"c")
    assert (
        fingerprints.digest(tmp_path) != whole and fingerprints.digest(tmp_path, ("more",)) == part
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only there are names of files any bytes")
def test_digest_of_names_that_are_no_text(tmp_path):
    before = fingerprints.digest(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"")
    assert fingerprints.digest(tmp_path) != before


def test_digest_sees_names_and_bytes(tmp_path):
    def folder(name, files):
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return fingerprints.digest(tmp_path / name)

    first = folder("first", {"a": b"1", "b/c": b"2"})
    assert folder("same", {"a": b"1", "b/c": b"2"}) == first
    assert folder("renamed", {"a": b"1", "b/d": b"2"}) != first
    assert folder("moved bytes", {"a": b"12", "b/c": b""}) != first
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        fingerprints.digest(tmp_path / "nowhere")


def test_records_with_former_names_of_fields_stay_valid():
    config = base.get_config()
    new = fingerprints.values(config, ("generate", "sample"))
    assert "generate.num_images" in new and "generate.num_pictures" not in new
    former = {"generate.num_images": "generate.num_pictures"}
    old = {former.get(name, name): value for name, value in new.items()}
    assert not list(fingerprints.changed_values(old, new))
    old["generate.num_pictures"] += 1
    assert len(list(fingerprints.changed_values(old, new))) == 1
