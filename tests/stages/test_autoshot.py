import json
import shutil


def test_network_learns(tiny_run):
    rows = list(
        map(json.loads, (tiny_run.workdir / "autoshot/curve.jsonl").read_text().splitlines())
    )
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    scores = [row["validation_mean_iou"] for row in rows if "validation_mean_iou" in row]
    assert list(losses) == [6, 12] and losses[12] < losses[6]
    summary = json.loads((tiny_run.workdir / "autoshot/stage.json").read_text())["summary"]
    assert summary["held_out_mean_iou"] == max(scores)


def test_training_that_diverges_ends_there(tiny_run, tmp_path):
    for stage in ("fewshot", "generate"):
        shutil.copytree(tiny_run.workdir / stage, tmp_path / "run" / stage)
    fields = {"stages": "autoshot", "autoshot__learning_rate": 1e30}
    code, _, err = tiny_run.run(tmp_path / "run", **fields)
    assert code == 2
    assert "error: config.autoshot.learning_rate: the loss became nan by step" in err
    assert "; expected less than 1e+30\n" in err
    assert not (tmp_path / "run/autoshot/best").exists()
