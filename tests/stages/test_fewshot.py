import json
import shutil

import jax
import numpy as np

import repgan_jax


def _read(workdir):
    """Returns the variables of the heads and the losses of a finished stage."""
    curve = json.loads((workdir / "fewshot/curve.json").read_text())
    labeller = repgan_jax.load_labeller(workdir)
    return jax.device_get(labeller.variables), [row["loss"] for row in curve]


def test_heads_learn_the_shots(tiny_run):
    _, losses = _read(tiny_run.workdir)
    assert len(losses) == 20
    assert losses[-1] < losses[0] / 2
    summary = json.loads((tiny_run.workdir / "fewshot/stage.json").read_text())["summary"]
    assert summary["shots"] == ["seed000", "seed001", "seed002"]
    assert summary["pixel_accuracy"] > 0.8


def test_preview_shows_the_shots_at_the_label_size(tiny_run):
    with np.load(tiny_run.workdir / "fewshot/shots.npz") as preview:
        pictures, masks, guesses = (preview[name] for name in ("images", "masks", "guesses"))
    assert pictures.shape == (3, 32, 32, 3) and pictures.dtype == np.uint8
    assert masks.shape == guesses.shape == (3, 32, 32)
    known = masks != 255
    assert (guesses == masks)[known].mean() > 0.8 and guesses.max() < 3


def test_training_that_diverges_is_no_result(tiny_run, tmp_path):
    fields = {"stages": "fewshot", "fewshot__learning_rate": 1e30}
    code, _, err = tiny_run.run(tmp_path / "run", **fields)
    assert code == 2
    assert (
        "error: config.fewshot.learning_rate: the loss became nan; expected less than 1e+30\n"
        in err
    )
    assert not (tmp_path / "run/fewshot/labeller").exists()


def test_heads_are_found_again(tiny_run):
    labeller = repgan_jax.load_labeller(tiny_run.workdir)
    assert labeller.label_size == 32
    assert labeller.class_names == ("background", "disc", "bright")
    names = labeller.tap_names
    assert names[0] == "conv_01_8" and names[-1] == "conv_08_64"  # all from 8x8 up
    assert labeller.num_heads == 1


def test_latent_a_layer_is_as_good_as_one_for_all(tiny_run, tmp_path):
    shots = shutil.copytree(tiny_run.shots, tmp_path / "shots")
    with np.load(shots / "latents.npz") as file:
        w = np.repeat(file["w"][:, None], 10, axis=1)  # [k, L, D]
    np.savez(shots / "latents.npz", w=w, name=["seed000", "seed001", "seed002"])
    (shots / "images/notes.txt").touch()
    code, out, err = tiny_run.run(tmp_path / "run", stages="fewshot", fewshot__shots=shots)
    assert code == 0, err
    assert "fewshot: 1 file or folder passed over: notes.txt\n" in out
    for found, expected in zip(_read(tmp_path / "run"), _read(tiny_run.workdir), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


def test_ensemble_of_other_heads_on_chosen_taps_and_shots(tiny_chain, tmp_path):
    changes = {
        "fewshot__head": "mlp1",
        "fewshot__ensemble": 2,
        "fewshot__taps": "conv_05_32,conv_03_16",
        "fewshot__names": "seed002",
        "fewshot__steps": 3,
    }
    assert tiny_chain.run(tmp_path, stages="fewshot", **changes)[0] == 0
    variables, losses = _read(tmp_path)
    assert len(losses) == 3
    first = variables["params"]["FoldedConv_0"]
    assert {name for name in first if "kernel" in name} == {
        "kernel_conv_03_16",
        "kernel_conv_05_32",
    }
    assert first["bias"].shape[0] == 2
    kernel = first["kernel_conv_03_16"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.01  # members start apart
