import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repgan_jax
from repgan_jax.data import dataset
from repgan_jax.generator import Generator
from repgan_jax.io import images
from repgan_jax.ops import resampling


@pytest.fixture(scope="module")
def records(tiny_run):
    return list(dataset.open_dataset(tiny_run.workdir / "generate"))


def test_samples_are_numbered_and_different(records):
    assert [record["index"] for record in records] == list(range(12))
    assert len({record["image"].tobytes() for record in records}) == 12


def test_no_two_samples_share_random_numbers(records):
    """A sample's key is a one-to-one function of its index, so latents cannot repeat."""
    assert len({record["latent"].tobytes() for record in records}) == 12
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.arange(2**17))
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 2**17


def test_latent_makes_the_picture(tiny_run, records):
    generator = repgan_jax.load_generator(tiny_run.generator)
    w = jnp.stack([record["latent"] for record in records[3:6]])
    pictures, _ = jax.jit(Generator.synthesis)(generator, w)
    made = images.to_uint8(resampling.area_reduce(pictures, 2))
    stored = np.stack([record["image"] for record in records[3:6]])
    assert np.abs(made.astype(int) - stored).max() <= 1  # a value between two may fall to either


def test_labels_fit_each_other(records):
    for record in records:
        probabilities = record["probabilities"]
        assert probabilities.shape == (32, 32, 3)
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=3 / 2 / 255 + 1e-6)  # K roundings
        chosen = np.take_along_axis(probabilities, record["mask"][..., None], -1)[..., 0]
        np.testing.assert_array_equal(chosen, probabilities.max(-1))
        assert record["confidence"] == pytest.approx(probabilities.max(-1).mean(), abs=0.5 / 255)


@pytest.mark.parametrize(
    "changes",
    [{"generate__truncation": 0.0}, {"generate__noise": "fresh"}],
)
def test_settings_reach_the_samples(tiny_run, tmp_path, records, changes):
    shutil.copytree(tiny_run.workdir / "fewshot", tmp_path / "fewshot")
    changes |= {"generate__num_images": 3, "generate__soft_labels": False}
    assert tiny_run.run(tmp_path, stages="generate", **changes)[0] == 0
    made = list(dataset.open_dataset(tmp_path / "generate"))
    assert len(made) == 3
    for one, other in zip(made, records, strict=False):
        assert "probabilities" not in one
        same_latent = np.array_equal(one["latent"], other["latent"])
        assert same_latent == ("generate__noise" in changes)
        assert not np.array_equal(one["image"], other["image"])
    if "generate__truncation" in changes:  # all the mean picture
        np.testing.assert_array_equal(made[0]["image"], made[2]["image"])
