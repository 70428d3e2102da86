"""`repgan_jax.invert` finds what the command finds, for photos in any form."""

import jax
import numpy as np
import pytest
from PIL import Image

import repgan_jax as rg
from repgan_jax import main
from repgan_jax.errors import UserError
from repgan_jax.inversion.inverter import Inverter
from repgan_jax.inversion.origin import Origin, _seed_of
from repgan_jax.inversion.perceptual import load_perceptual
from repgan_jax.io import images
from repgan_jax.stages import inverters

OPTIONS = {"steps": 8, "save_every": 4, "candidates": 3, "size": 32, "optimise_noise": True}


@pytest.fixture(scope="module")
def invert(tiny_chain, tiny_inversion):
    """Calls `invert` with the settings of `tiny_inversion`."""
    generator = rg.load_generator(tiny_chain.generator)

    def call(photos, **changes):
        options = {"perceptual": tiny_inversion["invert__perceptual"], **OPTIONS, **changes}
        return rg.invert(jax.random.key(0), generator, photos, progress=False, **options)

    return call


@pytest.fixture(scope="module")
def paths(tiny_chain):
    return sorted((tiny_chain.photos / "images").iterdir())[:2]


@pytest.fixture(scope="module")
def done(invert, paths, tmp_path_factory):
    """Returns (folder of results, what was found for `paths`)."""
    cache = tmp_path_factory.mktemp("latents")
    return cache, invert(paths, cache=cache)


def test_what_is_found_has_the_documented_shapes(done, tiny_chain, tiny_run):
    _, found = done
    generator = rg.load_generator(tiny_chain.generator)
    assert found.w.shape == (2, generator.num_layers, generator.w_dim)
    assert found.images.shape == (2, 64, 64, 3) and found.images.dtype == np.uint8
    assert found.photos.shape == (2, 32, 32, 3) and found.photos.dtype == np.uint8
    assert found.lpips.shape == found.psnr.shape == found.distance.shape == (2,)
    assert len(found.verdicts) == 2 and set(found.verdicts) <= {"good", "poor", "failed"}
    assert (found.lpips > 0).all() and (found.distance > 0).all()
    for i in range(2):
        maps = {name: one[i] for name, one in found.noise.items()}
        image = generator.with_noise(maps).synthesis(found.w[i : i + 1])[0][0]
        assert np.abs(images.to_uint8(image).astype(int) - found.images[i]).max() <= 1
    probabilities = rg.load_labeller(tiny_run.workdir).label(generator, found.w)
    assert probabilities.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_the_command_finds_the_same(done, tiny_chain, tiny_inversion, tmp_path, monkeypatch):
    """It takes what `invert` has kept, with the seed of which the key was made."""
    monkeypatch.setattr(Inverter, "_make_projector", None)
    cache, expected = done
    fields = {**tiny_inversion, "stages": "invert", "invert__cache": cache, "seed": 0}
    for i in range(2):
        photo = {"invert__input": tiny_chain.photos / f"images/{i}.png"}
        code, _, err = tiny_chain.run(tmp_path / str(i), **fields, **photo)
        assert code == 0, err
        with np.load(tmp_path / str(i) / "invert/latents.npz") as found:
            np.testing.assert_array_equal(found["w"][0], expected.w[i])


def test_photos_come_as_arrays_images_and_paths(done, invert, paths, monkeypatch):
    monkeypatch.setattr(Inverter, "_make_projector", None)  # all are known
    cache, expected = done
    arrays = [images.read_photo(path) for path in paths]
    mixed = [Image.open(paths[0]), str(paths[1]), arrays[0]]
    for photos, of in (
        (np.stack(arrays), [0, 1]),
        (arrays, [0, 1]),
        (mixed, [0, 1, 0]),
        (arrays[1], [1]),
        (Image.open(paths[1]), [1]),
        (str(paths[1]), [1]),
    ):
        found = invert(photos, cache=cache)
        np.testing.assert_array_equal(found.w, expected.w[of])
        np.testing.assert_array_equal(found.images, expected.images[of])


def test_without_a_cache_the_same_is_found(done, invert, paths):
    found = invert(paths[1])
    np.testing.assert_array_equal(found.w, done[1].w[1:])
    assert found.verdicts == done[1].verdicts[1:]


def test_given_latents_are_where_it_starts(invert, tiny_chain):
    with np.load(tiny_chain.shots / "latents.npz") as file:
        w = file["w"][:2]
    photos = [tiny_chain.shots / f"images/seed00{i}.png" for i in range(2)]
    found = invert(photos, start=w, steps=1, optimise_noise=False)
    assert found.psnr.min() > 45 and not found.noise  # the shots are rounded to 8 bits


@pytest.mark.parametrize(
    ("photos", "changes", "message"),
    [
        ([], {}, "photos: none; expected at least one"),
        (np.zeros((40, 40, 3)), {}, "photos: float64 [40, 40, 3] at index 0, expected uint8 RGB "),
        (np.zeros((2, 40, 40, 1), np.uint8), {}, "photos: uint8 [40, 40, 1] at index 0, expected "),
        (np.zeros((20, 50, 3), np.uint8), {}, "photos[0]: 50x20 pixels (width x height), expected"),
        (np.zeros((40, 40, 3), np.uint8), {"preset": "slow"}, "preset: 'slow', expected one of "),
        (np.zeros((40, 40, 3), np.uint8), {"size": 48}, "size: 48, expected a divisor of the gen"),
        (
            np.zeros((40, 40, 3), np.uint8),
            {"start": np.zeros((2, 3))},
            "start: 2 latents, expected one for each of 1",
        ),
        (np.zeros((40, 40, 3), np.uint8), {"start": np.zeros((1, 3))}, "start: w of shape (3,), "),
    ],
)
def test_what_does_not_fit_is_named(invert, photos, changes, message):
    with pytest.raises(UserError) as info:
        invert(photos, **changes)
    assert str(info.value).startswith(message)


def test_landmarks_frame_files_by_their_names(invert, paths, tmp_path):
    (tmp_path / "faces.csv").write_text("name,left,top,right,bottom\n0.png,0,0,32,32\n")
    found = invert(paths[0], landmarks=tmp_path / "faces.csv", steps=1)
    np.testing.assert_array_equal(found.photos[0], images.read_photo(paths[0])[:32, :32])
    with pytest.raises(UserError, match=r"^landmarks: nothing on photos\[0\]; "):
        invert(images.read_photo(paths[0]), landmarks=tmp_path / "faces.csv")


def test_keys_of_the_cache_are_those_of_a_run(tiny_chain, tiny_inversion, tmp_path):
    """Results in existing caches are found: names and order in the key must not change."""
    config = main.read_config(tiny_chain.arguments(tmp_path, **tiny_inversion))
    generator = rg.load_generator(tiny_chain.generator)
    of_run = inverters.build(config, tmp_path, generator)._origin
    perceptual = load_perceptual(tiny_inversion["invert__perceptual"], net="alex")
    assert Origin.of(jax.random.key(config.seed), generator, perceptual) == of_run
    photo = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    expected = "d1e17b57946f2eb886fc5878c2cfcf69f56320990e4ffec0a908f16ed8c80703"
    assert Origin("a", "b", 3, "float32").key({"steps": 8}, photo, np.zeros(0)) == expected


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_the_seed_of_a_key(seed):
    assert _seed_of(jax.random.key(seed)) == seed
    assert _seed_of(jax.random.split(jax.random.key(seed))[0]) != seed
