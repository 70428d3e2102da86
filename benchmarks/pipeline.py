"""Time and memory of whole commands of the demo: the first output, and any number of images."""

import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import measure

COUNTS = (10, 100, 1000)
PHOTO = "examples/face/images/seed000.png"
PREPARE = (
    "--config.stages=fewshot,generate,autoshot,sample,segment",
    "--config.generate.num_images=20",
    "--config.autoshot.steps=60",
    "--config.autoshot.eval_every=60",
)


def lines(folder: Path) -> Iterator[str]:
    """Yields lines of Markdown; `folder` receives what the commands write."""
    first = folder / "first"
    _run(folder, first, *PREPARE)  # compiles
    yield "| command, compiled before | wall s | CPU s | GiB |"
    yield "| --- | --- | --- | --- |"
    for stage, title in (("sample", "an image with its label"), ("segment", "a photo segmented")):
        runs = []
        for _ in range(measure.RUNS):
            shutil.rmtree(first / stage)
            runs.append(_run(folder, first, f"--config.stages={stage}"))
        median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        measure.show(work=f"first {stage}", **median)
        yield _row(title, median)
    for count in COUNTS:
        workdir = folder / str(count)
        shutil.copytree(first / "fewshot", workdir / "fewshot")
        found = _run(
            folder, workdir, "--config.stages=generate", f"--config.generate.num_images={count}"
        )
        measure.show(work=f"generate {count}", **found)
        yield _row(f"{count} labelled images", found)


def _run(folder: Path, workdir: Path, *options: str) -> measure.Figures:
    """Returns what the command costs from its start to its end."""
    command = [
        *(sys.executable, "-m", "repgan_jax.main", "--config=configs/face.py"),
        f"--config.workdir={workdir}",
        f"--config.compilation_cache={folder / 'xla'}",
        f"--config.segment.input={PHOTO}",
        "--config.sample.num_images=1",
    ]
    return measure.run([*command, *options])[1]


def _row(title: str, figures: measure.Figures) -> str:
    return (
        f"| {title} | "
        + " | ".join(f"{figures[name]:.3g}" for name in ("wall_s", "cpu_s", "peak_gib"))
        + " |"
    )
