"""Conversion of StyleGAN2: parity with each original, every tensor accounted for, and back."""

import collections
import dataclasses
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

import repgan_jax.generator
from repgan_jax.converters import stylegan2
from repgan_jax.converters.layouts import shape
from repgan_jax.converters.pytorch_files import torch_file, torch_writer
from repgan_jax.converters.pytorch_files.plain_data import Record
from repgan_jax.converters.stylegan2_formats import NVIDIA as NVIDIA_FORMAT
from repgan_jax.converters.stylegan2_formats import ROSINALITY as ROSINALITY_FORMAT
from repgan_jax.converters.stylegan2_formats import layers
from repgan_jax.converters.stylegan2_sources import _modules, locate
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, images

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden"
ROSINALITY = ("rosinality_64", "rosinality_32_map2")
NVIDIA = ("nvidia_ada_64", "nvidia_ada_32_cond")


@pytest.fixture
def state():
    return torch_file.read(GOLDEN / "rosinality_32_map2.pt")


@pytest.fixture
def nvidia():
    return torch_file.read(GOLDEN / "nvidia_ada_32_cond_nosource.pkl")


def build(state):
    """Returns the generator in `state`."""
    return repgan_jax.generator.Generator.build(*stylegan2.convert(state))


def tensors(state):
    """Returns the tensors of the generator in `state` by their own names, the mean latent too."""
    source = locate(state, "file")
    mean = {} if source.mean is None else {source.fmt.mean: source.mean}
    return {**source.tensors, **mean}


def assert_same(found, expected):
    """Checks that two conversions give the same generator, bit for bit."""
    assert found[0] == expected[0]
    jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])


def assert_parity(found, reference):
    """The bound is relative to the largest magnitude: rounding in sums, over all layers."""
    found = np.asarray(found)
    if found.ndim == 4:
        found = found.transpose(0, 3, 1, 2)  # the reference is NCHW
    np.testing.assert_allclose(found, reference, rtol=0, atol=2e-5 * np.abs(reference).max())


def assert_taps(taps, golden):
    assert len(taps) == sum(key.startswith("tap_") for key in golden)
    for i, tap in enumerate(taps.values()):
        assert_parity(tap, golden[f"tap_{i:02d}"])


@pytest.mark.parametrize("name", ROSINALITY)
def test_computes_what_rosinality_computes(name):
    generator = build(torch_file.read(GOLDEN / f"{name}.pt"))
    golden = np.load(GOLDEN / f"{name}.npz")
    with jax.default_matmul_precision("float32"):
        assert_parity(generator.mapping(golden["z"]), golden["w"])
        w = generator.mapping(golden["z"], truncation=float(golden["psi"]))
        image, taps = jax.jit(generator.synthesis)(w)
        image_wplus, _ = jax.jit(generator.synthesis)(golden["wplus"])
    np.testing.assert_array_equal(generator.variables["mean_latent"], golden["latent_avg"])
    assert_parity(image, golden["image"])
    assert_parity(image_wplus, golden["image_wplus"])
    assert_taps(taps, golden)


@pytest.mark.parametrize("name", NVIDIA)
def test_computes_what_nvidia_computes(name):
    generator = build(torch_file.read(GOLDEN / f"{name}_nosource.pkl"))
    golden = np.load(GOLDEN / f"{name}.npz")
    label = golden.get("c")
    with jax.default_matmul_precision("float32"):
        w = generator.mapping(golden["z"], label)
        truncated = generator.mapping(golden["z"], label, truncation=float(golden["psi"]))
        image, taps = jax.jit(generator.synthesis)(golden["w_truncated"])
        from_z, _ = jax.jit(generator.synthesis)(truncated)
        no_noise, _ = jax.jit(lambda w: generator.synthesis(w, noise="none"))(w)
    assert_parity(w, golden["w"])
    for layer in range(generator.num_layers):
        assert_parity(truncated, golden["w_truncated"][:, layer])
    assert_parity(image, golden["image"])
    assert_parity(from_z, golden["image"])
    assert_parity(no_noise, golden["image_no_noise"])
    assert_taps(taps, golden)


def test_classes_are_asked_for_by_id_or_one_hot(nvidia):
    generator = build(nvidia)
    z = jax.random.normal(jax.random.key(0), (5, generator.z_dim))
    ids = np.array([4, 0, 2, 2, 1])
    np.testing.assert_array_equal(generator.mapping(z, ids), generator.mapping(z, np.eye(5)[ids]))
    same = generator.mapping(z[:1].repeat(5, 0), np.arange(5))
    assert len(np.unique(np.asarray(same), axis=0)) == 5
    with pytest.raises(ValueError, match="label: none given, but the generator has 5 classes"):
        generator.mapping(z)


