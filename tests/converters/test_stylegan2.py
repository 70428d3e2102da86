"""Conversion of rosinality's checkpoints: parity with the original, and every tensor accounted."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import repgan_jax.generator
from converters import stylegan2, torch_file
from repgan_jax.errors import UserError

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("rosinality_64", "rosinality_32_map2")


@pytest.fixture
def state():
    return torch_file.read(GOLDEN / "rosinality_32_map2.pt")


def convert(state):
    """Returns the generator in `state`."""
    return repgan_jax.generator.Generator.build(*stylegan2.convert(state))


def assert_parity(found, reference):
    """The bound is relative to the largest magnitude: rounding in sums, over all layers."""
    found = np.asarray(found)
    if found.ndim == 4:
        found = found.transpose(0, 3, 1, 2)  # the reference is NCHW
    np.testing.assert_allclose(found, reference, rtol=0, atol=2e-5 * np.abs(reference).max())


@pytest.mark.parametrize("name", NAMES)
def test_computes_what_the_original_computes(name):
    generator = convert(torch_file.read(GOLDEN / f"{name}.pt"))
    golden = np.load(GOLDEN / f"{name}.npz")
    with jax.default_matmul_precision("float32"):
        assert_parity(generator.mapping(golden["z"]), golden["w"])
        w = generator.mapping(golden["z"], truncation=float(golden["psi"]))
        image, taps = jax.jit(generator.synthesis)(w)
        image_wplus, _ = jax.jit(generator.synthesis)(golden["wplus"])
    np.testing.assert_array_equal(generator.variables["mean_latent"], golden["latent_avg"])
    assert_parity(image, golden["image"])
    assert_parity(image_wplus, golden["image_wplus"])
    assert len(taps) == sum(key.startswith("tap_") for key in golden)
    for i, tap in enumerate(taps.values()):
        assert_parity(tap, golden[f"tap_{i:02d}"])


def test_states_the_architecture(state):
    architecture, _ = stylegan2.convert(state)
    assert architecture == {
        "name": "stylegan2",
        "resolution": 32,
        "z_dim": 24,
        "w_dim": 24,
        "mapping_layers": 2,
        "widths": {"4": 20, "8": 20, "16": 16, "32": 12},
    }


def test_estimates_a_missing_mean_latent(state):
    del state["latent_avg"]
    _, variables = stylegan2.convert(state)
    _, again = stylegan2.convert(state)
    np.testing.assert_array_equal(variables["mean_latent"], again["mean_latent"])
    z = np.random.default_rng(0).normal(size=(4000, 24)).astype(np.float32)
    w = np.asarray(convert(state).mapping(z))
    # the mean of 4,000 independent samples, within five of its standard deviations
    tolerance = 5 * w.std(0) / np.sqrt(4000) * np.sqrt(1.4)
    assert np.all(np.abs(w.mean(0) - variables["mean_latent"]) < tolerance)


def test_ignores_the_rest_of_a_training_checkpoint(state):
    convert(state | {"g": {}, "d": {}, "g_optim": {}, "args": None, "ada_aug_p": 0.0})


def test_names_every_tensor_that_is_missing(state):
    for name in state["g_ema"]:
        less = {key: array for key, array in state["g_ema"].items() if key != name}
        with pytest.raises(UserError, match=f"net.pt.*{name}"):
            stylegan2.convert({**state, "g_ema": less}, "net.pt")


def test_names_unknown_tensors(state):
    state["g_ema"]["convs.0.conv.extra"] = np.zeros(1)
    with pytest.raises(UserError, match="unknown.*convs.0.conv.extra"):
        stylegan2.convert(state)


def test_names_every_tensor_of_another_shape(state):
    for name, array in state["g_ema"].items():
        other = {**state["g_ema"], name: array[None]}
        with pytest.raises(UserError, match=name):
            stylegan2.convert({**state, "g_ema": other})


def test_refuses_another_filter(state):
    state["g_ema"]["convs.0.conv.blur.kernel"] = np.full((4, 4), 0.25, np.float32)
    with pytest.raises(UserError, match="convs.0.conv.blur.kernel"):
        stylegan2.convert(state)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([], "list"),
        ({"state_dict": {}}, "state_dict"),
        ({"g_ema": {}}, "expected one of 32 to 1024"),
        ({"g_ema": None}, "g_ema"),
    ],
)
def test_refuses_other_checkpoints(wrong, reason):
    with pytest.raises(UserError, match=reason):
        stylegan2.convert(wrong)


def test_refuses_a_mean_latent_of_another_width(state):
    with pytest.raises(UserError, match=r"latent_avg has shape \(3,\), expected \(24,\)"):
        stylegan2.convert({**state, "latent_avg": np.zeros(3)})


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "converters.stylegan2", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_writes_a_generator(tmp_path):
    done = command(GOLDEN / "rosinality_32_map2.pt", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "32 px" in done.stdout and "all 69 tensors" in done.stdout
    golden = np.load(GOLDEN / "rosinality_32_map2.npz")
    generator = repgan_jax.generator.load_generator(tmp_path / "out")
    image, _ = jax.jit(generator.synthesis)(golden["wplus"])
    assert_parity(image, golden["image_wplus"])


def test_the_command_ends_in_one_line_and_leaves_nothing(tmp_path):
    damaged = tmp_path / "damaged.pt"
    shutil.copy(GOLDEN / "rosinality_32_map2.pt", damaged)
    damaged.write_bytes(damaged.read_bytes()[:70000])
    done = command(damaged, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {damaged}: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [damaged]
