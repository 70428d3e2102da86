"""Photos become latents by the command; what is killed goes on, and mistakes are named."""

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax import main
from repgan_jax.data import masks
from repgan_jax.generator import Generator, load_generator
from repgan_jax.inversion import cache
from repgan_jax.inversion.inverter import Inverter
from repgan_jax.inversion.projector import Projector
from repgan_jax.io import checkpoint, files, images
from repgan_jax.stages import inverters


@pytest.fixture(scope="module")
def changes(tiny_chain, tiny_inversion):
    """Fields of the config for a short run on five photos of 90x70 pixels."""
    return {**tiny_inversion, "stages": "invert", "invert__input": tiny_chain.photos / "images"}


@pytest.fixture(scope="module")
def done(tiny_chain, changes, tmp_path_factory):
    """Returns (folder, what was printed) of a finished run."""
    workdir = tmp_path_factory.mktemp("inverted") / "run"
    code, out, err = tiny_chain.run(workdir, **changes)
    assert code == 0, err
    return workdir / "invert", out


def _rows(folder):
    with (folder / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def _fails(chain, workdir, **changes):
    """Runs the command, which must fail as it should; returns what it says."""
    code, _, err = chain.run(workdir, **changes)
    line = err.splitlines()[-1]
    assert code == 2 and line.startswith("error: ")
    return line.removeprefix("error: ")


def test_every_photo_is_scored(done):
    folder, out = done
    rows = _rows(folder)
    assert [row["photo"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert list(rows[0]) == ["photo", "lpips", "psnr", "distance", "spread", "verdict", "steps"]
    for row in rows:
        assert float(row["lpips"]) > 0 and float(row["psnr"]) > 5 and float(row["distance"]) > 0
        assert row["verdict"] in ("good", "poor", "failed") and row["steps"] == "8"
        said = f"photo {row['photo']}.png: 90x70 pixels, its centre square is taken\n"
        assert out.count(said) == 1
    summary = json.loads((folder / "stage.json").read_text())["summary"]
    assert summary["photos"] == summary["good"] + summary["poor"] + summary["failed"] == 5
    assert not (folder.parent / ".inversion").exists()


def test_the_folder_is_one_of_shots(done, tiny_chain, tmp_path):
    folder = shutil.copytree(done[0], tmp_path / "shots")
    palette = masks.read_classes(tiny_chain.shots / "classes.txt")
    for i in range(5):
        images.write_png(folder / f"masks/{i}.png", np.zeros((64, 64), np.uint8))
    shots = masks.read_shots(folder, palette, empty=True)
    generator = load_generator(tiny_chain.generator)
    assert shots.w.shape == (5, generator.num_layers, generator.w_dim)
    for i, name in enumerate(shots.names):
        with np.load(folder / "noise" / f"{name}.npz") as file:
            maps = {layer: {"map": file[layer]} for layer in file}
        generator.variables["synthesis"]["noise"] = maps
        again = images.to_uint8(Generator.synthesis(generator, shots.w[i : i + 1])[0][0])
        # jitted or not: a last bit may decide how a pixel is rounded
        assert np.abs(again.astype(int) - shots.images[i]).max() <= 1


def test_strips_go_from_the_start_to_the_photo(done, tiny_chain):
    strip = images.read_photo(done[0] / "strips" / "3.png")
    assert strip.shape == (32, 5 * 32, 3)
    first, tenth, half, end, photo = np.split(strip, 5, axis=1)
    target = images.read_photo(tiny_chain.photos / "images" / "3.png")[:, 10:80]
    np.testing.assert_array_equal(photo, images.resize_area(target, 32))
    final = images.read_photo(done[0] / "images" / "3.png")
    np.testing.assert_array_equal(end, images.resize_area(final, 32))
    np.testing.assert_array_equal(tenth, half)  # both at the checkpoint after 4 of 8 steps
    assert (first != half).any() and (half != end).any()


@pytest.mark.slow
def test_devices_change_no_latent(done, tiny_chain, changes, tmp_path, use_devices):
    use_devices(2)
    assert tiny_chain.run(tmp_path, **changes)[0] == 0
    with np.load(done[0] / "latents.npz") as one, np.load(tmp_path / "invert/latents.npz") as two:
        np.testing.assert_array_equal(one["w"], two["w"])
    assert _rows(tmp_path / "invert") == _rows(done[0])


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_latents(done, tiny_chain, changes, tmp_path):
    """Killed in mid-work, before a result is kept, and before the stage's own files are there."""
    for name, count in (("/4", 1), ("/8", 1), (".npz", 1), ("strips/2.png", 1), ("scores.csv", 1)):
        code, err = tiny_chain.run_killed(name, count, tmp_path, **changes)
        assert code == -signal.SIGKILL, f"not killed before {name}: {err}"
    code, _, err = tiny_chain.run(tmp_path, **changes)
    assert code == 0, err
    for pattern, number in (("scores.csv", 1), ("images/*", 5), ("strips/*", 5)):
        found, expected = (
            {path.name: path.read_bytes() for path in folder.glob(pattern)}
            for folder in (tmp_path / "invert", done[0])
        )
        assert found == expected and len(found) == number
    for name in ("latents.npz", "noise/0.npz"):
        with np.load(tmp_path / "invert" / name) as found, np.load(done[0] / name) as expected:
            assert found.keys() == expected.keys()
            for key in found:
                np.testing.assert_array_equal(found[key], expected[key])


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    done, tiny_chain, changes, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(cache.Store, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert tiny_chain.run(tmp_path, **changes)[0] == 130
    monkeypatch.setattr(Projector, "advance", None)  # nothing is left to do
    code, _, err = tiny_chain.run(tmp_path, **changes)
    assert code == 0, err
    assert _rows(tmp_path / "invert") == _rows(done[0])


def test_no_photo_is_worked_on_twice(done, tiny_chain, changes, tmp_path, monkeypatch):
    """Under another name, in another run, with other limits of what is good."""
    monkeypatch.setattr(Inverter, "_make_projector", None)
    photos = shutil.copytree(tiny_chain.photos / "images", tmp_path / "photos")
    (photos / "3.png").rename(photos / "other.png")
    known = {"invert__cache": done[0].parent / "latents", "invert__fast__good_lpips": 9.0}
    again = {**changes, **known, "invert__input": photos}
    code, _, err = tiny_chain.run(tmp_path / "run", **again)
    assert code == 0, err
    rows, expected = _rows(tmp_path / "run/invert"), _rows(done[0])
    assert rows[4]["photo"] == "other" and rows[4]["lpips"] == expected[3]["lpips"]
    strips = [folder / "strips" for folder in (tmp_path / "run/invert", done[0])]
    found, kept = (strips[0] / "other.png").read_bytes(), (strips[1] / "3.png").read_bytes()
    assert found == kept


def test_photos_of_one_name_and_of_folders_have_their_own_results(
    done, tiny_chain, changes, tmp_path, monkeypatch
):
    monkeypatch.setattr(Inverter, "_make_projector", None)  # all are known
    source, photos = tiny_chain.photos / "images", tmp_path / "photos"
    (photos / "x").mkdir(parents=True)
    shutil.copy(source / "3.png", photos / "a.PNG")
    Image.open(source / "2.png").save(photos / "a.bmp")
    shutil.copy(source / "1.png", photos / "x" / "a.png")
    workdir = photos / "run"  # what it writes there is not its input
    again = {**changes, "invert__input": photos, "invert__cache": done[0].parent / "latents"}
    code, _, err = tiny_chain.run(workdir, **again)
    assert code == 0, err
    rows, expected = _rows(workdir / "invert"), _rows(done[0])
    assert [row["photo"] for row in rows] == ["a.PNG", "a.bmp", "x/a"]
    assert [row["lpips"] for row in rows] == [expected[i]["lpips"] for i in (3, 2, 1)]
    folder = workdir / "invert/images"
    for name, i in (("a.PNG.png", 3), ("a.bmp.png", 2), ("x/a.png", 1)):
        assert (folder / name).read_bytes() == (done[0] / f"images/{i}.png").read_bytes()
    assert len([*folder.rglob("*.png")]) == 3
    (photos / "notes.txt").write_text("no photo")
    code, out, err = tiny_chain.run(workdir, **again)
    assert "invert: done already" in out, err


def test_what_an_earlier_version_kept_is_taken(done, tiny_chain, changes, tmp_path, monkeypatch):
    """Its keys were of the generator's bytes, and of the path of the latents to start from."""
    fields = {**changes, "invert__cache": done[0].parent / "latents"}
    config = main.read_config(tiny_chain.arguments(tmp_path, **fields))
    inverter = inverters.build(config, tmp_path, load_generator(tiny_chain.generator))
    photo = np.zeros((32, 32, 3), np.uint8)
    key = inverter._cache_key("a", photo)
    kept = next(path for path in (done[0].parent / "latents").iterdir())
    monkeypatch.setattr(inverter, "_store", cache.Store(tmp_path / "cache"))
    assert not inverter._is_kept("a", photo, key)
    old = inverter._cache_key("a", photo, inverter._former_key)
    (tmp_path / "cache").mkdir()
    shutil.copyfile(kept, tmp_path / "cache" / f"{old}.npz")
    assert old != key and inverter._is_kept("a", photo, key)
    assert (tmp_path / "cache" / f"{key}.npz").exists()


def test_cache_that_cannot_be_written_is_refused_before_any_work(
    tiny_chain, changes, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    line = _fails(tiny_chain, tmp_path / "run", **changes, invert__cache=tmp_path / "file/cache")
    assert line.startswith(f"config.invert.cache: {tmp_path}/file/cache cannot be written (")
    assert not (tmp_path / "run").exists()
    (tmp_path / "cache").mkdir()  # there, but read-only
    monkeypatch.setattr(files.os, "access", lambda path, mode: Path(path).name != "cache")
    monkeypatch.setattr(Inverter, "_fill", None)
    line = _fails(tiny_chain, tmp_path / "run", **changes, invert__cache=tmp_path / "cache")
    assert line.startswith(f"config.invert.cache: {tmp_path}/cache cannot be written (")


def test_given_latents_are_where_it_starts(tiny_chain, changes, tmp_path):
    """A shot of the generator's own needs no step."""
    folder = tmp_path / "photos"
    for i in range(2):
        shutil.copy(tiny_chain.shots / f"images/seed00{i}.png", images_folder(folder))
    start = {"invert__fast__start": tiny_chain.shots / "latents.npz", "invert__input": folder}
    settings = {"invert__fast__steps": 1, "invert__fast__optimise_noise": False}
    code, out, err = tiny_chain.run(tmp_path, **{**changes, **start, **settings})
    assert code == 0, err
    assert "centre square" not in out
    rows = _rows(tmp_path / "invert")
    assert [row["photo"] for row in rows] == ["seed000", "seed001"]
    assert min(float(row["psnr"]) for row in rows) > 45  # the shots are rounded to 8 bits
    (folder / "seed001.png").rename(folder / "other.png")
    line = _fails(tiny_chain, tmp_path / "again", **{**changes, **start, **settings})
    assert (
        "config.invert.fast.start: no latent for photo 'other'; there are latents for seed000, "
        in line
    )


def images_folder(folder):
    folder.mkdir(exist_ok=True)
    return folder


def test_photos_that_cannot_be_used_are_named(tiny_chain, changes, tmp_path):
    photos = images_folder(tmp_path / "photos")
    changes = {**changes, "invert__input": photos}
    Image.new("RGB", (31, 50)).save(photos / "a.png")
    line = _fails(tiny_chain, tmp_path / "run", **changes)
    assert line.startswith(f"{photos / 'a.png'}: 31x50 pixels (width x height), expected at least")
    Image.new("RGB", (40, 50)).save(photos / "a.png")
    (photos / "a.bmp").write_bytes(b"nothing")
    assert "a.bmp: not a picture" in _fails(tiny_chain, tmp_path / "two", **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"invert__input": ""}, "config.invert.input: no photos given; say --config.invert.input"),
        ({"invert__preset": "slow"}, "config.invert.preset: 'slow', expected one of fast, "),
        ({"invert__fast__space": "z"}, "config.invert.fast.space: 'z', expected one of w, w+"),
        ({"invert__fast__steps": 0}, "config.invert.fast.steps: 0, expected at least 1"),
        ({"invert__fast__size": 48}, "config.invert.fast.size: 48, expected a divisor of the "),
        ({"invert__fast__net": "vgg"}, "no weights of LPIPS here; fetch them: "),
    ],
)
def test_settings(tiny_chain, changes, tmp_path, change, message):
    assert message in _fails(tiny_chain, tmp_path, **{**changes, **change})


def test_a_loss_that_is_no_number_leaves_the_last_good_state(tiny_chain, changes, tmp_path):
    broken = {"invert__fast__learning_rate": 1e30, "invert__fast__save_every": 1}
    line = _fails(tiny_chain, tmp_path, **{**changes, **broken})
    assert line.startswith("photo 0: the loss or its gradient is not a number at step ")
    assert "learning_rate=1e+30" in line
    (kept,) = (tmp_path / ".inversion").iterdir()
    states = checkpoint.Checkpoints(kept)
    assert states.latest() is not None
    assert not (tmp_path / "invert/scores.csv").exists()
