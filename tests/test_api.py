"""The library as a user of Python sees it."""

import dataclasses
import inspect
import typing

import jax
import numpy as np
import pytest

import repgan_jax
import repgan_jax as rg
from repgan_jax.errors import UserError
from repgan_jax.training.augment import Augmentation

FUNCTIONS = [name for name in repgan_jax.__all__ if inspect.isfunction(getattr(repgan_jax, name))]
OBJECTS = ("Generator", "Labeller", "Segmenter")


def _methods(name):
    for method, function in vars(getattr(rg, name)).items():
        if inspect.isfunction(function) and (method[0] != "_" or method == "__call__"):
            yield function


CALLABLES = [getattr(rg, name) for name in FUNCTIONS]
CALLABLES += [function for name in OBJECTS for function in _methods(name)]


@pytest.mark.parametrize("function", CALLABLES, ids=lambda function: function.__qualname__)
def test_public_functions_keep_the_rules(function):
    first, *_ = inspect.getdoc(function).splitlines()
    assert first.startswith(("Returns ", "Writes ")) and first.endswith(".")
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        assert parameter.name in {*hints, "self"}, f"{parameter.name} has no type"
        if parameter.default is not parameter.empty and parameter.name not in ("label",):
            assert parameter.kind is parameter.KEYWORD_ONLY, f"{parameter.name} is positional"
    assert "return" in hints
    names = [parameter.name for parameter in parameters]
    if "key" in names and "self" not in names:
        assert names[0] == "key"


@pytest.fixture(scope="module")
def labeller(tiny_chain):
    generator = rg.load_generator(tiny_chain.generator)
    shots = rg.load_shots(tiny_chain.shots)
    options = {"label_size": 32, "steps": 20, "learning_rate": 8e-3}
    return generator, rg.fit_labeller(jax.random.key(0), generator, shots, **options)


def test_from_shots_to_a_saved_segmenter(labeller, tmp_path):
    """The ten lines of the README, on a small generator."""
    generator, labeller = labeller
    sample = labeller.sample(generator, jax.random.key(1), 4)
    assert sample.images.shape == (4, 64, 64, 3) and sample.images.dtype == np.uint8
    assert sample.masks.shape == (4, 32, 32) and sample.masks.dtype == np.int32
    np.testing.assert_array_equal(sample.probabilities.argmax(-1), sample.masks)
    options = {"num_images": 12, "image_size": 32, "shard_size": 5, "progress": False}
    dataset = rg.generate_dataset(generator, labeller, tmp_path / "faces", **options)
    assert len(dataset) == 12 and dataset.palette == labeller.palette
    training = {"widths": (8, 16), "steps": 4, "batch_size": 8, "warmup_steps": 1}
    segmenter = rg.train_segmenter(jax.random.key(2), dataset, progress=False, **training)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 30, 40, 3)).astype(np.float32)
    logits = segmenter(images)
    assert logits.shape == (2, 30, 40, 3)
    photos = np.random.default_rng(1).integers(0, 256, (2, 50, 70, 3), np.uint8)
    masks = segmenter.predict(photos)
    assert masks.shape == (2, 50, 70) and masks.dtype == np.int32
    np.testing.assert_array_equal(segmenter.predict_probabilities(photos).argmax(-1), masks)
    segmenter.save(tmp_path / "segmenter")
    loaded = rg.load_segmenter(tmp_path / "segmenter")
    np.testing.assert_array_equal(loaded.predict(photos), masks)
    assert repr(loaded) == repr(segmenter) and len(repr(loaded)) < 200
    assert loaded.id2label == {0: "background", 1: "disc", 2: "bright"}


def test_a_dataset_from_python_is_that_of_the_command(tiny_run, tmp_path):
    generator, labeller = rg.load_generator(tiny_run.generator), rg.load_labeller(tiny_run.workdir)
    options = {"num_images": 12, "image_size": 32, "shard_size": 4, "progress": False}
    found = rg.generate_dataset(generator, labeller, tmp_path / "own", **options)
    expected = rg.open_dataset(tiny_run.workdir / "generate")
    for one, other in zip(found, expected, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], name)
    again = rg.generate_dataset(generator, labeller, tmp_path / "own", **options)
    assert len(again) == 12
    with pytest.raises(UserError, match="holds a dataset of another generator, labeller or other"):
        rg.generate_dataset(generator, labeller, tmp_path / "own", **options | {"seed": 1})


def test_a_labeller_from_python_is_that_of_the_command(tiny_run, labeller):
    found, expected = labeller[1], rg.load_labeller(tiny_run.workdir)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found.variables,
        expected.variables,
    )
    assert found.palette == expected.palette and found.flip == expected.flip


def test_objects_are_pytrees(tiny_run, labeller):
    generator, labeller = labeller
    segmenter = rg.load_segmenter(tiny_run.workdir)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3), minval=-1)
    plain = segmenter(images)
    compiled = jax.jit(lambda segmenter, images: segmenter(images))(segmenter, images)
    np.testing.assert_allclose(compiled, plain, atol=1e-5)
    mapped = jax.vmap(lambda image: segmenter(image[None])[0])(images)
    np.testing.assert_allclose(mapped, plain, atol=1e-4)
    gradient = jax.grad(lambda images: segmenter(images)[..., 0].mean())(images)
    assert np.abs(gradient).max() > 0
    halved = jax.tree.map(lambda x: x / 2, generator)
    assert dataclasses.replace(halved, variables={}) == dataclasses.replace(generator, variables={})
    for one in (generator, labeller, segmenter):
        assert len(repr(one)) < 200 and type(one).__name__ in repr(one)


def test_saved_generators_are_the_same_generator(tiny_chain, tmp_path):
    generator = rg.load_generator(tiny_chain.generator)
    generator.save(tmp_path / "generator")
    loaded = rg.load_generator(tmp_path / "generator")
    w = generator.mapping(jax.random.normal(jax.random.key(0), (2, generator.z_dim)))
    for one, other in zip(generator.synthesis(w), loaded.synthesis(w), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("images", [np.zeros((32, 32, 3)), np.zeros((1, 32, 32, 3), np.uint8)])
def test_logits_of_anything_but_float_images_are_refused(tiny_run, images):
    with pytest.raises(UserError, match=r"expected floats \[N, H, W, 3\]"):
        rg.load_segmenter(tiny_run.workdir)(images)


@pytest.mark.parametrize(
    ("labels", "options", "decision"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"flip": True}, True),
        (True, {"augment": Augmentation(flip=0.0)}, False),
    ],
)
def test_the_decision_on_flips_reaches_the_segmenter(labeller, tmp_path, labels, options, decision):
    generator, labeller = labeller
    labeller = dataclasses.replace(labeller, flip=labels)
    settings = {"num_images": 12, "image_size": 32, "progress": False}
    dataset = rg.generate_dataset(generator, labeller, tmp_path / "faces", **settings)
    assert dataset.flip is labels and dataset.without([0]).flip is labels
    training = {"widths": (8, 16), "steps": 2, "batch_size": 8, "warmup_steps": 1}
    training |= {"progress": False, **options}
    segmenter = rg.train_segmenter(jax.random.key(0), dataset, **training)
    assert segmenter.flip is decision