def as_tensorflow(state):
    """Returns rosinality's tensors as NVIDIA's TensorFlow code pickles them: (G, D, Gs).

    The layouts are those that both code bases document by the converter between them: kernels
    [Y, X, C, F], those of up-sampling layers not turned around, biases of styles less one.
    """
    source, mapping, synthesis = state["g_ema"], {}, {}
    for i in range(sum(name.endswith("weight") for name in source if name.startswith("style."))):
        mapping[f"Dense{i}/weight"] = source[f"style.{i + 1}.weight"].T
        mapping[f"Dense{i}/bias"] = source[f"style.{i + 1}.bias"]
    synthesis["4x4/Const/const"] = source["input.input"]

    def modulated(theirs, ours, *, up=False):
        kernel = source[f"{theirs}.conv.weight"][0].transpose(2, 3, 1, 0)
        synthesis[f"{ours}/weight"] = kernel[::-1, ::-1] if up else kernel
        synthesis[f"{ours}/mod_weight"] = source[f"{theirs}.conv.modulation.weight"].T
        synthesis[f"{ours}/mod_bias"] = source[f"{theirs}.conv.modulation.bias"] - 1

    def convolution(theirs, ours, *, up=False):
        modulated(theirs, ours, up=up)
        synthesis[f"{ours}/bias"] = source[f"{theirs}.activate.bias"]
        synthesis[f"{ours}/noise_strength"] = source[f"{theirs}.noise.weight"][0]

    def to_rgb(theirs, ours):
        modulated(theirs, ours)
        synthesis[f"{ours}/bias"] = source[f"{theirs}.bias"].ravel()

    convolution("conv1", "4x4/Conv")
    to_rgb("to_rgb1", "4x4/ToRGB")
    for level in range(sum(name.startswith("to_rgbs") for name in source) // 5):
        block = f"{8 << level}x{8 << level}"
        convolution(f"convs.{2 * level}", f"{block}/Conv0_up", up=True)
        convolution(f"convs.{2 * level + 1}", f"{block}/Conv1")
        to_rgb(f"to_rgbs.{level}", f"{block}/ToRGB")
    for name, value in source.items():
        if name.startswith("noises."):
            synthesis[name.removeprefix("noises.").replace("noise_", "noise")] = value

    def network(variables, **components):
        fields = {"version": 4, "name": "G", "build_module_src": "raise SystemExit"}
        fields |= {"static_kwargs": {"resolution": 32, "architecture": "skip"}}
        fields |= {"variables": list(variables.items()), "components": components}
        return Record("dnnlib.tflib.network.Network", fields)

    mean = {"lod": np.float32(0), "dlatent_avg": state["latent_avg"]}
    parts = {"mapping": network(mapping), "synthesis": network(synthesis)}
    critic = network({"64x64/FromRGB/weight": np.ones((1, 1, 3, 4), np.float32)})
    return (network(mean, **parts), critic, network(mean, **parts))


def pickled(networks, path, monkeypatch):
    """Writes TensorFlow networks as their own classes pickle themselves, and returns `path`."""
    for name in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network"):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
    module.Network = type("Network", (), {"__module__": module.__name__})

    def original(record):
        found = module.Network()
        found.__dict__ |= record.state
        parts = record.state["components"].items()
        found.components = collections.OrderedDict((name, original(part)) for name, part in parts)
        return found

    path.write_bytes(pickle.dumps(tuple(map(original, networks)), protocol=4))
    return path


@pytest.mark.parametrize("name", ROSINALITY)
def test_reads_tensorflow_networks(name, tmp_path, monkeypatch):
    state = torch_file.read(GOLDEN / f"{name}.pt")
    golden = np.load(GOLDEN / f"{name}.npz")
    path = pickled(as_tensorflow(state), tmp_path / "net.pkl", monkeypatch)
    found = stylegan2.translate(locate(torch_file.read(path), "net.pkl"))
    assert "of no use in StyleGAN2: lod" in found.notes[1]
    generator = repgan_jax.generator.Generator.build(found.architecture, found.variables)
    w = generator.mapping(golden["z"], truncation=float(golden["psi"]))
    image, taps = jax.jit(generator.synthesis)(w)
    assert_parity(image, golden["image"])
    assert_taps(taps, golden)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "resnet"}, "architecture is resnet, expected skip"),
        ({"mapping_lrmul": 0.1}, "mapping_lrmul is 0.1, expected 0.01"),
        ({"resample_kernel": [1, 2, 1]}, "resample_kernel"),
        ({"nonlinearity": "relu"}, "nonlinearity is relu"),
        ({"conv_clamp": "x"}, "conv_clamp is x, expected a number"),
    ],
)
def test_refuses_tensorflow_networks_that_compute_something_else(change, reason, state):
    networks = as_tensorflow(state)
    networks[2].state["static_kwargs"].update(change)
    with pytest.raises(UserError, match=f"net.pkl: {reason}"):
        stylegan2.convert(networks, "net.pkl")


