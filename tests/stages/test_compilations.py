"""A stage compiles as many programs for much work as for little: all shapes are static."""

import collections
import contextlib
import shutil

import jax
import pytest

from repgan_jax.io import images

EVENT = "/jax/core/compile/backend_compile_duration"  # where programs come from the cache, too
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def compilations():
    """Yields counts of the compilations from here on, by program; none is known beforehand."""
    counts = collections.Counter()

    def listen(event, seconds, **about):
        if event == EVENT:
            counts[about.get("fun_name", "")] += 1

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def compiled(tiny_run, tmp_path, use_devices):
    """Counts the compilations of a stage that goes on from what the stages `after` left."""
    use_devices(1)

    def count(stage, after=(), **changes):
        workdir = tmp_path / "run"
        for name in after:
            shutil.copytree(tiny_run.workdir / name, workdir / name)
        with compilations() as counts:
            code, _, err = tiny_run.run(workdir, stages=stage, **changes)
        assert code == 0, err
        shutil.rmtree(workdir)
        return counts

    return count


@pytest.mark.parametrize(
    ("stage", "after", "step", "field", "amounts", "changes"),
    [
        # 50 steps are one call
        ("fewshot", (), "fit_chunk", "fewshot__steps", (50, 150), {"fewshot__head": "mlp0"}),
        # four a call: the last one is of less
        ("generate", ("fewshot",), "sample", "generate__num_images", (8, 22), {}),
        (
            "autoshot",
            ("fewshot", "generate"),
            "train_step",
            "autoshot__steps",
            (4, 12),
            {"autoshot__eval_every": 2, "autoshot__widths": "(4,)"},
        ),
    ],
)
def test_more_work_compiles_nothing_more(compiled, stage, after, step, field, amounts, changes):
    little, much = (compiled(stage, after, **changes, **{field: amount}) for amount in amounts)
    assert little[f"jit({step})"] == 1
    assert little == much


def test_shorter_rest_of_a_fewshot_training_is_one_program_more(compiled):
    counts = compiled("fewshot", fewshot__head="mlp0", fewshot__steps=110)
    assert counts["jit(fit_chunk)"] == 2


def test_photos_of_one_size_are_one_program_and_a_last_shorter_batch_another(
    compiled, tiny_run, tmp_path
):
    photo = images.read_photo(next((tiny_run.photos / "images").iterdir()))
    found = []
    for count in (2, 4, 6, 7, 9):
        folder = tmp_path / f"{count}"
        for i in range(count):
            images.write_png(folder / f"{i}.png", photo)
        changes = {"segment__input": folder, "segment__batch_size": 2}
        found.append(compiled("segment", ("autoshot",), **changes)["jit(_probabilities)"])
    assert found == [1, 1, 1, 2, 2]
