"""The whole chain by the command, as users start it."""

import json
import re
import shutil

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds

from repgan_jax.data import dataset
from repgan_jax.io import checkpoint, checksums, images, json_files
from repgan_jax.stages import autoshot, fingerprints

RECORDED = ("fewshot", "generate", "autoshot", "evaluate", "sample")  # the others cost nothing


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(tiny_run.workdir, tmp_path / "run")


def test_every_stage_leaves_its_result(tiny_run):
    found = {path.name for path in tiny_run.workdir.iterdir()}
    assert {*RECORDED, "segment", "report.html", "tensorboard"} <= found
    for stage in RECORDED:
        record = json.loads((tiny_run.workdir / stage / "stage.json").read_text())
        assert record["status"] == "done" and record["summary"] and record["seconds"] > 0
    for name in ("fewshot", "autoshot"):
        assert list((tiny_run.workdir / "tensorboard" / name).glob("events.*"))
    leftovers = [p for p in tiny_run.workdir.rglob(".*") if p.name != ".lock"]
    assert not leftovers


def test_scores_come_in_both_conventions(tiny_run):
    scores = json.loads((tiny_run.workdir / "evaluate/metrics.json").read_text())
    assert (scores["num_pictures"], scores["size"], scores["split"]) == (4, 48, "test")
    for convention in ("pooled", "per_picture"):
        assert set(scores[convention]["iou"]) == {"background", "disc", "bright"}
        for name in ("mean_iou", "weighted_iou"):
            for suffix in ("", "_without_background"):
                assert 0 <= scores[convention][name + suffix] <= 1


def test_report_needs_nothing_but_itself(tiny_run):
    page = (tiny_run.workdir / "report.html").read_text()
    assert page.count("data:image/") > 10
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!["']?(data:|#))""", page)
    assert "url(" not in page and "<script src" not in page


def test_records_are_read_by_tfds(tiny_run):
    folder = tiny_run.workdir / "generate/generated/1.0.0"
    builder = tfds.builder_from_directory(folder)
    assert builder.info.features["mask"].names == ["background", "disc", "bright"]
    source = builder.as_data_source(split="train")
    assert len(source) == 12
    example = source[5]
    assert example["image"].shape == (32, 32, 3) and example["image"].dtype == np.uint8
    assert example["mask"].shape == (32, 32, 1) and example["mask"].max() < 3
    assert example["latent"].shape == (48,) and example["latent"].dtype == np.float32
    assert example["soft"].shape == (3 * 32, 32, 1)
    assert example["index"] == 5
    assert 1 / 3 < example["confidence"] <= 1


def test_records_are_read_by_grain(tiny_run):
    data = dataset.open_dataset(tiny_run.workdir / "generate")
    batches = grain.MapDataset.source(data).shuffle(seed=3).to_iter_dataset().batch(4)
    indices = []
    for batch in batches:
        assert batch["probabilities"].shape == (4, 32, 32, 3)
        indices += batch["index"].tolist()
    assert sorted(indices) == list(range(12)) != indices


def test_second_run_does_nothing_again(tiny_run, workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("autoshot/**/*")}
    code, out, _ = tiny_run.run(workdir)
    assert code == 0
    for stage in RECORDED:
        assert f"{stage}: done already (same settings)\n" in out
    assert "starting again" not in out
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("autoshot/**/*")}


def test_settings_that_change_no_result_start_nothing(tiny_run, workdir):
    code, out, _ = tiny_run.run(workdir, backend="pmap", generate__batch_size=3)
    assert code == 0
    assert out.count("done already") == len(RECORDED)