def forms(state):
    """Returns the ways in which rosinality's files hold a generator."""
    g_ema, mean = state["g_ema"], state["latent_avg"]
    parallel = {f"module.{name}": value for name, value in g_ema.items()}
    flat = {f"g_ema.{name}": value for name, value in g_ema.items()}
    training = {"g": {}, "d": {}, "g_optim": {}, "args": None, "ada_aug_p": 0.0}
    return {
        "training": {**state, **training},
        "last state only": {"g": g_ema, "latent_avg": mean},
        "bare": {**g_ema, "latent_avg": mean},
        "parallel": {"g_ema": parallel, "latent_avg": mean},
        "flat": {**flat, "latent_avg": mean},
        "filters left out": {**state, "g_ema": {k: v for k, v in g_ema.items() if "kern" not in k}},
    }


@pytest.mark.parametrize("form", forms({"g_ema": {}, "latent_avg": None}))
def test_finds_the_generator_in_every_form(form, state):
    assert_same(stylegan2.convert(forms(state)[form]), stylegan2.convert(state))


def test_prefers_the_average_and_names_what_is_not_used(state):
    last = {name: value + 1 for name, value in state["g_ema"].items()}
    source = locate({"g": last, "g_optim": {"step": 3}, "args": None, **state}, "net.pt")
    assert source.key == "g_ema"
    assert source.unused == ("g", "g_optim")
    assert locate({**state, "epoch": 3}, "net.pt").unknown == ("epoch",)
    inside = {**state["g_ema"], "step": 3}
    assert locate({**state, "g_ema": inside}, "net.pt").unknown == ("g_ema.step",)
    with pytest.raises(UserError, match="net.pt: unknown tensors, nothing converted: mystery"):
        locate({**state, "mystery": np.zeros(3)}, "net.pt")


@pytest.mark.parametrize("name", ["rosinality_64.pt", "nvidia_ada_32_cond_nosource.pkl"])
def test_reads_safetensors_of_either_naming(name, tmp_path):
    state = torch_file.read(GOLDEN / name)
    arrays = {name: np.array(x, order="C") for name, x in tensors(state).items()}
    safetensors.numpy.save_file(arrays, tmp_path / "net.bin")  # the name says nothing
    assert_same(stylegan2.convert(torch_file.read(tmp_path / "net.bin")), stylegan2.convert(state))


def _encoder_checkpoint(state, latent_avg):
    """Returns `state` as pSp and e4e store it: generator and encoder in one, and their options."""
    tensors = {f"decoder.{name}": tensor for name, tensor in state["g_ema"].items()}
    encoder = {f"encoder.body.{i}.weight": np.full((2, 3), i, np.float32) for i in range(5)}
    return {
        "state_dict": {**encoder, **tensors},
        "latent_avg": latent_avg,
        "opts": {"n_styles": 10, "output_size": 64, "device": "cuda:0"},
        "global_step": 7,
        "discriminator_state_dict": {"mlp.0.weight": np.zeros((2, 2), np.float32)},
    }


def test_the_generator_of_an_encoder_computes_what_rosinality_computes(tmp_path):
    state = torch_file.read(GOLDEN / "rosinality_64.pt")
    rows = np.tile(state["latent_avg"], (10, 1))
    torch_writer.write(tmp_path / "e4e.pt", _encoder_checkpoint(state, rows))
    found = stylegan2.translate(locate(torch_file.read(tmp_path / "e4e.pt"), "e4e.pt"))
    assert_same((found.architecture, found.variables), stylegan2.convert(state))
    assert "mean latent: stored (latent_avg, 10 equal rows)" in found.notes
    golden = np.load(GOLDEN / "rosinality_64.npz")
    generator = repgan_jax.generator.Generator.build(found.architecture, found.variables)
    with jax.default_matmul_precision("float32"):
        image, _ = jax.jit(generator.synthesis)(golden["wplus"])
    assert_parity(image, golden["image_wplus"])


