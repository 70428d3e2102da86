import numpy as np

from repgan_jax.data import dataset
from repgan_jax.io import images


def test_sheet_shows_the_first_pictures_of_the_dataset(tiny_run):
    sheet = images.read_photo(tiny_run.workdir / "sample/sheet.png")
    data = dataset.open_dataset(tiny_run.workdir / "generate")
    assert sheet.shape[0] == 2 * 32  # picture, and its overlay below
    for i in range(3):
        left = i * (32 + 4)
        np.testing.assert_array_equal(sheet[:32, left : left + 32], data[i]["image"])
        part = data[i]["mask"] > 0
        below = sheet[32:, left : left + 32]
        np.testing.assert_array_equal(below[~part], data[i]["image"][~part])
        assert (below[part] != data[i]["image"][part]).any()