def test_places_and_spellings_start_nothing(tiny_run, workdir, tmp_path, monkeypatch):
    moved = workdir.rename(tmp_path / "another name")
    elsewhere = tmp_path / "data"
    for name in ("generator", "shots", "photos"):
        shutil.copytree(getattr(tiny_run, name), elsewhere / name)
    (elsewhere / "shots/images/.DS_Store").touch()
    monkeypatch.chdir(elsewhere)
    code, out, err = tiny_run.run(
        "../another name",
        generator="../data/generator/",
        classes="./shots/classes.txt",
        fewshot__shots=f"{elsewhere}/../data/shots/",
        evaluate__images="photos/images/",
        evaluate__masks="./photos/masks",
        segment__output="masks/../masks of photos/",
    )
    assert code == 0, err
    assert out.count("done already") == len(RECORDED) and "starting again" not in out
    assert {path.name for path in tmp_path.iterdir()} == {"another name", "data"}
    assert (elsewhere / "masks of photos/areas.csv").exists()
    assert moved.is_dir()


def test_generator_that_was_converted_again_starts_nothing(tiny_run, workdir, tmp_path):
    again = tmp_path / "generator"
    checkpoint.write_generator(again, *checkpoint.read_generator(tiny_run.generator))
    old, new = (
        next(folder.rglob("ocdbt.process_0/d/*")).name for folder in (tiny_run.generator, again)
    )
    assert old != new  # Orbax never writes the same bytes
    code, out, _ = tiny_run.run(workdir, generator=again)
    assert code == 0 and out.count("done already") == len(RECORDED)


def test_records_of_earlier_versions_count(tiny_run, workdir, tmp_path):
    generator = shutil.copytree(tiny_run.generator, tmp_path / "generator")
    (generator / "variables" / checksums.NAME).unlink()
    path = workdir / "fewshot/stage.json"
    record = json.loads(path.read_text())
    record["inputs"]["config.generator"] = fingerprints.digest(
        generator, checkpoint.GENERATOR_FILES
    )
    json_files.write(path, record)
    code, out, _ = tiny_run.run(workdir, generator=generator)
    assert code == 0 and out.count("done already") == len(RECORDED)


@pytest.mark.parametrize(
    ("change", "phrase", "again"),
    [
        (
            {"evaluate__limit": 2},
            "evaluate: starting again, for these changed: config.evaluate.limit 4 -> 2",
            ("evaluate",),
        ),
        (
            {"sample__num_images": 2},
            "sample: starting again, for these changed: config.sample.num_images 3 -> 2",
            ("sample",),
        ),
        (
            {"autoshot__held_out": 0.4},
            "autoshot: starting again, for these changed: config.autoshot.held_out 0.2 -> 0.4",
            ("autoshot", "evaluate"),
        ),
    ],
)
def test_change_starts_again_what_depends_on_it(tiny_run, workdir, change, phrase, again):
    code, out, _ = tiny_run.run(workdir, **change)
    assert code == 0 and f"{phrase}\n" in out
    for stage in RECORDED:
        assert (f"{stage}: done already" in out) == (stage not in again)
        assert (f"{stage}: starting again" in out) == (stage in again)


def test_changed_photo_is_evaluated_again(tiny_run, workdir, tmp_path):
    photos = shutil.copytree(tiny_run.photos, tmp_path / "photos")
    paths = {"evaluate__images": photos / "images", "evaluate__masks": photos / "masks"}
    stages = {"stages": "evaluate"}
    assert tiny_run.run(workdir, **stages, **paths)[0] == 0
    assert "done already" in tiny_run.run(workdir, **stages, **paths)[1]
    images.write_png(photos / "images/2.png", np.zeros((70, 90, 3), np.uint8))
    out = tiny_run.run(workdir, **stages, **paths)[1]
    assert "evaluate: starting again, for these changed: config.evaluate.images\n" in out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"generate__truncation": 0.5}, "config.generate.truncation 1.0 -> 0.5"),
        ({"generate__num_images": 16}, "config.generate.num_images 12 -> 16"),
    ],
)
def test_dataset_of_other_settings_is_kept_beside_the_new_one(tiny_run, workdir, change, named):
    code, out, err = tiny_run.run(workdir, stages="generate", **change)
    assert code == 0 and f"generate: starting again, for these changed: {named}\n" in out, err
    count = change.get("generate__num_images", 12)
    assert len(dataset.open_dataset(workdir / "generate")) == count
    assert len(dataset.open_dataset(workdir / "generate.previous")) == 12
    shutil.rmtree(workdir / "fewshot/labeller")  # nothing is generated again
    code, out, err = tiny_run.run(workdir, stages="generate")
    assert code == 0 and "generate: done already (same settings), kept until now" in out, err
    assert len(dataset.open_dataset(workdir / "generate")) == 12
    assert len(dataset.open_dataset(workdir / "generate.previous")) == count