def test_the_command_counts_the_tensors_of_an_encoder(tmp_path, state, monkeypatch, capsys):
    torch_writer.write(tmp_path / "psp.pt", _encoder_checkpoint(state, state["latent_avg"][None]))
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "psp.pt"), str(out), "--samples=0"])
    stylegan2.main()
    printed = capsys.readouterr().out
    assert "format: rosinality/stylegan2-pytorch, its decoder" in printed
    assert "encoder: 5 tensors, of no use to the generator, left out" in printed
    assert "left out: discriminator_state_dict, global_step, opts" in printed
    variables = checkpoint.read_generator(out)[1]
    jax.tree.map(np.testing.assert_array_equal, variables, stylegan2.convert(state)[1])


def test_rows_of_a_mean_latent_that_differ_are_averaged(state):
    rows = np.tile(state["latent_avg"], (8, 1))
    rows[:, 0] = np.arange(8)
    found = stylegan2.translate(locate(_encoder_checkpoint(state, rows), "file"))
    assert "mean latent: mean of the 8 rows of latent_avg, which differ by up to 7" in found.notes
    expected = np.array([3.5, *state["latent_avg"][1:]], np.float32)
    np.testing.assert_allclose(found.variables["mean_latent"], expected, rtol=1e-6)
    with pytest.raises(UserError, match=r"tensor latent_avg has shape \(3, .*expected \("):
        stylegan2.translate(locate(_encoder_checkpoint(state, rows[:3]), "file"))


def test_unknown_tensors_beside_an_encoder_are_named(state):
    strange = _encoder_checkpoint(state, state["latent_avg"])
    strange["state_dict"]["restorer.weight"] = np.zeros(3, np.float32)
    with pytest.raises(UserError, match="unknown tensors, nothing converted: restorer.weight"):
        locate(strange, "file")


def test_states_the_architecture(state, nvidia):
    rosinality, _ = stylegan2.convert(state)
    assert rosinality == {
        "name": "stylegan2",
        "resolution": 32,
        "z_dim": 24,
        "w_dim": 24,
        "mapping_layers": 2,
        "widths": {"4": 20, "8": 20, "16": 16, "32": 12},
    }
    conditional, _ = stylegan2.convert(nvidia)
    assert conditional["num_classes"] == 5
    assert (conditional["z_dim"], conditional["w_dim"], conditional["mapping_layers"]) == (
        48,
        48,
        2,
    )


@pytest.mark.parametrize("fixture", ["state", "nvidia"])
def test_estimates_a_missing_mean_latent(fixture, request):
    whole = request.getfixturevalue(fixture)
    bare = dict(locate(whole, "file").tensors)
    found = stylegan2.translate(locate(bare, "file"))
    again = stylegan2.translate(locate(bare, "file"))
    mean = found.variables["mean_latent"]
    np.testing.assert_array_equal(mean, again.variables["mean_latent"])
    assert "mean latent: estimated from 10,000 samples" in found.notes
    generator = build(whole)
    z = np.random.default_rng(0).normal(size=(4000, generator.z_dim)).astype(np.float32)
    label = np.arange(4000) % generator.num_classes if generator.num_classes else None
    w = np.asarray(generator.mapping(z, label))
    # the mean of 4,000 independent samples, within five of its standard deviations
    assert np.all(np.abs(w.mean(0) - mean) < 5 * w.std(0) / np.sqrt(4000) * np.sqrt(1.4))


def test_draws_noise_maps_that_no_one_stored(state):
    g_ema = {name: x for name, x in state["g_ema"].items() if not name.startswith("noises")}
    found = stylegan2.translate(locate({**state, "g_ema": g_ema}, "net.pt"))
    assert "noise maps: none stored, drawn with seed 0" in found.notes
    maps = jax.tree.leaves(found.variables["synthesis"]["noise"])
    assert sorted(x.shape[0] for x in maps) == [4, 8, 8, 16, 16, 32, 32]
    values = np.concatenate([x.ravel() for x in maps])
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05  # 3,000 normal numbers
    assert len(np.unique(values)) == len(values)
    one = {**state["g_ema"]}
    del one["noises.noise_3"]
    with pytest.raises(UserError, match=r"missing tensors.*noises\.noise_3"):
        stylegan2.convert({**state, "g_ema": one})


