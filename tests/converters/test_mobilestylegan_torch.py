"""MobileStyleGAN's own checkpoints: against the original, and made of the real generator."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.optimize import nnls

from repgan_jax.converters import mobilestylegan
from repgan_jax.converters.command import run
from repgan_jax.converters.mobilestylegan_torch import convert, fold_demodulation, rules
from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator, load_generator

GOLDEN = Path(__file__).parents[1] / "golden" / "mobilestylegan_32"


@pytest.fixture
def state():
    """What the file of a small generator holds."""
    return torch_file.read(GOLDEN.with_suffix(".ckpt"))["state_dict"]


def assert_close(found, expected, what):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= 1e-5, f"{what}: {error}"  # float32 sums of some hundred products


def test_parity_with_the_original(state):
    golden = np.load(GOLDEN.with_suffix(".npz"))
    architecture, variables = convert(state)
    for name, layer in variables["synthesis"]["noise"].items():
        layer["map"] = golden[name.replace("conv", "noise")]
    generator = Generator.build(architecture, jax.tree.map(jax.numpy.asarray, variables))
    with jax.default_matmul_precision("float32"):
        assert_close(generator.mapping(golden["z"]), golden["w"], "w")
        image, taps = jax.jit(Generator.synthesis)(generator, golden["w"])
    assert list(taps) == ["conv_00_4", "conv_01_8", "conv_02_8", "conv_03_16", "conv_04_16"]
    for i, (name, tap) in enumerate(taps.items()):
        assert_close(tap, golden[f"tap_{i:02d}"].transpose(0, 2, 3, 1), name)
    assert_close(image, golden["image"].transpose(0, 2, 3, 1), "picture")
    np.testing.assert_array_equal(variables["mean_latent"], state["style_mean"][0, 0])


def undo(rule, variables):
    """Returns our array of `rule` as the checkpoint has it; axes of length 1 are not letters."""
    theirs, ours = rule.row.layout.split(), rule.row.our_layout.split()
    leaf = variables
    for part in f"{rule.ours}/{rule.row.ours}".split("/"):
        leaf = leaf[part]
    leaf = leaf.transpose([ours.index(axis) for axis in theirs if axis != "1"])
    return leaf.reshape([1 if axis == "1" else rule.sides[axis] for axis in theirs])


def test_the_real_generator_comes_back_from_a_checkpoint_that_is_made_of_it(face_generator):
    """Only if the export has folded what we fold can such a checkpoint exist.

    The folded kernels have the norm of 1 that `style_inv` gives them: F equations for its C
    squares, and up to four times as many equations as squares.
    """
    real = jax.tree.map(np.asarray, face_generator.variables)
    architecture = {
        "w_dim": face_generator.w_dim,
        "mapping_layers": len(real["mapping"]["params"]),
        "widths": dict(face_generator.synthesis_module.widths),
    }
    rng = np.random.default_rng(0)
    unfolded = jax.tree.map(np.copy, real)
    for name, conv in unfolded["synthesis"]["params"].items():
        if name.startswith("conv_"):
            kernel = conv["kernel"].astype(np.float64)
            full = kernel * conv["depthwise"][..., None] if "depthwise" in conv else kernel
            power = np.square(full).sum((0, 1)).T / full[..., 0].size  # [F, C]
            squares, _ = nnls(power, np.ones(len(power)), maxiter=10**5)
            np.testing.assert_allclose(power @ squares, 1, atol=1e-6, err_msg=name)
            conv["style_inv"] = np.sqrt(squares)
            conv["kernel"] = kernel * np.exp(0.5 * rng.normal(size=len(power)))  # any norm
    state = {"style_mean": np.tile(real["mean_latent"], (1, 23, 1))}
    for rule in rules(architecture):
        if rule.row.fixed is not None:
            state[rule.name] = rule.row.fixed.reshape([int(n) for n in rule.row.layout.split()])
        elif rule.row.ours is None:
            sides = rule.row.layout.split()
            state[rule.name] = rng.normal(size=[rule.sides.get(axis, 1) for axis in sides])
        else:
            state[rule.name] = undo(rule, unfolded)
    found_architecture, found = convert({"state_dict": state})
    assert found_architecture["resolution"] == 1024
    for part in (("mapping", "params"), ("synthesis", "params")):
        expected, converted = real[part[0]][part[1]], found[part[0]][part[1]]
        assert jax.tree.structure(expected) == jax.tree.structure(converted)
        for path, leaf in jax.tree.leaves_with_path(expected):
            name = jax.tree_util.keystr(path)
            other = dict(jax.tree.leaves_with_path(converted))[path]
            np.testing.assert_allclose(
                other, leaf, rtol=2e-6, atol=1e-9 * np.abs(leaf).max(), err_msg=name
            )


def test_a_folded_kernel_has_norm_one_under_the_style(state):
    _, variables = convert(state)
    rng = np.random.default_rng(0)
    style, kernel, depthwise = (rng.normal(size=n) for n in (5, (1, 1, 5, 7), (3, 3, 5)))
    folded = fold_demodulation(style_inv=style, kernel=kernel, depthwise=depthwise)["kernel"]
    full = folded * depthwise[..., None] * style[:, None] / np.sqrt(9 * 5)
    np.testing.assert_allclose(np.square(full).sum((0, 1, 2)), 1, rtol=1e-6)
    for name, conv in variables["synthesis"]["params"].items():
        assert "style_inv" not in conv, name


def test_a_missing_tensor_is_refused_by_name(state):
    generator = [name for name in state if name.startswith(("student", "mapping_net"))]
    needed = [name for name in generator if name != "student.device_info"]
    assert len(needed) == 69
    for name in needed:
        less = {other: x for other, x in state.items() if other != name}
        with pytest.raises(UserError, match=rf"^FILE: .*{re.escape(name)}") as info:
            convert(less, "FILE")
        assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["student.layers.0.extra", "mapping_net.layers.1.gain", "other"])
def test_an_unknown_tensor_is_refused(state, name):
    with pytest.raises(UserError, match=f"^FILE: unknown tensors, nothing converted: {name}$"):
        convert({**state, name: np.zeros(1, np.float32)}, "FILE")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("student.idwt.g1_row", lambda x: -x, "filter .* is not of the Haar wavelet"),
        ("student.input.input", lambda x: x[..., :2], r"has shape \(1, 16, 4, 2\), expected \(1, "),
        ("student.conv1.noise.weight", lambda x: x * np.nan, "infinite numbers or NaN"),
        ("style_mean", lambda x: x[..., :5], r"has shape \(1, 8, 5\), expected \(1, 8, 24\)"),
    ],
)
def test_another_tensor_is_refused(state, name, change, message):
    with pytest.raises(UserError, match=f"^FILE: .*{message}") as info:
        convert({**state, name: change(state[name])}, "FILE")
    assert "wavelet" in message or name in str(info.value)


@pytest.mark.parametrize("state", [None, [], {}, {"state_dict": {"weight": np.zeros(3)}}])
def test_another_file_is_refused(state):
    with pytest.raises(UserError, match=r"^FILE: tensor student.*/MobileStyleGAN.pytorch"):
        convert(state, "FILE")


def test_the_command_converts_a_checkpoint(tmp_path, monkeypatch, capsys):
    checkpoint = GOLDEN.with_suffix(".ckpt")
    arguments = ["convert", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    monkeypatch.setattr("sys.argv", arguments)
    run(mobilestylegan.main)
    assert "noise maps: none stored" in capsys.readouterr().out
    generator = load_generator(tmp_path / "out")  # compares every shape
    assert (generator.resolution, generator.num_layers, generator.z_dim) == (32, 8, 24)
