"""A generated sample depends on the seed and its index, and on nothing else."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax import synthesize
from repgan_jax.converters import stylegan2
from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.generator import Generator
from repgan_jax.labeller import Labeller
from repgan_jax.models import heads
from repgan_jax.ops import taps
from repgan_jax.palette import Palette, default_colours
from repgan_jax.runtime import parallel

GOLDEN = Path(__file__).parent / "golden"
COUNT, K, SIZE = 16, 5, 8
HEAD = heads.build("mlp1", K, SIZE)


@pytest.fixture(scope="module")
def ensemble(tiny_generator):
    """Returns (names of the taps, variables of two random heads that read them)."""
    names = taps.select(tiny_generator.tap_names)

    def init(generator, keys):
        chosen = taps.choose(generator.synthesis(jnp.zeros((1, 12)))[1], names, SIZE)
        params = jax.vmap(lambda key: HEAD.init(key, chosen)["params"])(keys)
        return {"params": params, "stats": {"FoldedConv_0": taps.root_mean_square(chosen)}}

    variables = jax.jit(init)(tiny_generator, jax.random.split(jax.random.key(1), 2))
    return Labeller(variables, HEAD, names, Palette(tuple("abc")[:K], default_colours(K)))


@pytest.fixture(scope="module")
def draw(tiny_generator, ensemble):
    """Returns `draw(count, seed, noise, backend, batch)`: the first samples, in numpy."""

    def draw(
        count=COUNT, *, seed=3, noise="fresh", backend="shard_map", batch=COUNT, psi=0.7, **options
    ):
        options = {"image_size": SIZE, "soft_size": SIZE, **options}
        sample = parallel.spread(
            synthesize.make_sampler(truncation=psi, noise=noise, **options),
            backend=backend,
        )
        fixed = parallel.replicate((tiny_generator, ensemble, jax.random.key(seed)))
        starts = range(0, count, batch)
        parts = [jax.device_get(sample(fixed, np.arange(i, i + batch))) for i in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return draw


@pytest.fixture(scope="module")
def samples(draw):
    return draw()


@pytest.fixture(scope="module")
def stored(draw):
    return draw(noise="stored")


def test_records_have_the_promised_form(samples):
    shapes = {name: (array.shape, array.dtype.name) for name, array in samples.items()}
    assert shapes == {
        "image": ((COUNT, SIZE, SIZE, 3), "uint8"),
        "soft": ((COUNT, SIZE, SIZE, K), "uint8"),
        "mask": ((COUNT, SIZE, SIZE), "uint8"),
        "confidence": ((COUNT,), "float32"),
        "disagreement": ((COUNT,), "float32"),
        "disputed": ((COUNT, SIZE, SIZE), "float32"),
        "latent": ((COUNT, 12), "float32"),
    }


def test_labels_fit_together(samples):
    soft = samples["soft"].astype(int)
    np.testing.assert_array_equal(
        soft.max(-1), np.take_along_axis(soft, samples["mask"].astype(int)[..., None], -1)[..., 0]
    )
    assert np.abs(soft.sum(-1) - 255).max() <= K / 2  # K roundings of half a step
    # a mean of roundings, each of half a step
    np.testing.assert_allclose(soft.max(-1).mean((1, 2)) / 255, samples["confidence"], atol=0.002)
    assert (samples["disagreement"] > 0).all()
    np.testing.assert_allclose(samples["disputed"].mean((1, 2)), samples["disagreement"], rtol=1e-5)


def test_samples_differ(samples):
    for name, array in samples.items():
        assert len(np.unique(array.reshape(COUNT, -1), axis=0)) == COUNT, name


@pytest.mark.parametrize(
    ("devices", "backend", "batch", "noise"),
    [
        (8, "pmap", 16, "fresh"),
        (8, "shard_map", 8, "stored"),
        (1, "shard_map", 1, "stored"),
        (1, "pmap", 4, "fresh"),
    ],
)
def test_devices_backend_and_batch_change_no_bit(
    request, draw, use_devices, devices, backend, batch, noise
):
    expected = request.getfixturevalue({"fresh": "samples", "stored": "stored"}[noise])
    use_devices(devices)
    found = draw(noise=noise, backend=backend, batch=batch)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_seed_changes_every_sample(samples, draw):
    assert (draw(seed=4)["latent"] != samples["latent"]).any(1).all()


def test_a_latent_makes_its_sample(tiny_generator, ensemble, samples, stored):
    """What a record says of itself suffices to make it again."""
    names, variables = ensemble.tap_names, ensemble.variables
    np.testing.assert_array_equal(stored["latent"], samples["latent"])  # noise comes after it

    @jax.jit
    def again(generator, w):
        image, activations = generator.synthesis(w)
        members = [jax.tree.map(lambda x, i=i: x[i], variables["params"]) for i in range(2)]
        chosen = {name: activations[name] for name in names}  # not reduced beforehand
        logits = [HEAD.apply({**variables, "params": params}, chosen) for params in members]
        return image, sum(map(jax.nn.softmax, logits)) / 2

    image, probabilities = again(tiny_generator, stored["latent"])
    cells = np.asarray(image).reshape(COUNT, SIZE, 2, SIZE, 2, 3).mean((2, 4))
    expected = (np.clip(cells, -1, 1) + 1) * 127.5
    assert np.abs(stored["image"] - expected).max() <= 0.5 + 1e-2  # rounded to uint8
    assert np.abs(stored["soft"] - 255 * np.asarray(probabilities)).max() <= 0.5 + 0.1


def test_soft_labels_may_be_coarse_and_floats(stored, draw):
    coarse = draw(noise="stored", soft_size=SIZE // 2, soft_type="float16")["soft"]
    assert coarse.dtype == np.float16
    cells = stored["soft"].reshape(COUNT, SIZE // 2, 2, SIZE // 2, 2, -1).mean((2, 4))
    np.testing.assert_allclose(coarse, cells / 255, atol=0.5 / 255 + 2**-11)


def test_noise_is_stored_none_or_each_samples_own(samples, stored, draw):
    none = draw(noise="none")
    for a, b in ((samples, stored), (samples, none), (stored, none)):
        np.testing.assert_array_equal(a["latent"], b["latent"])
        assert (a["image"] != b["image"]).any((1, 2, 3)).all()


def test_no_truncation_left_makes_equal_latents(draw, tiny_generator):
    found = draw(psi=0.0, noise="none", count=8, batch=8)
    mean = np.broadcast_to(tiny_generator.variables["mean_latent"], (8, 12))
    np.testing.assert_allclose(found["latent"], mean, atol=1e-6)
    assert len(np.unique(found["image"].reshape(8, -1), axis=0)) == 1


def test_to_uint8_rounds_and_clips():
    given = jnp.array([-3, -1, 0.0021, 0, 1, 3])
    np.testing.assert_array_equal(synthesize.to_uint8(given), [0, 0, 128, 128, 255, 255])


@pytest.fixture(scope="module")
def conditional():
    """A real StyleGAN2 with five classes."""
    return Generator.build(
        *stylegan2.convert(torch_file.read(GOLDEN / "nvidia_ada_32_cond_nosource.pkl"))
    )


def test_a_class_can_be_asked_for(conditional):
    key = jax.random.key(7)
    z = jax.random.normal(jax.random.fold_in(key, 3), (1, conditional.z_dim))
    for label in range(5):
        np.testing.assert_array_equal(
            synthesize.latent(conditional, key, 3, 0.5, label),
            conditional.mapping(z, jnp.array([label]), truncation=0.5),
        )


def test_every_class_comes_by_itself(conditional):
    key, indices = jax.random.key(7), jnp.arange(100)
    z = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (conditional.z_dim,)))
    by_class = jnp.stack(
        [conditional.mapping(z(indices), jnp.full(100, label)) for label in range(5)]
    )
    drawn = jax.vmap(lambda i: synthesize.latent(conditional, key, i, 1.0)[0])(indices)
    distance = jnp.abs(drawn - by_class).max(-1)  # [5, 100]
    assert float(distance.min(0).max()) < 1e-5 < float(jnp.sort(distance, 0)[1].min())
    counts = np.bincount(distance.argmin(0), minlength=5)
    assert counts.min() >= 8  # 20 expected, with a deviation of 4
