import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from repgan_jax import main
from repgan_jax.configs import base
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.segmenter import Segmenter
from repgan_jax.stages import evaluate


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """A copy of the finished run, not yet evaluated."""
    shutil.rmtree(shutil.copytree(tiny_run.workdir, tmp_path / "run") / "evaluate")
    return tmp_path / "run"


def _scores(workdir):
    return json.loads((workdir / "evaluate/metrics.json").read_text())


@pytest.fixture
def oracle(tiny_run, monkeypatch):
    """Makes the segmenter tell the truth about photos, whatever the size."""
    photos, masks = (
        [images.open_picture(path) for path in sorted((tiny_run.photos / name).iterdir())]
        for name in ("images", "masks")
    )

    def predict(self, batch):
        size = batch.shape[1]
        small = [images.resize_area(np.asarray(photo), size).astype(int) for photo in photos]
        found = [int(np.argmin([np.abs(photo - x).sum() for x in small])) for photo in batch]
        truths = [np.asarray(masks[i].resize((size, size), 0)).astype(np.int32) for i in found]
        return np.where(np.stack(truths) == 255, 0, np.stack(truths))

    monkeypatch.setattr(Segmenter, "predict", predict)


def test_truth_scores_one(tiny_run, workdir, oracle):
    size = 35  # half of 70: the masks are 90 wide, so pixels are picked, by us and by Pillow alike
    assert tiny_run.run(workdir, stages="evaluate", evaluate__size=size)[0] == 0
    pooled = _scores(workdir)["pooled"]
    assert pooled["pixel_accuracy"] > 0.97 and pooled["mean_iou"] > 0.9


def test_fused_masks_and_files_a_part_score_alike(tiny_run, workdir, tmp_path):
    for path in sorted((tiny_run.photos / "masks").iterdir()):
        mask = np.asarray(images.open_picture(path)) % 255  # parts know no "ignore"
        images.write_png(tmp_path / "fused" / path.name, mask)
        for k, part in ((1, "skin"), (2, "hair")):  # hair lies over skin
            name = f"{int(path.stem):05d}_{part}.png"
            images.write_png(tmp_path / "celebamask" / "0" / name, 255 * (mask >= k))
    scores = []
    for layout in ("fused", "celebamask"):
        config = main.read_config(tiny_run.arguments(workdir, evaluate__layout=layout))
        config.evaluate.masks = str(tmp_path / layout)
        if layout == "celebamask":
            config.evaluate.class_map = ConfigDict({"skin": "disc", "hair": "bright"})
            config.evaluate.merge_order = ("skin", "hair")
        evaluate.run(config, workdir)
        scores.append(_scores(workdir))
    assert scores[0] == scores[1]


def test_split_by_sorted_stems():
    pairs = [(f"{i}", None, None) for i in range(5)]
    options = base.get_config().evaluate
    options.validation = 2
    chosen = {}
    for split in ("validation", "test"):
        options.split = split
        chosen[split] = [stem for stem, *_ in evaluate.select(pairs, options)]
    assert chosen == {"validation": ["0", "1"], "test": ["2", "3", "4"]}
    options.limit = 1
    assert [stem for stem, *_ in evaluate.select(pairs, options)] == ["2"]
    options.validation = 9
    with pytest.raises(UserError, match="5 photos leave none for the test split"):
        evaluate.select(pairs, options)


@pytest.mark.parametrize(
    ("layout", "class_map", "merge_order", "message"),
    [
        ("fused", {"1": "hat"}, (), r"config\.evaluate\.class_map\.1: no class is named 'hat'"),
        ("fused", {"skin": "disc"}, (), r"config\.evaluate\.class_map\.skin: not an id"),
        ("celebamask", {"a": "disc"}, (), r"config\.evaluate\.merge_order: empty"),
        ("celebamask", {"a": "disc"}, ("b",), r"config\.evaluate\.merge_order: part 'b' is not in"),
    ],
)
def test_errors_about_arguments_name_the_field(
    tiny_chain, tmp_path, layout, class_map, merge_order, message
):
    config = main.read_config(tiny_chain.arguments(tmp_path / "run"))
    for i in range(5):
        images.write_png(tmp_path / "parts" / f"{i:05d}_a.png", np.zeros((90, 70), np.uint8))
    if layout == "celebamask":
        config.evaluate.masks = str(tmp_path / "parts")
    config.evaluate.update({"layout": layout, "merge_order": merge_order})
    config.evaluate.class_map = ConfigDict(class_map)
    with pytest.raises(UserError, match=rf"\A{message}"):
        evaluate.check(config)


def test_examples_run_from_best_to_worst(tiny_run):
    with np.load(tiny_run.workdir / "evaluate/examples.npz") as file:
        examples = dict(file)
    assert examples["photos"].shape == (12, 48, 48, 3)
    assert examples["truths"].shape == examples["guesses"].shape == (12, 48, 48)
    means = {
        rank: examples["mean_iou"][examples["rank"] == rank].mean()
        for rank in ("best", "median", "worst")
    }
    assert means["best"] >= means["median"] >= means["worst"]


def test_without_photos_it_is_left_out(tiny_run, workdir):
    code, out, _ = tiny_run.run(workdir, stages="evaluate,report", evaluate__images="")
    assert code == 0
    assert "evaluate: left out, no photos with true masks given" in out
    assert not (workdir / "evaluate").exists()


def test_photos_in_folders_count_and_other_files_are_named(tiny_run, workdir, tmp_path):
    photos = shutil.copytree(tiny_run.photos, tmp_path / "photos")
    for name in ("images", "masks"):
        (photos / name / "x").mkdir()
        (photos / name / "4.png").rename(photos / name / "x" / "4.PNG")
    (photos / "images/notes.txt").write_text("no photo")
    folders = {f"evaluate__{name}": photos / name for name in ("images", "masks")}
    code, out, err = tiny_run.run(workdir, stages="evaluate", **folders)
    assert code == 0, err
    assert "evaluate: 1 file or folder passed over: notes.txt\n" in out
    assert _scores(workdir) == _scores(tiny_run.workdir)
