"""Measures what users wait for beside plain PyTorch, and writes docs/performance.md.

    python -m benchmarks.performance [--torch-python=PATH] [--only=TEXT] [--write]

Prints one JSON line per measurement, each in its own process on all cores, and then the table.
`--write` puts it into docs/performance.md; with `--only`, it replaces the same rows there. PATH is
a Python with torch and openvino, by default this one; what it lacks is left out. Everything takes a
quarter of an hour on two cores.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import measure, pipeline
from benchmarks.measure import Figures
from repgan_jax.converters import mobilestylegan

PAGE = Path("docs/performance.md")
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


@dataclasses.dataclass(frozen=True)
class Row:
    """A work, and what it is compared with.

    Attributes:
        title: for the table.
        ours: arguments of `benchmarks.works`: name, size, batch.
        base: those of the base; None for the same.
        by: name of the base: "PyTorch", "OpenVINO", or "image": ours alone, in the same process.
        bar: highest acceptable ratio of CPU time; 0 for none.
    """

    title: str
    ours: tuple[str, int, int]
    base: tuple[str, int, int] | None = None
    by: str = "PyTorch"
    bar: float = 0.0


def _rows() -> Iterator[Row]:
    sizes = (256, 512, 1024)
    for size in sizes:
        for batch in (1, 4):
            title = f"image, {size} px, batch {batch}"
            yield Row(title, ("synthesis", size, batch), bar=1)
    for head, bar, some in (("mlp0", 1.1, sizes), ("cnn_l", 1.6, sizes[:1])):
        for size in some:
            title = f"image + label, {head}, {size} px, beside the image alone"
            yield Row(title, (f"labelled_{head}", size, 1), by="image", bar=bar)
    for head in ("mlp0", "cnn_l"):
        title = f"image + label, {head}, 256 px, beside the stack"
        yield Row(title, (f"labelled_{head}", 256, 1))
    for head in ("mlp0", "cnn_l"):
        title = f"few-shot step, {head}, 256 px, beside the stack"
        yield Row(title, (f"fewshot_{head}", 256, 1))
    title = "few-shot step, cnn_l, 256 px, beside a stack under 3x3 convolutions"
    yield Row(title, ("fewshot_cnn_l", 256, 1), ("fewshot_3x3", 256, 1), bar=1 / 8)
    for name, text in (("unet_step", "training step"), ("unet", "prediction")):
        work = (name, 256, 4)
        yield Row(f"U-Net of the paper, {text}, 256 px, batch 4", work, bar=1)
        title = f"our default U-Net beside it, {text}"
        yield Row(title, (f"default_{name}", 256, 4), work, bar=1 / 4)
    title = "MobileStyleGAN, 1024 px + label of 256 px, beside the image alone"
    yield Row(title, ("mobilestylegan", 256, 1), ("mobilestylegan", 1024, 1), "OpenVINO", 1)


class Bench:
    """Runs each work once, however many rows name it."""

    def __init__(self, python: str, folder: Path):
        self._python, self._folder = python, folder
        self._found: dict[tuple, Figures | None] = {}
        self._has = {
            "ours": True,
            "PyTorch": self._imports("torch"),
            "OpenVINO": self._imports("openvino"),
        }

    def figures(self, who: str, work: tuple[str, int, int]) -> Figures | None:
        """Returns what `work` costs; None where its framework is not installed."""
        if (who, work) not in self._found:
            self._found[who, work] = self._run(who, work) if self._has[who] else None
        return self._found[who, work]

    def _imports(self, package: str) -> bool:
        found = subprocess.run([self._python, "-c", f"import {package}"], capture_output=True)
        if found.returncode:
            measure.show(left_out=package, because=f"{self._python} does not import it")
        return not found.returncode

    def _run(self, who: str, work: tuple[str, int, int]) -> Figures:
        if who == "OpenVINO":
            for name, content in mobilestylegan.read_wheel().items():
                (self._folder / name).write_bytes(content)
            command = [self._python, "-m", "benchmarks.openvino_picture", str(self._folder)]
        else:
            python, module = {
                "ours": (sys.executable, "benchmarks.works"),
                "PyTorch": (self._python, "benchmarks.pytorch.works"),
            }[who]
            command = [python, "-m", module, *map(str, work)]
        printed, _ = measure.run(command)
        line = printed.strip().splitlines()[-1]
        print(line, flush=True)
        return json.loads(line)


def compare(bench: Bench, only: str) -> Iterator[str]:
    """Yields the table's lines."""
    yield "| work | ours, CPU s | wall s | GiB | other | CPU s | wall s | GiB | ratio | target |"
    yield "| --- " * 10 + "|"
    for row in _rows():
        if only not in row.title:
            continue
        ours = bench.figures("ours", row.ours)
        if row.by == "image":
            base = {name: ours.get(f"image_{name}") for name in ours}
        else:
            base = bench.figures(row.by, row.base or row.ours)
        cells = [row.title, *_cells(ours), row.by]
        ratio = f"{ours['cpu_s'] / base['cpu_s']:.2f}" if base else "-"
        cells += [*_cells(base), ratio, f"{row.bar:.3g}" if row.bar else "-"]
        yield f"| {' | '.join(cells)} |"


def _cells(figures: Figures | None) -> list[str]:
    found = [(figures or {}).get(name) for name in ("cpu_s", "wall_s", "peak_gib")]
    return ["-" if figure is None else f"{figure:.3g}" for figure in found]


def machine() -> str:
    """Returns a line about the machine and the versions."""
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    model = names[0].split(":")[1].strip() if names else platform.processor()
    tunables, python = os.environ.get("GLIBC_TUNABLES", ""), platform.python_version()
    return f"{model}, {os.cpu_count()} cores, Python {python}, `GLIBC_TUNABLES={tunables}`"


def main() -> None:
    """Measures, prints, and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--only", default="", help="rows whose title holds this")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = list(compare(Bench(options.torch_python, Path(folder)), options.only))
        if not options.only:
            lines += ["", *pipeline.lines(Path(folder))]
    print("\n".join([f"{machine()}.", "", *lines, ""]))
    if options.write:
        write(lines, whole=not options.only)


def write(lines: Sequence[str], *, whole: bool) -> None:
    """Puts the tables, or rows of the first one, into `PAGE`.

    Raises:
        SystemExit: the rows are not from the machine of the others.
    """
    before, rest = PAGE.read_text().split(BEGIN)
    tables, after = rest.split(END)
    if whole:
        tables = "\n".join([f"\n{machine()}.", "", *lines, "\n"])
    elif f"{machine()}." not in tables.splitlines():
        raise SystemExit(f"{PAGE}: its other rows are from another machine; measure them all")
    else:
        measured = {line.split("|")[1]: line for line in lines[2:]}  # below the head
        rows = [measured.get(row[1:].split("|")[0], row) for row in tables.split("\n")]
        tables = "\n".join(rows)
    PAGE.write_text(before + BEGIN + tables + END + after)


if __name__ == "__main__":
    main()