def nvidia_modules(state):
    """Yields every pickled module of the generator."""
    waiting = [state["G_ema"]]
    while waiting:
        module = waiting.pop()
        yield module
        waiting += module.state["_modules"].values()


def _bound(found):
    return next(note for note in found.notes if "conv_clamp" in note)


def test_a_bound_of_the_layers_is_kept(nvidia):
    free, golden = build(nvidia), np.load(GOLDEN / "nvidia_ada_32_cond.npz")
    for module in nvidia_modules(nvidia):
        if "conv_clamp" in module.state:
            module.state["conv_clamp"] = 0.5
    architecture, _ = stylegan2.convert(nvidia)
    assert architecture["clamp"] == 0.5
    source = locate(nvidia, "net.pkl")
    notes = [_bound(stylegan2.translate(source))]
    notes.append(_bound(stylegan2.translate(locate(dict(source.tensors), "net.pkl"))))
    assert [note.split(": ")[1] for note in notes] == [
        "0.5",
        "not stated in this file, taken as none",
    ]
    image, taps = jax.jit(build(nvidia).synthesis)(golden["w_truncated"])
    first = jax.jit(free.synthesis)(golden["w_truncated"])[1]["conv_00_4"]
    assert np.abs(first).max() > 0.6
    np.testing.assert_array_equal(taps["conv_00_4"], np.clip(first, -0.5, 0.5))
    assert max(float(np.abs(tap).max()) for tap in taps.values()) == 0.5
    assert np.abs(image).max() <= 0.5 * 4  # four layers' pictures, each within the bound


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("SynthesisBlock", {"architecture": "resnet"}, "architecture is resnet, expected skip"),
        ("SynthesisLayer", {"activation": "relu"}, "activation is relu, expected lrelu"),
        ("SynthesisLayer", {"act_gain": 1.0}, "act_gain is 1.0"),
        ("SynthesisLayer", {"use_noise": False}, "use_noise is False"),
        ("FullyConnectedLayer", {"weight_gain": 2.0}, "weight_gain is 2.0"),
        ("FullyConnectedLayer", {"bias_gain": 0.5}, "bias_gain is 0.5"),
        ("ToRGBLayer", {"conv_clamp": 256}, "different conv_clamp"),
        ("ToRGBLayer", {"conv_clamp": -1.0}, "conv_clamp is -1.0, expected a number above 0"),
        ("SynthesisLayer", {"conv_clamp": [1]}, "conv_clamp is a list"),
        ("SynthesisLayer", {"act_gain": np.ones(3)}, "act_gain is a ndarray"),
    ],
)
def test_refuses_nvidia_networks_that_compute_something_else(kind, change, reason, nvidia):
    for module in nvidia_modules(nvidia):
        if module.name == kind:
            module.state.update(change)
    with pytest.raises(UserError, match=f"net.pkl: .*{reason}"):
        stylegan2.convert(nvidia, "net.pkl")


@pytest.mark.parametrize("fixture", ["state", "nvidia"])
def test_names_every_tensor_that_is_missing(fixture, request):
    source = locate(request.getfixturevalue(fixture), "net.pt")
    for name in source.tensors:
        less = {key: array for key, array in source.tensors.items() if key != name}
        changed = dataclasses.replace(source, tensors=less)
        if "kernel" in name or "filter" in name:
            assert stylegan2.translate(changed)
        elif name == source.fmt.signature:
            with pytest.raises(UserError, match="no StyleGAN2 generator"):
                stylegan2.convert(less, "net.pt")
        else:
            with pytest.raises(UserError, match=f"net.pt.*{name}"):
                stylegan2.translate(changed)


@pytest.mark.parametrize("fixture", ["state", "nvidia"])
def test_names_every_tensor_of_another_shape_or_without_numbers(fixture, request):
    source = locate(request.getfixturevalue(fixture), "net.pt")
    for name, array in source.tensors.items():
        for other in (array[None], array.astype(np.int32), np.full_like(array, np.nan)):
            changed = dataclasses.replace(source, tensors={**source.tensors, name: other})
            with pytest.raises(UserError, match=f"net.pt.*{name}"):
                stylegan2.translate(changed)


def test_names_unknown_tensors(state):
    state["g_ema"]["convs.0.conv.extra"] = np.zeros(1)
    with pytest.raises(UserError, match="unknown.*convs.0.conv.extra"):
        stylegan2.convert(state)


