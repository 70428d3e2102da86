"""Labelled photos as shots, from Python."""

import shutil

import jax
import numpy as np
import pytest

import repgan_jax as rg
from repgan_jax.data import masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import photo_shots
from repgan_jax.inversion.inverter import Inverter
from repgan_jax.inversion.options import InversionOptions
from repgan_jax.inversion.perceptual import load_perceptual
from repgan_jax.palette import IGNORE
from repgan_jax.training import activations

OPTIONS = {"steps": 4, "save_every": 2, "size": 32, "net": "alex", "optimise_noise": False}


def test_difference_is_that_of_the_mean_colours():
    photo, picture = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    picture[:4, :4] = (30, 60, 90)
    found = photo_shots._difference(photo, picture, 4)
    expected = np.zeros((4, 4))
    expected[0, 0] = 60
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("limit", [-0.1, 1.5])
def test_the_limit_is_a_share(limit):
    with pytest.raises(UserError, match=f"^min_agreement: {limit}, expected 0 to 1$"):
        photo_shots.check_limit(limit)


def test_photos_become_shots_that_a_labeller_is_fitted_to(tiny_chain, tiny_inversion, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(2):
            shutil.copy(tiny_chain.photos / kind / f"{i}.png", tmp_path / kind)
    generator = rg.load_generator(tiny_chain.generator)
    palette = masks.read_classes(tiny_chain.shots / "classes.txt")
    perceptual = load_perceptual(tiny_inversion["invert__perceptual"], net="alex")
    options = InversionOptions(**OPTIONS, poor_lpips=0.0)
    inverter = Inverter(jax.random.key(0), generator, perceptual, options, progress=False)
    read = {"label_size": 16, "photo_tolerance": 60.0}
    photos = photo_shots.read_photo_shots(tmp_path, palette, inverter, **read)
    assert photos.shots.names == ("0", "1") and photos.verdicts == ("failed", "failed")
    assert photos.shots.images.shape == (2, 32, 32, 3) and photos.shots.masks.shape == (2, 16, 16)
    strict = photo_shots.read_photo_shots(
        tmp_path, palette, inverter, **{**read, "photo_tolerance": 20.0}
    )
    ignored = [(one.shots.masks == IGNORE) for one in (photos, strict)]
    assert ignored[0].sum() < ignored[1].sum() and (ignored[1] | ~ignored[0]).all()
    names = generator.tap_names[4:]
    taps = activations.read_activations(generator, photos.shots, names, 16, image_tolerance=None)
    judged = photo_shots.judge(photos, taps, palette.num_classes, min_agreement=0.0)
    assert [one.kept for one in judged] == [True, True]
    assert judged[0].agreement == judged[1].agreement  # of two with one another
    judged = photo_shots.judge(photos, taps, palette.num_classes, min_agreement=1.0)
    assert not judged[0].kept or not judged[1].kept
    second = photo_shots.take(photos.shots, np.array([1]))
    assert second.names == ("1",)
    np.testing.assert_array_equal(second.w[0], photos.shots.w[1])
    options = {"palette": palette, "label_size": 16, "steps": 3, "are_photos": True}
    labeller = rg.fit_labeller(jax.random.key(1), generator, second, **options)
    assert labeller.label(generator, second.w).shape == (1, 16, 16, 3)
