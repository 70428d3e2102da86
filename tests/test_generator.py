"""The generator as one object, and what its folder may get wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator, load_generator
from repgan_jax.io import checkpoint

ARCHITECTURE = {
    "name": "stylegan2",
    "resolution": 16,
    "z_dim": 12,
    "w_dim": 12,
    "mapping_layers": 2,
    "widths": {"4": 10, "8": 8, "16": 6},
}


def test_properties(tiny_generator):
    assert tiny_generator.resolution == 16
    assert (tiny_generator.num_layers, tiny_generator.z_dim, tiny_generator.w_dim) == (6, 12, 12)
    names = ("conv_00_4", "conv_01_8", "conv_02_8", "conv_03_16", "conv_04_16")
    assert tiny_generator.tap_names == names


def test_truncation_moves_towards_the_mean(tiny_generator):
    z = jax.random.normal(jax.random.key(1), (3, 12))
    full = np.asarray(tiny_generator.mapping(z))
    mean = np.asarray(tiny_generator.variables["mean_latent"])
    half = tiny_generator.mapping(z, truncation=0.5)
    np.testing.assert_allclose(half, (full + mean) / 2, atol=1e-6 * np.abs(full).max())


def test_one_latent_is_the_same_latent_in_every_layer(tiny_generator):
    w = jax.random.normal(jax.random.key(2), (2, 12))
    synthesis = jax.jit(lambda g, w: g.synthesis(w))
    once, each = synthesis(tiny_generator, w), synthesis(tiny_generator, w[:, None].repeat(6, 1))
    assert once[0].shape == (2, 16, 16, 3)
    assert tuple(sorted(once[1])) == tiny_generator.tap_names
    jax.tree.map(np.testing.assert_array_equal, once, each)


def test_what_is_not_used_is_not_computed(tiny_generator):
    def cost(used):
        lowered = jax.jit(lambda g, w: used(*g.synthesis(w))).lower(tiny_generator, w)
        return lowered.compile().cost_analysis()["flops"]

    w = jnp.zeros((1, 12))
    coarse = cost(lambda image, taps: taps["conv_02_8"])
    assert coarse < 0.4 * cost(lambda image, taps: image)  # 16x16 is most of the work


def test_a_written_generator_is_read_again(tiny_generator, tmp_path):
    folder = tmp_path / "generator"
    checkpoint.write_generator(folder, ARCHITECTURE, tiny_generator.variables)
    found = load_generator(folder)
    jax.tree.map(np.testing.assert_array_equal, found.variables, tiny_generator.variables)
    empty = {"variables": {}, "architecture": ""}
    assert dataclasses.replace(found, **empty) == dataclasses.replace(tiny_generator, **empty)
    rough = load_generator(folder, dtype=jnp.bfloat16)
    image, taps = jax.eval_shape(rough.synthesis, jnp.ones((1, 12)))
    assert (image.dtype, taps["conv_00_4"].dtype) == (jnp.float32, jnp.bfloat16)


def write(path, architecture, variables):
    checkpoint.write_generator(path, architecture, variables)
    return path


def test_tensors_that_do_not_fit_are_named(tiny_generator, tmp_path):
    variables = jax.tree.map(np.asarray, tiny_generator.variables)
    wrong = jax.tree.map(np.copy, variables)
    wrong["synthesis"]["params"]["conv_01"]["kernel"] = np.zeros((3, 3, 10, 7), np.float32)
    missing = jax.tree.map(np.copy, variables)
    del missing["synthesis"]["noise"]["conv_04"]
    unknown = jax.tree.map(np.copy, variables)
    unknown["mapping"]["params"]["dense_2"] = {"bias": np.zeros(12, np.float32)}
    for name, tree, message in (
        ("wrong", wrong, r"'conv_01'.*'kernel'.*\(3, 3, 10, 7\), expected \(3, 3, 10, 8\)"),
        ("missing", missing, r"'noise'.*'conv_04'.*'map'.*none \(missing\), expected \(16, 16\)"),
        ("unknown", unknown, r"'dense_2'.*'bias'.*\(12,\), expected none \(unknown\)"),
    ):
        folder = write(tmp_path / name, ARCHITECTURE, tree)
        with pytest.raises(UserError, match=message) as info:
            load_generator(folder)
        assert str(folder) in str(info.value) and "\n" not in str(info.value)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UserError, match="'stylegan3' is unknown; .*'mobilestylegan', 'stylegan2'"):
        Generator.build({"name": "stylegan3"}, {})


def test_an_architecture_without_a_setting_is_refused():
    with pytest.raises(UserError, match="cannot be built .KeyError: .*convert again"):
        Generator.build({"name": "stylegan2", "widths": {"4": 8}, "z_dim": 8}, {})


def test_a_folder_without_generator_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no generator here.*convert one first"):
        load_generator(tmp_path / "nowhere")
