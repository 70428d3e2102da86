"""An ensemble of heads labels pixels, and is an object that is saved and loaded."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repgan_jax
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, json_files
from repgan_jax.labeller import Labeller, load_labeller
from repgan_jax.models import heads
from repgan_jax.palette import parse_classes

K, SIZE = 3, 16
HEAD = heads.build("mlp0", K, SIZE)
PALETTE = parse_classes("weak\nmiddling #102030\nstrong", "test")


def ensemble(members):
    key = jax.random.key(3)
    fine = jax.random.normal(key, (2, SIZE, SIZE, 4)) * jnp.array([1.0, 3.0, 20.0, 0.1])
    taps = {"conv_01_8": jax.random.normal(key, (2, 8, 8, 5)), "conv_03_16": fine}
    keys = jax.random.split(jax.random.key(1), members)
    params = jax.vmap(lambda key: HEAD.init(key, taps)["params"])(keys)
    params = jax.tree.map(lambda x: 3 * x, params)  # so that members are sure, and disagree
    stats = HEAD.init(keys[0], taps)["stats"]
    return Labeller({"params": params, "stats": stats}, HEAD, tuple(taps), PALETTE), taps


def test_ensemble_against_a_loop_over_members_and_pixels():
    labeller, taps = ensemble(4)
    mean, disagreement = labeller.with_disagreement(taps)
    variables = labeller.variables
    members = []
    for i in range(4):
        params = jax.tree.map(lambda x, i=i: x[i], variables["params"])
        logits = np.asarray(HEAD.apply({**variables, "params": params}, taps), np.float64)
        members.append(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    # float32 softmax of logits up to 100: their rounding of 1e-5
    np.testing.assert_allclose(mean, np.mean(members, 0), atol=2e-5)

    def divergence(p, q):
        return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    for place in ((0, 0, 0), (0, 3, 7), (1, 15, 2)):
        ps = [member[place] for member in members]
        expected = np.mean([divergence(p, np.mean(ps, 0)) for p in ps])  # Jensen-Shannon
        np.testing.assert_allclose(disagreement[place], expected, atol=2e-5)
    assert disagreement.min() >= 0 and 0.1 < disagreement.max() <= np.log(4) + 1e-6


def test_a_single_head_and_equal_heads_agree():
    labeller, taps = ensemble(1)
    variables = labeller.variables
    single, none = labeller.with_disagreement(taps)
    assert not none.any()
    thrice = {**variables, "params": jax.tree.map(lambda x: x.repeat(3, 0), variables["params"])}
    labeller = dataclasses.replace(labeller, variables=thrice)
    mean, disagreement = labeller.with_disagreement(taps)
    np.testing.assert_allclose(mean, single, atol=1e-6)
    np.testing.assert_allclose(disagreement, 0, atol=1e-6)


def test_saved_and_loaded_labellers_agree(tmp_path):
    labeller, taps = ensemble(2)
    labeller.save(tmp_path / "one")
    loaded = load_labeller(tmp_path / "one")
    assert repr(loaded) == repr(labeller)
    assert loaded.id2label == {0: "weak", 1: "middling", 2: "strong"}
    assert loaded.label2id == {"weak": 0, "middling": 1, "strong": 2}
    np.testing.assert_array_equal(loaded(taps), labeller(taps))
    labeller.save(tmp_path / "one")  # replaces its own kind alone
    (tmp_path / "one" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something other than a saved Labeller"):
        labeller.save(tmp_path / "one")


def test_loading_from_bad_folders_is_refused(tmp_path):
    labeller, _ = ensemble(1)
    with pytest.raises(UserError, match="no labeller here"):
        load_labeller(tmp_path / "nowhere")
    labeller.save(tmp_path / "one")
    with pytest.raises(UserError, match="holds Labeller, expected Generator"):
        repgan_jax.load_generator(tmp_path / "one")
    weights = tmp_path / "one" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(UserError, match="model.safetensors: damaged"):
        load_labeller(tmp_path / "one")
    weights.write_bytes(whole)
    config = tmp_path / "one" / "config.json"
    found = json.loads(config.read_text())
    config.write_text(json.dumps(found | {"taps": {"conv_03_16": 4}}))
    with pytest.raises(UserError, match="kernel_conv_01_8.* expected none"):
        load_labeller(tmp_path / "one")
    config.write_text(json.dumps(found | {"format": 99}))
    with pytest.raises(UserError, match="format 99, expected 1"):
        load_labeller(tmp_path / "one")


def test_a_labeller_is_a_pytree():
    labeller, taps = ensemble(2)
    plain = labeller(taps)
    np.testing.assert_allclose(jax.jit(Labeller.__call__)(labeller, taps), plain, atol=1e-6)

    def confidence(labeller):
        return labeller(taps).max(-1).mean()

    gradient = jax.grad(confidence)(labeller)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    one_by_one = jax.vmap(lambda tap: labeller(jax.tree.map(lambda x: x[None], tap))[0])(taps)
    np.testing.assert_allclose(one_by_one, plain, atol=1e-5)


@pytest.fixture
def former(tmp_path):
    """A labeller, and the run in which version 0.1.0 would have kept it."""
    labeller, _ = ensemble(2)
    folder = tmp_path / "fewshot"
    checkpoint.write_tree(folder / "heads", labeller.variables)
    head = {"head": "mlp0", "label_size": SIZE, "resize": "bilinear", "taps": labeller.tap_names}
    json_files.write(folder / "head.json", head)
    palette = PALETTE.to_json()
    del palette["pairs"]
    json_files.write(folder / "palette.json", palette)
    return labeller, tmp_path


def test_runs_of_version_0_1_0_are_read(former):
    labeller, workdir = former
    loaded = load_labeller(workdir)
    assert loaded.flip and loaded.palette == PALETTE and loaded.tap_names == labeller.tap_names
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, labeller.variables)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": None}, "head.json: JSON, but not of this kind of file"),
        ({"taps": ["conv_99_8"]}, "head.json: JSON, but not of this kind .*KeyError: 'conv_99_8'"),
        ({"label_size": 0}, "head.json: JSON, but not of this kind of file"),
        ({"head": "mlp2"}, "fewshot: tensor .* has shape none .missing., expected"),
    ],
)
def test_what_does_not_fit_in_a_run_of_version_0_1_0_is_named(former, changes, message):
    path = former[1] / "fewshot/head.json"
    head = {**json_files.read(path), **changes}
    json_files.write(path, {name: value for name, value in head.items() if value is not None})
    with pytest.raises(UserError, match=message):
        load_labeller(former[1])


@pytest.mark.parametrize("name", ["palette", "taps", "num_heads", "flip"])
def test_a_config_without_a_part_is_named(tmp_path, name):
    ensemble(2)[0].save(tmp_path / "labeller")
    path = tmp_path / "labeller/config.json"
    config = json_files.read(path)
    del config[name]
    json_files.write(path, config)
    with pytest.raises(UserError, match=f"config.json: JSON, but not .*KeyError: '{name}'"):
        load_labeller(tmp_path / "labeller")
