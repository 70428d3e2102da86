"""A projection finds the latent of a picture, and depends on that picture alone."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.converters import mobilestylegan_torch, stylegan2
from repgan_jax.converters.pytorch_files import torch_file
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.inversion import projection
from repgan_jax.inversion.perceptual import Perceptual
from repgan_jax.inversion.projector import Projector, project
from repgan_jax.models import lpips
from repgan_jax.runtime import parallel

GOLDEN = Path(__file__).parents[1] / "golden"
SHORT = projection.Settings(steps=6, size=32, space="w+", pixel=1.0, pull=0.1)
NAMES = ("a", "b", "c")


def _generator(kind):
    """Returns a random generator of 32 px, its pictures scaled to lie in [-1, 1]."""
    if kind == "stylegan2":
        converted = stylegan2.convert(torch_file.read(GOLDEN / "rosinality_32_map2.pt"))
    else:
        state = torch_file.read(GOLDEN / "mobilestylegan_32.ckpt")["state_dict"]
        converted = mobilestylegan_torch.convert(state)
    generator = Generator.build(converted[0], jax.tree.map(jnp.asarray, converted[1]))
    largest = np.abs(_pictures(generator, 32)[1]).max()

    def scale(path, leaf):
        name = jax.tree_util.keystr(path)
        return leaf / largest if "rgb" in name and "style" not in name else leaf

    variables = jax.tree_util.tree_map_with_path(scale, generator.variables)
    return dataclasses.replace(generator, variables=variables)


@pytest.fixture(scope="module")
def generator():
    return _generator("stylegan2")


@pytest.fixture(scope="module")
def perceptual():
    network = lpips.LPIPS("alex")
    return Perceptual(network.init(jax.random.key(5), jnp.zeros((1, 32, 32, 3))), network)


@pytest.fixture(scope="module")
def make(generator, perceptual):
    """Returns `make(settings, generator, backend)`, a projector; equal ones are made once."""

    @functools.cache
    def latents(generator_id):
        return projection.measure_latents(generators[generator_id], jax.random.key(1))

    @functools.cache
    def projector(settings, generator_id, backend, devices):
        parts = (generators[generator_id], perceptual, latents(generator_id), jax.random.key(2))
        return Projector(*parts, settings, backend=backend)

    generators = {}

    def make(settings, generator=generator, backend="shard_map"):
        generators[id(generator)] = generator
        return projector(settings, id(generator), backend, len(parallel.devices()))

    return make


def _pictures(generator, count, *, spread=0.6, layers=False):
    """Returns (w, pictures [count, 32, 32, 3]) of random latents."""
    w = projection.draw_latents(generator, jax.random.key(7), count * 8).reshape(count, 8, -1)
    w = generator.variables["mean_latent"] + spread * (w - generator.variables["mean_latent"])
    w = w[:, : generator.num_layers] if layers else w[:, 0]
    return w, np.asarray(jax.jit(Generator.synthesis)(generator, w)[0])


@pytest.fixture(scope="module")
def photos(generator):
    return _pictures(generator, 3)[1]


@pytest.fixture(scope="module")
def short(make, photos):
    """Returns what a short projection of three photos finds, without interruption."""
    return jax.device_get(project(make(SHORT), photos, chunk=6, names=NAMES))


def _assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


@pytest.mark.parametrize(("kind", "space"), [("stylegan2", "w+"), ("mobilestylegan", "w")])
def test_the_latent_of_a_generated_picture_is_found(make, use_devices, kind, space):
    use_devices(2)  # each with one of the pictures
    generator = _generator(kind)
    _, pictures = _pictures(generator, 2, layers=space == "w+")
    settings = projection.Settings(
        steps=150,
        size=32,
        space=space,
        learning_rate=0.05,
        pixel=1.0,
        optimise_noise=False,
        latent_noise=0.0,
    )
    history = []
    found = project(
        make(settings, generator),
        pictures,
        chunk=75,
        names=NAMES,
        on_chunk=lambda _, now: history.append(now),
    )
    assert [int(now.step[0]) for now in history] == [0, 75, 150]
    assert (found.lpips < 0.1 * history[0].lpips).all()
    assert (found.psnr > history[0].psnr + 10).all()
    again = np.clip(jax.jit(Generator.synthesis)(generator, found.w)[0], -1, 1)
    psnr = 10 * np.log10(4 / np.square(again - pictures).mean((1, 2, 3)))
    np.testing.assert_allclose(found.psnr, psnr, atol=0.1)  # two programs differ in last bits
    assert np.abs(np.asarray(found.picture) - (again + 1) * 127.5).max() < 0.51


@pytest.mark.parametrize(
    ("devices", "backend", "chosen"),
    [
        (1, "shard_map", [0]),  # alone, and in one round
        (1, "pmap", [2, 0]),
        (2, "shard_map", [1, 2, 0]),  # one device has two photos, the other one
        (8, "shard_map", [2]),
    ],
)
def test_neighbours_devices_and_backend_change_no_bit(
    make, photos, short, use_devices, devices, backend, chosen
):
    use_devices(devices)
    names = [NAMES[i] for i in chosen]
    projector = make(SHORT, backend=backend)
    found = project(projector, photos[chosen], chunk=6, names=names)
    _assert_equal(found, jax.tree.map(lambda leaf: leaf[np.array(chosen)], short))


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_change_no_bit(make, photos, short, chunk):
    _assert_equal(project(make(SHORT), photos, chunk=chunk, names=NAMES), short)


def test_what_is_interrupted_goes_on_as_if_nothing_had_been(make, photos, short):
    kept = []

    def keep(states, found):
        if found.step[0] == 4:
            kept.append(jax.device_get(states))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project(make(SHORT), photos, chunk=2, names=NAMES, on_chunk=keep)
    _assert_equal(project(make(SHORT), photos, chunk=2, names=NAMES, states=kept[0]), short)


def test_noise_maps_are_moved_and_stay_normal(make, short, generator):
    projector = make(SHORT)
    before = projector.init(jnp.zeros((1, generator.w_dim))).params["noise"]
    stored = generator.variables["synthesis"]["noise"]
    assert short.noise.keys() == stored.keys()
    for layer, maps in short.noise.items():
        assert maps.shape == (3, *stored[layer]["map"].shape)
        assert (np.abs(maps - before[layer]).mean((1, 2)) > 0.01).all()
        np.testing.assert_allclose(maps.mean((1, 2)), 0, atol=1e-6)
        np.testing.assert_allclose(maps.var((1, 2)), 1, atol=1e-5)


def test_regularisation_keeps_noise_maps_white(make, photos, use_devices):
    use_devices(1)

    def agreement(weight):
        settings = dataclasses.replace(SHORT, steps=30, noise_regularisation=weight)
        found = project(make(settings), photos[:1], chunk=30, names=NAMES)
        return sum(float(projection.autocorrelation(x[0])) for x in found.noise.values())

    assert agreement(1e5) < 0.1 * agreement(0.0)


def test_latents_are_pulled_to_the_mean_or_to_each_other(make, photos, use_devices, generator):
    use_devices(1)
    photos, start = photos[:1], projection.draw_latents(generator, jax.random.key(3), 1)

    def find(**weights):
        settings = {"steps": 60, "pull": 0.0, "optimise_noise": False, "latent_noise": 0.0}
        projector = make(dataclasses.replace(SHORT, **{**settings, **weights}))
        return project(projector, photos, chunk=60, names=NAMES, start=start)

    free = find()
    assert (find(pull=100.0).distance < 0.3 * free.distance).all()
    assert (find(together=100.0).spread < 0.3 * free.spread).all()


def test_space_w_has_one_latent_for_all_layers(make, photos, short):
    settings = dataclasses.replace(SHORT, space="w")
    found = project(make(settings), photos, chunk=6, names=NAMES)
    assert found.w.shape == short.w.shape
    assert (found.w == found.w[:, :1]).all()
    assert (short.w != short.w[:, :1]).any()


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_given_latent_is_the_start(make, generator, photos, space):
    settings = dataclasses.replace(SHORT, space=space, optimise_noise=False)
    w, pictures = _pictures(generator, 3, layers=space == "w+")
    projector = make(settings)
    states = projector.init(jnp.repeat(w[:1], 8, axis=0))
    found = projector.judge(states, np.repeat(pictures[:1], 8, axis=0))
    assert found.lpips.max() < 1e-6 and found.psnr.min() > 60
    history = []
    project(
        projector,
        pictures,
        chunk=6,
        names=NAMES,
        start=w,
        on_chunk=lambda _, now: history.append(now),
    )
    np.testing.assert_array_equal(history[0].w, np.broadcast_to(w.reshape(3, -1, 24), (3, 8, 24)))


def test_best_of_some_is_no_worse_than_the_mean(make, generator):
    settings = dataclasses.replace(SHORT, optimise_noise=False, pixel=0.0)
    projector = make(settings)
    _, pictures = _pictures(generator, 8)
    mean, best = projector.best_of(pictures, 0), projector.best_of(pictures, 30)
    from_mean, from_best = (projector.judge(projector.init(w), pictures) for w in (mean, best))
    assert (from_best.lpips <= from_mean.lpips * (1 + 1e-5)).all()
    assert (from_best.lpips < 0.9 * from_mean.lpips).sum() >= 4
    np.testing.assert_array_equal(projector.best_of(pictures[3:4], 30), best[3:4])


def test_a_plateau_ends_a_photo_and_not_its_neighbour(make, use_devices, generator):
    use_devices(2)
    settings = dataclasses.replace(
        SHORT, steps=40, plateau=0.01, optimise_noise=False, latent_noise=0.0, pull=0.0
    )
    w, pictures = _pictures(generator, 2)
    start = jnp.stack([w[0], generator.variables["mean_latent"]])  # one is there already
    found = project(make(settings), pictures, chunk=10, names=NAMES, start=start)
    assert found.step[0] < found.step[1]


def test_a_loss_that_is_no_number_ends_it_with_step_and_settings(make, photos):
    settings = dataclasses.replace(SHORT, learning_rate=1e30, steps=8)
    kept = []
    with pytest.raises(UserError) as info:
        project(
            make(settings),
            photos,
            chunk=1,
            names=NAMES,
            on_chunk=lambda states, found: kept.append((states, found)),
        )
    message = str(info.value)
    assert message.startswith("photo a: the loss or its gradient is not a number at step 3 (")
    assert "learning_rate=1e+30" in message
    for _, found in kept:
        assert np.isfinite(found.lpips).all() and np.isfinite(found.w).all()
    assert int(kept[-1][1].step[0]) == 2


def test_a_photo_that_is_no_number_ends_it_at_once(make, photos):
    kept = []
    with pytest.raises(UserError, match=r"^photo b: the loss .* at step 0 \("):
        project(
            make(SHORT),
            np.stack([photos[0], np.nan * photos[1]]),
            chunk=6,
            names=NAMES,
            on_chunk=lambda states, found: kept.append(found),
        )
    assert not kept


def test_memory_does_not_grow_with_the_steps(make, photos, generator, perceptual):
    def memory(steps):
        settings = dataclasses.replace(SHORT, steps=steps)
        projector = make(settings)
        state = jax.tree.map(lambda leaf: leaf[0], projector.init(jnp.zeros((1, 24))))
        latents = projection.measure_latents(generator, jax.random.key(1))
        advance = functools.partial(projection.advance, settings, projector._optimizer)
        fixed = (generator, perceptual, latents, jax.random.key(0))
        program = jax.jit(advance).lower(fixed, steps, state, photos[0]).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert memory(10) == memory(100_000) > 0
