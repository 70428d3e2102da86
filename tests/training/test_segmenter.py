"""Training of the stand-alone network from Python, and its learning curve."""

import threading

import jax
import numpy as np
import pytest

import repgan_jax
from repgan_jax.data import dataset
from repgan_jax.errors import UserError
from repgan_jax.segmenter import Segmenter
from repgan_jax.training import segmenter as training
from repgan_jax.training.curve import Curve, Validation
from repgan_jax.training.options import TrainingOptions

OPTIONS = {"widths": (8, 16), "steps": 12, "batch_size": 8, "warmup_steps": 2}
OPTIONS |= {"eval_every": 6, "held_out": 0.2}


@pytest.fixture(scope="module")
def data(tiny_run):
    return dataset.open_dataset(tiny_run.workdir / "generate")


def _validation(step, score):
    none = np.zeros((0, 2, 2), np.int32)
    return Validation(step, 1.0, 0.1, score, none[..., None].repeat(3, -1), none)


def test_python_and_the_command_train_the_same_network(tiny_run, data, tmp_path):
    seen = []
    key, own = jax.random.key(0), {"folder": tmp_path / "own", "progress": False}
    found = repgan_jax.train_segmenter(key, data, on_validation=seen.append, **own, **OPTIONS)
    expected = repgan_jax.load_segmenter(tiny_run.workdir)
    assert [one.step for one in seen] == [6, 12]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found.variables,
        expected.variables,
    )
    assert found.palette == expected.palette


def test_a_training_that_was_stopped_goes_on(data, tmp_path):
    stop = threading.Event()
    key, options = jax.random.key(1), {"progress": False, **OPTIONS}
    whole = repgan_jax.train_segmenter(key, data, **options)
    folder = tmp_path / "part"
    repgan_jax.train_segmenter(
        key, data, folder=folder, stop=stop, on_validation=lambda found: stop.set(), **options
    )
    assert Curve(folder / "curve.jsonl", 99).rows[-1]["step"] < 12
    rest = repgan_jax.train_segmenter(key, data, folder=folder, **options)
    jax.tree.map(np.testing.assert_array_equal, rest.variables, whole.variables)


def test_validation_uses_a_few_images_at_a_time(data, monkeypatch, tmp_path):
    sizes = []

    def predict(self, images):
        sizes.append(len(images))
        return np.stack([data[i]["mask"] for i in range(2, 12)])[: len(images)]

    monkeypatch.setattr(Segmenter, "predict", predict)
    options = TrainingOptions(**OPTIONS | {"held_out": 10 / 12})
    network = options.network(3)
    untrained = Segmenter(None, network, data.palette, 32)
    trainer = training.Trainer(jax.random.key(0), data, untrained, tmp_path, options)
    state, _ = trainer._start()
    assert trainer._validate(1, 0.5, state).mean_iou == 1.0
    monkeypatch.setattr(training, "VALIDATED", 7)
    trainer._validate(1, 0.5, state)
    assert sizes == [10, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: 0, expected at least 1"),
        ({"warmup_steps": 12}, "warmup_steps: 12, expected fewer than steps, 12"),
        ({"widths": (8, 8, 8, 8, 8, 8)}, "widths, patch: the network needs images whose side"),
        ({"batch_size": 12}, "batch_size: 12, expected a multiple of the 8 devices"),
    ],
)
def test_options_that_do_not_fit_are_rejected(data, changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        repgan_jax.train_segmenter(jax.random.key(0), data, **OPTIONS | changes)


def test_curve_forgets_what_will_be_made_again(tmp_path):
    curve = Curve(tmp_path / "curve.jsonl", 0)
    assert curve.best() == -1
    for step in (2, 4, 6):
        curve.add(_validation(step, step / 10))
    again = Curve(tmp_path / "curve.jsonl", 4)
    assert [row["step"] for row in again.rows] == [2, 2, 4, 4]
    assert again.best() == 0.4