def test_refuses_another_filter(state):
    state["g_ema"]["convs.0.conv.blur.kernel"] = np.full((4, 4), 0.25, np.float32)
    with pytest.raises(UserError, match="convs.0.conv.blur.kernel"):
        stylegan2.convert(state)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([], "holds a list"),
        ("text", "holds a str"),
        ({"state_dict": {}}, "found state_dict"),
        ({}, "found nothing"),
        ({"g_ema": {}}, "no StyleGAN2 generator"),
        ({"g_ema": None}, "no StyleGAN2 generator"),
        ({"input.input": np.zeros((1, 4, 4, 4), np.float32)}, r"style\.1\.weight has shape None"),
    ],
)
def test_refuses_other_checkpoints(wrong, reason):
    with pytest.raises(UserError, match=f"net.pt: .*{reason}"):
        stylegan2.convert(wrong, "net.pt")


def test_refuses_sizes_that_no_tap_name_covers(state):
    g_ema = {
        name: x
        for name, x in state["g_ema"].items()
        if not any(part in name for part in ("convs.4", "convs.5", "to_rgbs.2", "e_5", "e_6"))
    }
    with pytest.raises(UserError, match="a generator of 16 px; expected one of 32 to 1024"):
        stylegan2.convert({**state, "g_ema": g_ema})


def test_refuses_a_mean_latent_of_another_width(state):
    with pytest.raises(UserError, match=r"latent_avg has shape \(3,\), expected \(24,\)"):
        stylegan2.convert({**state, "latent_avg": np.zeros(3)})


@pytest.mark.parametrize("name", ROSINALITY)
def test_goes_back_bit_for_bit(name):
    state = torch_file.read(GOLDEN / f"{name}.pt")
    back = stylegan2.to_rosinality(*stylegan2.convert(state))
    assert back.keys() == {"g_ema", "latent_avg"}
    assert back["g_ema"].keys() == state["g_ema"].keys()
    for key, array in state["g_ema"].items():
        assert back["g_ema"][key].shape == array.shape
        assert back["g_ema"][key].tobytes() == np.ascontiguousarray(array).tobytes()
    assert back["latent_avg"].tobytes() == np.ascontiguousarray(state["latent_avg"]).tobytes()


def _odd_values(value, path=()):
    """Yields the places in a state, each with what could stand there instead."""
    for other in (5, "x", [1], {}, None, np.ones(3), Record("x", {}), [("a", 1)], float("nan")):
        yield path, other
    inner = value.state if isinstance(value, Record) else value
    if isinstance(inner, dict):
        for key, item in inner.items():
            yield from _odd_values(item, (*path, key))
    elif isinstance(inner, (list, tuple)) and len(path) < 6:
        for index, item in enumerate(inner):
            yield from _odd_values(item, (*path, index))


def _replaced(value, path, other):
    """Returns a copy of a state with `other` at `path`."""
    if not path:
        return other
    if isinstance(value, Record):
        return Record(value.name, _replaced(value.state, path, other))
    if isinstance(value, dict):
        return {**value, path[0]: _replaced(value[path[0]], path[1:], other)}
    items = list(value)
    items[path[0]] = _replaced(items[path[0]], path[1:], other)
    return type(value)(items)


@pytest.mark.parametrize("kind", ["rosinality", "nvidia", "tensorflow"])
def test_odd_states_end_in_one_line_or_a_generator(kind, state, nvidia):
    whole = {"rosinality": state, "nvidia": nvidia, "tensorflow": as_tensorflow(state)}[kind]
    places = list(_odd_values(whole))
    assert len(places) > 600
    outcomes = set()
    for i in np.random.default_rng(0).permutation(len(places))[:400]:
        try:
            stylegan2.translate(locate(_replaced(whole, *places[i]), "net"))
            outcomes.add("converted")
        except UserError as error:
            outcomes.add("refused")
            assert str(error).startswith("net: ")
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert outcomes == {"converted", "refused"}