def test_unfinished_dataset_of_other_settings_is_not_thrown_away(tiny_run, workdir):
    record = json.loads((workdir / "generate/stage.json").read_text())
    (workdir / "generate/stage.json").write_text(json.dumps({**record, "status": "running"}))
    code, _, err = tiny_run.run(workdir, stages="generate", generate__truncation=0.5)
    assert code == 2
    assert err == (
        f"error: {workdir / 'generate'}: made with other settings (config.generate.truncation 1.0 "
        "-> 0.5); delete that folder or choose another --config.workdir\n"
    )
    assert len(list((workdir / "generate/shards").iterdir())) == 3


@pytest.mark.parametrize("stage", ["verify", "repair"])
def test_dataset_of_other_settings_is_neither_verified_nor_repaired(tiny_run, workdir, stage):
    code, _, err = tiny_run.run(workdir, stages=stage, generate__truncation=0.5)
    assert code == 2 and "made with other settings (config.generate.truncation 1.0 -> 0.5)" in err
    assert not (workdir / "generate.next").exists()


def test_photos_are_segmented_by_the_old_network_while_another_is_trained(
    tiny_run, workdir, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in (workdir / "segment/masks").iterdir()}
    shutil.rmtree(workdir / "segment")
    with monkeypatch.context() as patch:
        patch.setattr(autoshot, "_train", interrupted)
        assert tiny_run.run(workdir, stages="autoshot", autoshot__held_out=0.4)[0] == 130
    code, out, err = tiny_run.run(workdir, stages="segment,evaluate,report", autoshot__held_out=0.4)
    assert code == 0 and "evaluate: done already" in out, err
    after = {path.name: path.read_bytes() for path in (workdir / "segment/masks").iterdir()}
    assert after == before


def test_results_that_do_not_belong_together_are_not_mixed(tiny_run, workdir):
    record = json.loads((workdir / "fewshot/stage.json").read_text())
    other = {**record, "fingerprint": "of heads that were fitted with other settings"}
    (workdir / "fewshot/stage.json").write_text(json.dumps(other))
    for change in ({"stages": "autoshot", "autoshot__steps": 14}, {"stages": "export"}):
        code, _, err = tiny_run.run(workdir, **change)
        assert code == 2
        assert err == (
            f"error: {workdir / 'generate'}: made with an earlier result of stage fewshot than the "
            f"one in {workdir / 'fewshot'}; run stage generate again, or fewshot with the settings "
            "it had\n"
        )
    code, out, err = tiny_run.run(workdir, stages="segment,report")  # the network stands alone
    assert code == 0, err
    page = (workdir / "report.html").read_text()
    assert "To be done: generate, autoshot." in page
    assert "generate, made with an earlier result of fewshot" in page


@pytest.mark.parametrize(
    ("devices", "backend", "batch_size"),
    [(8, "pmap", 1), (1, "shard_map", 5), (1, "pmap", 2), (3, "shard_map", 1)],
)
def test_records_depend_on_seed_and_index_alone(
    tiny_run, tmp_path, use_devices, devices, backend, batch_size
):
    shutil.copytree(tiny_run.workdir / "fewshot", tmp_path / "fewshot")
    use_devices(devices)
    changes = {"backend": backend, "generate__batch_size": batch_size}
    assert tiny_run.run(tmp_path, stages="generate", **changes)[0] == 0
    found, expected = (dataset.open_dataset(w / "generate") for w in (tmp_path, tiny_run.workdir))
    assert len(found) == len(expected) == 12
    for example, other in zip(found, expected, strict=True):
        assert example.keys() == other.keys()
        for name, value in example.items():
            np.testing.assert_array_equal(value, other[name], name)
