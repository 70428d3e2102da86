"""Every mistake ends in one line that names it, with exit code 2, and nothing half written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from repgan_jax.io import images
from repgan_jax.runtime import parallel

ALL = "fewshot,generate,autoshot,evaluate,export,segment"
SHARD = "generated/1.0.0/generated-train.array_record-00001-of-00003"


@pytest.fixture
def inputs(tiny_chain, tmp_path):
    """Copies of generator, shots and photos, to be spoilt."""
    return {
        name: shutil.copytree(getattr(tiny_chain, name), tmp_path / name)
        for name in ("generator", "shots", "photos")
    }


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(tiny_run.workdir, tmp_path / "run")


def _fails(chain, workdir, **changes):
    """Runs the command, which must fail as it should; returns what it says."""
    code, _, err = chain.run(workdir, **changes)
    line = err.splitlines()[-1]  # bars of progress may stand before it
    assert code == 2 and line.startswith("error: ")
    return line.removeprefix("error: ")


def _fails_on_shots(chain, inputs, workdir, **changes):
    shots = inputs["shots"]
    changes = {"fewshot__shots": shots, "classes": shots / "classes.txt", **changes}
    line = _fails(chain, workdir, stages="fewshot", **changes)
    assert {path.name for path in workdir.rglob("*")} <= {"fewshot", "stage.json", ".lock"}
    return line


def test_missing_generator(tiny_chain, tmp_path):
    line = _fails(tiny_chain, tmp_path / "run", generator=tmp_path / "nowhere")
    assert line.startswith(f"{tmp_path / 'nowhere'}: no generator here (no such folder); ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_generator(tiny_chain, inputs, tmp_path, damage):
    data = [path for path in (inputs["generator"] / "variables").rglob("d/*") if path.is_file()]
    for path in data:
        path.write_bytes(path.read_bytes()[:20]) if damage == "cut" else path.unlink()
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run", generator=inputs["generator"])
    assert line.startswith(f"{inputs['generator'] / 'variables'}: damaged, as its checksums show (")
    assert line.endswith("; delete it and make it again")


def test_tensor_of_another_shape(tiny_chain, inputs, tmp_path):
    path = inputs["generator"] / "architecture.json"
    architecture = json.loads(path.read_text())
    architecture["widths"]["64"] = 20
    path.write_text(json.dumps(architecture))
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run", generator=inputs["generator"])
    assert line.startswith(f"{inputs['generator']}: tensor ['synthesis']['params']['conv_07']")
    assert "has shape (16,), expected (20,)" in line


def test_generator_of_an_unknown_kind(tiny_chain, inputs, tmp_path):
    path = inputs["generator"] / "architecture.json"
    path.write_text(path.read_text().replace("stylegan2", "stylegan9"))
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run", generator=inputs["generator"])
    assert "'stylegan9' is unknown; expected one of ['mobilestylegan', 'stylegan2']" in line


def test_mask_of_another_size(tiny_chain, inputs, tmp_path):
    images.write_png(inputs["shots"] / "masks/seed001.png", np.zeros((64, 32), np.uint8))
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run")
    assert "masks/seed001.png: mask of 32x64 pixels (width x height) for an image of 64x64" in line


def test_mask_with_an_unknown_id(tiny_chain, inputs, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:2] = 7
    images.write_png(inputs["shots"] / "masks/seed001.png", mask)
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run")
    assert "masks/seed001.png: unknown id 7 in 128 pixels; the classes are 0 background" in line


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda shots: (shots / "latents.npz").unlink(),
            "no weights of LPIPS here",
        ),  # photos, then
        (lambda shots: _write_latents(shots, slice(2)), "latents.npz: no latent for "),
        (lambda shots: _write_latents(shots, [1, 0, 2]), "its latent makes another image"),
        (lambda shots: _write_latents(shots, slice(3), width=40), "w of shape (40,); "),
        (lambda shots: (shots / "masks/seed001.png").unlink(), "no mask for shot 'seed001'"),
        (lambda shots: shutil.rmtree(shots / "images"), "images: no such file or folder"),
        (lambda shots: (shots / "classes.txt").write_text(""), "classes.txt: "),
    ],
)
def test_incomplete_shots(tiny_chain, inputs, tmp_path, spoil, message):
    spoil(inputs["shots"])
    perceptual = {"invert__perceptual": tmp_path / "lpips"}
    assert message in _fails_on_shots(tiny_chain, inputs, tmp_path / "run", **perceptual)


def _write_latents(shots, chosen, width=48):
    with np.load(shots / "latents.npz") as file:
        w = file["w"][chosen][:, :width]
    np.savez(shots / "latents.npz", w=w, seed=np.arange(len(w)))


def test_unknown_shot(tiny_chain, tmp_path):
    line = _fails(tiny_chain, tmp_path, stages="fewshot", fewshot__names="seed000,seed9")
    assert "images: no shot named 'seed9'; there are seed000, seed001, seed002" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fewshot__head": "mlp9"}, "config.fewshot.head: 'mlp9' is unknown; expected one of"),
        ({"fewshot__decay": "linear"}, "config.fewshot.decay: 'linear', expected one of"),
        ({"fewshot__taps": "conv_9"}, "config.fewshot.taps: no tap is called ['conv_9']"),
        ({"fewshot__resize": "cubic"}, "config.fewshot.resize: 'cubic', expected one of"),
        ({"fewshot__ensemble": 0}, "config.fewshot.ensemble: 0, expected at least 1"),
        ({"fewshot__steps": 0}, "config.fewshot.steps: 0, expected at least 1"),
        ({"dtype": "float23"}, "config.dtype: 'float23', expected one of"),
        ({"label_size": 0}, "config.label_size: 0, expected at least 1"),
    ],
)
def test_settings_of_fewshot(tiny_chain, tmp_path, changes, message):
    assert _fails(tiny_chain, tmp_path, stages="fewshot", **changes).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate__image_size": 24}, "config.generate.image_size: 24, expected a divisor"),
        ({"generate__shard_size": 0}, "config.generate.shard_size: 0, expected at least 1"),
        ({"generate__noise": "loud"}, "config.generate.noise: 'loud', expected one of stored"),
        ({"generate__label": 1}, "config.generate.label: 1, expected -1 (any) or one of the"),
        ({"backend": "mpi"}, "config.backend: 'mpi', expected one of shard_map, pmap"),
    ],
)
def test_settings_of_generate(tiny_run, workdir, changes, message):
    shutil.rmtree(workdir / "generate")
    assert _fails(tiny_run, workdir, stages="generate", **changes).startswith(message)
    # nothing was made, so nothing is in the way of a better try
    line = _fails(tiny_run, workdir, stages="generate", generate__batch_size=0)
    assert line == "config.generate.batch_size: 0, expected at least 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"autoshot__batch_size": 12},
            "config.autoshot.batch_size: 12, expected a multiple of the 8 devices",
        ),
        ({"autoshot__widths": "8,8,8,8,8,8"}, "config.autoshot.widths, patch: the network needs"),
        ({"autoshot__held_out": 1.0}, "config.autoshot.held_out: 1.0 of 12 generated images "),
        ({"autoshot__steps": 2}, "config.autoshot.warmup_steps: 2, expected fewer than"),
        ({"autoshot__steps": 0}, "config.autoshot.steps: 0, expected at least 1"),
        ({"autoshot__eval_every": 0}, "config.autoshot.eval_every: 0, expected at least 1"),
    ],
)
def test_settings_of_autoshot(tiny_run, workdir, changes, message):
    assert _fails(tiny_run, workdir, stages="autoshot", **changes).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"generate__image_size": 16},
            "config.generate.image_size: images of 16 pixels but labels of 32; ",
        ),
        ({"generate__soft_labels": False}, "config.autoshot.soft_targets: the dataset has no "),
    ],
)
def test_dataset_that_autoshot_cannot_use(tiny_run, workdir, changes, message):
    shutil.rmtree(workdir / "generate")
    line = _fails(tiny_run, workdir, stages="generate,autoshot", **changes)
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate__soft_size": 5}, "config.generate.soft_size: 5, expected a divisor of the "),
        ({"generate__image_size": 24}, "config.generate.image_size: 24, expected a divisor"),
        ({"generate__image_size": 16}, "config.generate.image_size: images of 16 pixels "),
        ({"generate__soft_labels": False}, "config.autoshot.soft_targets: the dataset has no "),
        ({"generate__num_images": 1}, "config.autoshot.held_out: 0.2 of 1 generated images "),
        ({"autoshot__batch_size": 12}, "config.autoshot.batch_size: 12, expected a multiple of "),
        ({"evaluate__masks": "/nowhere"}, "/nowhere: no such folder; expected the true masks of "),
        ({"generate__drop": 0.25}, "config.generate.drop: 0.25, but a single head never disagrees"),
        ({"generate__drop": 1.0}, "config.generate.drop: 1.0, expected 0 <= share < 1"),
        ({"export__format": "yolo"}, "config.export.format: 'yolo', expected one of coco"),
        ({"segment__input": "/nowhere"}, "/nowhere: no such file or folder"),
    ],
)
def test_a_late_stage_fails_before_the_first_begins(tiny_chain, tmp_path, changes, message):
    assert _fails(tiny_chain, tmp_path / "run", stages=ALL, **changes).startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fewshot__head": "mlp"}, "config.fewshot.head: 'mlp' is unknown"),
        ({"fewshot__decay": "linear"}, "config.fewshot.decay: 'linear', expected one of"),
        ({"fewshot__names": "shot99"}, "{shots}/images: no shot named 'shot99'"),
        ({"fewshot__taps": "conv_99_64"}, "config.fewshot.taps: no tap is called ['conv_99_64']"),
        ({"fewshot__resize": "cubic"}, "config.fewshot.resize: 'cubic', expected one of"),
        ({"dtype": "float16"}, "config.dtype: 'float16', expected one of float32, bfloat16"),
        ({"classes": "{spoilt}/two.txt"}, "{shots}/masks/seed000.png: unknown id 2 in "),
        ({"classes": "{spoilt}/nowhere.txt"}, "{spoilt}/nowhere.txt: no class list"),
        ({"fewshot__shots": "{spoilt}/nowhere"}, "{spoilt}/nowhere/images: no such file or folder"),
        ({"fewshot__shots": "{spoilt}/shots"}, "{spoilt}/shots/masks/seed001.png: not a picture"),
        ({"generator": "{spoilt}/nowhere"}, "{spoilt}/nowhere: no generator here"),
        ({"generate__noise": "loud"}, "config.generate.noise: 'loud', expected one of stored"),
        ({"generate__label": 1}, "config.generate.label: 1, expected -1 (any) or one of the"),
        ({"autoshot__widths": "8,8,8,8,8,8"}, "config.autoshot.widths, patch: the network needs"),
        ({"sample__num_images": 0}, "config.sample.num_images: 0, expected at least 1"),
        ({"verify__samples": -1}, "config.verify.samples: -1, expected at least 0"),
        ({"segment__batch_size": 0}, "config.segment.batch_size: 0, expected at least 1"),
        (
            {"segment__method": "invert", "invert__preset": "slow"},
            "config.invert.preset: 'slow', expected one of fast, standard, paper",
        ),
        (
            {"segment__method": "invert", "invert__perceptual": "{spoilt}/nowhere"},
            "{spoilt}/nowhere/alex: no weights of LPIPS here",
        ),
    ],
)
def test_mistake_on_a_finished_run_changes_nothing(tiny_run, inputs, tmp_path, changes, message):
    (tmp_path / "two.txt").write_text("background\ndisc\n")
    (inputs["shots"] / "masks/seed001.png").write_bytes(b"torn")
    names = {"spoilt": tmp_path, "shots": changes.get("fewshot__shots", tiny_run.shots)}
    changes = {name: str(value).format(**names) for name, value in changes.items()}
    before = _snapshot(tiny_run.workdir)
    line = _fails(tiny_run, tiny_run.workdir, stages=f"verify,{ALL},sample", **changes)
    assert line.startswith(message.format(**names))
    assert _snapshot(tiny_run.workdir) == before


def _snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_truth_of_other_classes_is_found_before_the_first_stage(tiny_chain, inputs, tmp_path):
    images.write_png(inputs["photos"] / "masks/1.png", np.full((70, 90), 9, np.uint8))
    changes = {"evaluate__masks": inputs["photos"] / "masks", "evaluate__validation": 1}
    line = _fails(tiny_chain, tmp_path / "run", stages=ALL, **changes)
    assert "masks/1.png: unknown id 9 in 6300 pixels" in line
    assert not (tmp_path / "run").exists()


def test_finished_training_needs_no_devices(tiny_run, workdir, monkeypatch):
    line = _fails(tiny_run, workdir, stages="autoshot", autoshot__batch_size=12)
    assert "multiple of the 8 devices" in line
    monkeypatch.setattr(parallel, "devices", lambda everywhere=False: range(3))
    code, out, err = tiny_run.run(workdir, stages="autoshot")
    assert code == 0 and "autoshot: done already" in out, err


@pytest.mark.parametrize("stages", ["generate", "sample"])
def test_generator_that_the_heads_do_not_know(tiny_run, inputs, workdir, stages):
    path = inputs["generator"] / "architecture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clamp": 100.0}))
    shutil.rmtree(workdir / stages)
    line = _fails(tiny_run, workdir, stages=stages, generator=inputs["generator"])
    assert line.startswith(f"config.generator: {inputs['generator']} is not the generator that ")


def test_pictures_of_a_generator_do_not_matter(tiny_run, inputs, workdir):
    (inputs["generator"] / "samples.png").write_bytes(b"")
    (inputs["generator"] / "variables" / ".DS_Store").write_bytes(b"")
    code, out, err = tiny_run.run(workdir, stages="fewshot", generator=inputs["generator"])
    assert code == 0 and "fewshot: done already" in out, err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "nothing but 'background'"),
        (255, "no class (255 means: ignore)"),
    ],
)
def test_shots_that_teach_nothing(tiny_chain, inputs, tmp_path, value, message):
    mask = np.full((64, 64), value, np.uint8)
    images.write_png(inputs["shots"] / "masks/seed001.png", mask)
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run")
    path = inputs["shots"] / "masks/seed001.png"
    assert line.startswith(f"{path}: the mask of 'seed001' shows {message}; draw its parts, or ")
    names = {"fewshot__names": "seed001", "fewshot__empty": True}
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run", **names)
    assert line.startswith("config.fewshot.shots: the masks show ")
    assert line.endswith("; expected two classes or more")


def test_uncertain_masks_are_refused_until_their_meaning_is_stated(tiny_chain, inputs, tmp_path):
    for i in range(3):
        path = inputs["shots"] / f"masks/seed{i:03d}.png"
        mask = np.asarray(images.open_picture(path))
        images.write_png(path, np.where(mask == 1, 255, 0))
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run")
    assert "seed000.png: its values are 0 and 255 alone" in line
    line = _fails_on_shots(tiny_chain, inputs, tmp_path / "run", fewshot__reading="indices")
    assert line == "config.fewshot.reading: 'indices', expected one of auto, ids, colours"
    (inputs["shots"] / "classes.txt").write_text("background #000000\ndisc #ffffff\n")
    changes = {"fewshot__shots": inputs["shots"], "classes": inputs["shots"] / "classes.txt"}
    code, out, err = tiny_chain.run(tmp_path / "run", stages="fewshot", **changes)
    assert code == 0 and "masks: 3 masks read as colours: background in 3, disc in 3\n" in out, err


def test_background_that_is_no_class(tiny_chain, tmp_path):
    line = _fails(tiny_chain, tmp_path, stages="fewshot", background="sky")
    assert (
        line
        == "config.background: no class is named 'sky'; the classes are background, disc, bright"
    )


def test_photos_may_be_made_by_a_stage_before(tiny_chain, tmp_path):
    made = tmp_path / "run/invert/images"
    line = _fails(tiny_chain, tmp_path / "run", stages="fewshot,segment", segment__input=made)
    assert line.startswith(f"{made}: no such file or folder")
    assert (tmp_path / "run/fewshot/labeller").exists()


def test_classes_that_no_shot_shows_are_named(tiny_chain, inputs, tmp_path):
    with (inputs["shots"] / "classes.txt").open("a") as file:
        file.write("horn\n")
    changes = {"stages": "fewshot", "classes": inputs["shots"] / "classes.txt"}
    code, out, err = tiny_chain.run(tmp_path / "run", **changes)
    assert code == 0 and "fewshot: no shot shows horn: that will not be found\n" in out, err


@pytest.mark.parametrize(
    ("stage", "needed"),
    [("generate", "fewshot"), ("autoshot", "generate"), ("evaluate", "autoshot")],
)
def test_stage_before_its_time(tiny_chain, tmp_path, stage, needed):
    line = _fails(tiny_chain, tmp_path, stages=stage)
    assert line.startswith(f"{tmp_path / needed}: stage {needed} is not finished; run it first")


def test_photos_before_there_is_a_segmenter(tiny_chain, tmp_path):
    line = _fails(tiny_chain, tmp_path, stages="segment")
    assert line.startswith(f"{tmp_path}: no segmenter here; ")


def test_no_photos(tiny_run, workdir, tmp_path):
    (tmp_path / "empty").mkdir()
    for stage, field in (("evaluate", "evaluate__images"), ("segment", "segment__input")):
        line = _fails(tiny_run, workdir, stages=stage, **{field: tmp_path / "empty"})
        assert line.startswith(f"{tmp_path / 'empty'}: no photos in this folder")


def test_photos_that_leave_none_to_test(tiny_run, workdir):
    line = _fails(tiny_run, workdir, stages="evaluate", evaluate__validation=5)
    assert line.startswith("config.evaluate.images: 5 photos leave none for the test split")


def test_photo_and_truth_of_different_shape(tiny_run, workdir, inputs):
    photos = inputs["photos"]
    images.write_png(photos / "masks/2.png", np.zeros((70, 80), np.uint8))
    paths = {"evaluate__images": photos / "images", "evaluate__masks": photos / "masks"}
    line = _fails(tiny_run, workdir, stages="evaluate", **paths)
    assert line == (
        f"{photos / 'masks/2.png'}: true mask of 80x70 pixels (width x height) for a photo of "
        "90x70; expected the same proportions"
    )


def test_damaged_segmenter(tiny_run, workdir):
    path = workdir / "autoshot/segmenter/model.safetensors"
    path.write_bytes(b"")
    line = _fails(tiny_run, workdir, stages="segment")
    assert line.startswith(f"{path}: damaged (its checksum is not the one in config.json); ")


def test_cut_dataset(tiny_run, workdir):
    shard = next((workdir / "generate").rglob("*-00001-of-00003"))
    shard.write_bytes(shard.read_bytes()[:1000])
    line = _fails(tiny_run, workdir, stages="autoshot", autoshot__steps=3)
    assert "generated-train.array_record-00001-of-00003 is missing or not whole" in line


@pytest.mark.parametrize(
    ("stage", "lost", "temporary"),
    [
        ("fewshot", "shots.npz", ".shots.npz.part"),
        ("generate", SHARD, ".{name}.partial"),
        ("autoshot", "checkpoints/12", "../.curve.jsonl.part"),
        ("evaluate", "metrics.json", ".metrics.json.part"),
        ("segment", "masks/1.png", ".1.png.part"),
        ("sample", "sheet.png", ".sheet.png.part"),
    ],
)
def test_full_disk(tiny_run, workdir, stage, lost, temporary):
    """What is written to /dev/full ends as on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    lost = _interrupt(workdir / stage, lost)
    temporary = lost.parent / temporary.format(name=lost.name)
    temporary.symlink_to("/dev/full")
    assert "No space left on device" in _fails(tiny_run, workdir, stages=stage)
    assert not temporary.is_symlink() and not lost.exists()  # nothing half written
    code, _, err = tiny_run.run(workdir, stages=stage)  # with room it goes on
    assert code == 0, err
    assert lost.exists()


def _interrupt(folder, lost):
    """Makes a finished stage one that was interrupted before it had written the path `lost`."""
    lost = folder / lost
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    if (folder / "stage.json").exists():
        record = json.loads((folder / "stage.json").read_text())
        (folder / "stage.json").write_text(json.dumps({**record, "status": "running"}))
    return lost