@pytest.mark.parametrize("bad", ["a\nb", "\x1b[2J", "x" * 500])
def test_names_from_a_file_do_not_reach_the_terminal_as_they_are(bad, state):
    state["g_ema"] |= {f"{bad}{i}": np.zeros(1) for i in range(100)}
    with pytest.raises(UserError, match="and 92 more") as caught:
        stylegan2.convert(state)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def checkpoint_of(resolution, *, base, most, depth, classes=0, clamp=None):
    """Returns a pickle's contents as NVIDIA's code trains it, weights zero: G_ema, D and more."""
    sizes = [4 << level for level in range(resolution.bit_length() - 2)]
    architecture = {
        "z_dim": 512,
        "w_dim": 512,
        "mapping_layers": depth,
        "num_classes": classes,
        "widths": {str(size): min(base // size, most) for size in sizes},
    }
    root = Record("Generator", {"_modules": {}})
    for layer in layers(architecture):
        for row in NVIDIA_FORMAT.rows.get(layer.kind, ()):
            fixed = row.fixed is not None
            tensor = row.fixed if fixed else np.broadcast_to(0.0, shape(row.layout, layer.sides))
            *modules, name = NVIDIA_FORMAT.tensor_name(layer, row).split(".")
            module = root
            for part in modules:
                inner = module.state.setdefault("_modules", {})
                module = inner.setdefault(part, Record(part, {}))
            module.state.setdefault("_parameters", {})[name] = np.asarray(tensor, np.float32)
            if name == "weight" and ".conv" in f".{'.'.join(modules)}":
                module.state.setdefault("conv_clamp", clamp)
    for _, module in _modules(root, ""):
        if "conv_clamp" in module.state and module.name == "affine":
            del module.state["conv_clamp"]
    root.state["_modules"]["mapping"].state["_buffers"] = {"w_avg": np.zeros(512, np.float32)}
    critic = Record("DiscriminatorEpilogue", {"_parameters": {"weight": np.ones((1, 3, 1, 1))}})
    return {
        "G": root,
        "D": Record("Discriminator", {"_modules": {"b4": critic}}),
        "G_ema": root,
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset"},
        "augment_pipe": Record("AugmentPipe", {"_buffers": {"p": np.zeros(())}}),
    }


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({"resolution": 256, "base": 16384, "most": 512, "depth": 8}, [512] * 4 + [256, 128, 64]),
        ({"resolution": 512, "base": 32768, "most": 512, "depth": 8}, [512] * 5 + [256, 128, 64]),
        ({"resolution": 256, "base": 16384, "most": 512, "depth": 2}, [512] * 4 + [256, 128, 64]),
        ({"resolution": 32, "base": 32768, "most": 512, "depth": 2, "classes": 10}, [512] * 4),
    ],
    ids=["paper256", "paper512", "auto", "cifar"],
)
def test_knows_the_configurations_of_nvidia(options, widths):
    source = locate(checkpoint_of(**options, clamp=256), "net.pkl")
    found = stylegan2.translate(source)
    assert list(found.architecture["widths"].values()) == widths
    assert found.architecture["resolution"] == options["resolution"]
    assert found.architecture["mapping_layers"] == options["depth"]
    assert found.architecture.get("num_classes", 0) == options.get("classes", 0)
    assert found.architecture["clamp"] == 256
    assert list(source.discriminator) == ["b4.weight"]
    assert source.unused == ("G", "augment_pipe", "training_set_kwargs")


def test_goes_from_nvidia_to_rosinality():
    state = torch_file.read(GOLDEN / "nvidia_ada_64_nosource.pkl")
    converted = stylegan2.convert(state)
    assert_same(stylegan2.convert(stylegan2.to_rosinality(*converted)), converted)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_classes": 5}, "has num_classes 5"),
        ({"clamp": 256.0}, r"has clamp 256\.0"),
        ({"name": "mobilestylegan"}, "mobilestylegan; expected stylegan2"),
    ],
)
def test_takes_back_only_what_rosinality_can_compute(change, reason, state):
    architecture, variables = stylegan2.convert(state)
    with pytest.raises(UserError, match=f"weights/x: .*{reason}"):
        stylegan2.to_rosinality({**architecture, **change}, variables, "weights/x")


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "repgan_jax.converters.stylegan2", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )


def test_the_command_writes_a_generator_and_takes_it_back(tmp_path, state):
    # with a discriminator, as training leaves it
    critic = {"convs.0.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "final.bias": None}
    critic["final.bias"] = np.ones(1, np.float32)
    torch_writer.write(tmp_path / "net.dat", {**state, "d": critic, "g_optim": {"step": 7}})
    done = command(tmp_path / "net.dat", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for line in (
        "32 px, 2-layer mapping, widths 4:20 8:20 16:16 32:12, no classes",
        "format: rosinality/stylegan2-pytorch, its g_ema",
        "all 69 tensors accounted for: 63 converted, 6 low-pass filters",
        "mean latent: stored (latent_avg)",
        "discriminator: 2 tensors kept",
        "of use in training only, left out: g_optim",
        "bound of the layers (conv_clamp): none",
        "converted in",
    ):
        assert line in done.stdout
    golden = np.load(GOLDEN / "rosinality_32_map2.npz")
    generator = repgan_jax.generator.load_generator(tmp_path / "out")
    image, _ = jax.jit(generator.synthesis)(golden["wplus"])
    assert_parity(image, golden["image_wplus"])
    sheet = images.read_photo(tmp_path / "out" / "samples.png")
    assert len(np.unique(sheet)) > 50 and min(sheet.shape[:2]) >= 4 * 32
    back = command("--to-rosinality", tmp_path / "out", tmp_path / "back.pt")
    assert back.returncode == 0, back.stderr
    again = torch_file.read(tmp_path / "back.pt")
    assert again.keys() == {"g_ema", "latent_avg", "d"}
    jax.tree.map(np.testing.assert_array_equal, again["d"], critic)
    assert again["g_ema"].keys() == state["g_ema"].keys()
    for name, array in again["g_ema"].items():
        np.testing.assert_array_equal(array, state["g_ema"][name])


def test_the_command_samples_every_class(tmp_path):
    done = command(GOLDEN / "nvidia_ada_32_cond_nosource.pkl", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "5 classes" in done.stdout and "its G_ema" in done.stdout
    assert (tmp_path / "out" / "samples.png").exists()
    assert repgan_jax.generator.load_generator(tmp_path / "out").num_classes == 5


def test_keeps_the_discriminator_of_every_format(tmp_path, state):
    architecture, variables = stylegan2.convert(state)
    networks = as_tensorflow(state)
    kept = locate(networks, "net.pkl").discriminator
    assert list(kept) == ["64x64/FromRGB/weight"]
    nested = {"64x64": {"FromRGB": {"weight": kept["64x64/FromRGB/weight"]}}}
    checkpoint.write_generator(tmp_path / "out", architecture, variables, nested)
    found = checkpoint.read_tree(tmp_path / "out" / "discriminator")
    jax.tree.map(np.testing.assert_array_equal, found, nested)


@pytest.mark.slow
def test_a_checkpoint_of_1024_px_takes_little_memory(tmp_path):
    widths = [512, 512, 512, 512, 512, 256, 128, 64, 32]
    architecture = {"z_dim": 512, "w_dim": 512, "mapping_layers": 8}
    architecture["widths"] = {str(4 << level): width for level, width in enumerate(widths)}
    tensors, rng = {}, np.random.default_rng(0)
    for layer in layers(architecture):
        for row in ROSINALITY_FORMAT.rows.get(layer.kind, ()):
            drawn = rng.standard_normal(shape(row.layout, layer.sides), np.float32)
            tensor = drawn if row.fixed is None else row.fixed.astype(np.float32)
            tensors[ROSINALITY_FORMAT.tensor_name(layer, row)] = tensor
    torch_writer.write(tmp_path / "net.pt", {"g_ema": tensors, "latent_avg": np.ones(512, "f4")})
    assert (tmp_path / "net.pt").stat().st_size > 120e6
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc: the system's other figures count this process's memory in")
    script = (
        "import runpy, sys; sys.argv = ['x', *sys.argv[1:]]; "
        "runpy.run_module('repgan_jax.converters.stylegan2', run_name='__main__'); "
        "print(open('/proc/self/status').read())"
    )
    arguments = [str(tmp_path / "net.pt"), str(tmp_path / "out"), "--samples=0"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )
    assert time.perf_counter() - start < 20
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", done.stdout)[1]) / 2**20
    assert 0.2 < peak < 1.5  # GiB


def test_what_is_in_the_way_is_not_replaced(tmp_path):
    inside, file = tmp_path / "out" / "net.pt", tmp_path / "file"
    inside.parent.mkdir()
    shutil.copy(GOLDEN / "rosinality_32_map2.pt", inside)
    file.touch()
    for out in (inside.parent, file):
        done = command(inside, out)
        assert done.returncode == 2 and "would be replaced" in done.stderr
        assert done.stderr.count("\n") == 1
    assert inside.exists() and file.exists()


def test_a_converted_folder_is_told_apart(tmp_path, state):
    checkpoint.write_generator(tmp_path / "net", *stylegan2.convert(state))
    done = command(tmp_path / "net", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'net'}: already converted")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["rosinality_32_map2.pt", "nvidia_ada_32_cond_nosource.pkl"])
def test_the_command_ends_in_one_line_and_leaves_nothing(name, tmp_path):
    damaged = tmp_path / name
    shutil.copy(GOLDEN / name, damaged)
    damaged.write_bytes(damaged.read_bytes()[:70000])
    done = command(damaged, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {damaged}: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [damaged]
