"""What a report is made of: the files stages left in a run folder, and the HTML page itself."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from repgan_jax import labeller
from repgan_jax.data import dataset
from repgan_jax.data.mask_sizes import resize_mask
from repgan_jax.inversion import cache
from repgan_jax.io import files, images, json_files, results
from repgan_jax.palette import IGNORE, Palette, default_colours

_PICTURE_SIDE = 256  # pixels of a picture on the page, at most
OUTDATED = "outdated"  # status of a result: see `read_run`
_SAMPLES = 6  # generated pictures shown of each kind
_INVERSIONS = 24  # photos of which the inversion is shown, at most, from the best to the worst


@dataclass(frozen=True)
class Sample:
    """A generated picture uint8 [S, S, 3], its label [H, H], its place in the data set."""

    index: int
    image: np.ndarray
    mask: np.ndarray
    confidence: float  # mean over pixels of the likeliest class's probability


@dataclass(frozen=True)
class Run:
    """What the stages of a run left behind; empty where they left nothing.

    Attributes:
        name: of the run folder.
        palette: the classes.
        stages: `stage.json` by stage.
        shots: `images` uint8 [k, S, S, 3], `masks` and `guesses` [k, S, S].
        inversions: by stage, for photos whose latents were found: the row of `scores.csv`, and
            pictures uint8 [S, S, 3] by panel of the strip.
        fewshot_curve: rows of `step` and `loss`.
        samples: generated pictures by kind.
        autoshot_curve: rows of `step` and `loss`, or `step` and `validation_mean_iou`.
        scores: `metrics.summary`, and `num_pictures`, `size`, `split`.
        examples: `photos` uint8 [P, S, S, 3], `truths` and `guesses` [P, S, S], `names`,
            `mean_iou` and `rank` [P].
    """

    name: str
    palette: Palette
    stages: Mapping[str, Mapping[str, Any]]
    shots: Mapping[str, np.ndarray]
    inversions: Mapping[str, Sequence[tuple[Mapping[str, str], Mapping[str, np.ndarray]]]]
    fewshot_curve: Sequence[Mapping[str, float]]
    samples: Mapping[str, Sequence[Sample]]
    autoshot_curve: Sequence[Mapping[str, float]]
    scores: Mapping[str, Any]
    examples: Mapping[str, np.ndarray]

    def overlay(
        self, photo: np.ndarray, mask: np.ndarray, *, background: bool = False
    ) -> np.ndarray:
        """Returns `photo` uint8 [H, W, 3] tinted by `mask` of any size; see `images.overlay`."""
        if mask.shape != photo.shape[:2]:  # labels may be coarser or finer than images
            mask = resize_mask(mask, len(photo), self.palette.num_classes)
        return images.overlay(photo, mask, self.palette, alpha=0.6, background=background)


def read_run(workdir: Path, stages: Sequence[str]) -> Run:
    """Returns what `stages` left in `workdir`; of unfinished ones the curves alone.

    A result that was made with an earlier result of another stage than the present one counts as
    unfinished: classes and pictures would not fit each other.

    Raises:
        UserError: a file is damaged.
    """
    places = {s: results.current(workdir / s) for s in stages}
    records = {s: found for s in stages if (found := _json(places[s] / results.RECORD))}
    for s, record in records.items():
        if other := results.outdated(workdir, s):
            record.update(status=OUTDATED, outdated=other)
    finished = {s for s, record in records.items() if record["status"] == "done"}
    evaluated = "evaluate" in finished
    return Run(
        name=workdir.absolute().name,
        palette=_read_palette(places["fewshot"]),
        stages=records,
        shots=_arrays(places["fewshot"] / "shots.npz") if "fewshot" in finished else {},
        inversions={s: rows for s in sorted(finished) if (rows := _read_inversions(places[s]))},
        fewshot_curve=_json(places["fewshot"] / "curve.json"),
        samples=_read_samples(places["generate"]) if "generate" in finished else {},
        autoshot_curve=_lines(places["autoshot"] / "curve.jsonl"),
        scores=_json(places["evaluate"] / "metrics.json") if evaluated else {},
        examples=_arrays(places["evaluate"] / "examples.npz") if evaluated else {},
    )


def _read_palette(folder: Path) -> Palette:
    if (folder / labeller.RESULT).exists() or (folder / "palette.json").exists():
        return labeller.read_palette(folder)
    return Palette(tuple(map(str, range(IGNORE))), default_colours(IGNORE))


def _read_samples(folder: Path) -> dict[str, list[Sample]]:
    """Returns the pictures with the most, the middle and the least confident labels."""
    confidence = dataset.read_scores(folder)["confidence"]
    order = np.argsort(-confidence, kind="stable")
    count = min(_SAMPLES, -(-len(order) // 3))
    middle = (len(order) - count) // 2
    kinds = {
        "most confident": order[:count],
        "typical": order[middle : middle + count],
        "least confident": order[-count:],
    }
    source = dataset.open_dataset(folder)

    def sample(i: int) -> Sample:
        record = source[i]
        return Sample(i, record["image"], record["mask"], float(confidence[i]))

    return {kind: [sample(int(i)) for i in chosen] for kind, chosen in kinds.items()}


def _read_inversions(folder: Path) -> list[tuple[dict[str, str], dict[str, np.ndarray]]]:
    """Returns rows and strips in the order of their LPIPS, evenly chosen where they are many."""
    rows = sorted(cache.read_scores(folder), key=lambda row: float(row["lpips"]))
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _INVERSIONS)).astype(int))
    return [(rows[i], cache.read_strip(folder, rows[i]["photo"])) for i in chosen]


def _json(path: Path) -> Any:
    return json_files.read(path) if path.exists() else {}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# The functions below return HTML. What they take as `inside` is HTML, all else is plain text.


def tag(name: str, *inside: str, **attributes: object) -> str:
    """Returns `<name ...>inside</name>`; `class_` stands for `class`."""
    pairs = (f' {key.rstrip("_")}="{escape(str(value))}"' for key, value in attributes.items())
    return f"<{name}{''.join(pairs)}>{''.join(inside)}</{name}>"


def section(title: str, lead: str, *inside: str) -> str:
    """Returns a section under a heading, with a line of text that says what it shows."""
    lead = tag("p", escape(lead), class_="quiet") if lead else ""
    return tag("section", tag("h2", escape(title)), lead, *inside)


def note(text: str) -> str:
    """Returns a line that stands for something missing."""
    return tag("p", escape(text), class_="note")


def tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """Returns large numbers, each with what it measures."""
    pairs = (tag("b", escape(value)) + tag("span", escape(label)) for value, label in numbers)
    return tag("div", *(tag("div", pair, class_="tile") for pair in pairs), class_="tiles")


def figure(pictures: Mapping[str, np.ndarray], caption: str, detail: str = "") -> str:
    """Returns named pictures uint8 [H, W, 3] side by side, over a caption."""
    cells = (
        tag("div", _picture(picture, f"{caption}, {name}"), tag("span", escape(name)))
        for name, picture in pictures.items()
    )
    text = tag("figcaption", tag("b", escape(caption)), f" {escape(detail)}")
    return tag("figure", tag("div", *cells, class_="strip"), text)


def figures(items: Sequence[str], *, wide: bool = False) -> str:
    """Returns figures in a grid that fits the window."""
    return tag("div", *items, class_="figures wide" if wide else "figures")


def swatch(colour: np.ndarray) -> str:
    """Returns a small square of `colour` uint8 [3]."""
    return tag("span", class_="swatch", style=f"background:#{bytes(colour).hex()}")


def legend(palette: Palette, *, background: bool = False) -> str:
    """Returns the classes with their colours, the background if it is tinted in the images."""
    pairs = list(zip(palette.names, palette.colours, strict=True))[0 if background else 1 :]
    items = (tag("li", swatch(colour), escape(name)) for name, colour in pairs)
    return tag("ul", *items, class_="chips")


def meter(share: float | None) -> str:
    """Returns a share (0..1) in percent beside a bar of that length; None is a dash."""
    if share is None:
        return tag("div", tag("span", "–"), class_="meter")
    bar = tag("i", style=f"--share:{100 * share:.1f}%")
    return tag("div", tag("span", f"{100 * share:.1f}"), bar, class_="meter")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, means: int = 0) -> str:
    """Returns a table of cells that are HTML; its last `means` rows sum the others up."""
    top = tag("thead", tag("tr", *(tag("th", escape(cell), scope="col") for cell in head)))
    lines = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    cut = len(lines) - means
    bodies = tag("tbody", *lines[:cut]) + (tag("tfoot", *lines[cut:]) if means else "")
    return tag("div", tag("table", top, bodies), class_="scroll")


def write_page(path: Path, title: str, *sections: str) -> None:
    """Writes one HTML page that needs no other file and no network."""
    style = resources.files(__package__).joinpath("report.css").read_text()
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
    )
    head += tag("title", escape(title)) + tag("style", style)
    page = tag("html", tag("head", head), tag("body", *sections), lang="en")
    files.atomic_write(path, f"<!doctype html>\n{page}\n".encode(errors="backslashreplace"))


def _picture(array: np.ndarray, alt: str) -> str:
    side = max(array.shape[:2])
    if side > _PICTURE_SIDE:
        height, width = (round(n * _PICTURE_SIDE / side) for n in array.shape[:2])
        array = images.resize_area(array, (height, width))
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=88, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = array.shape[:2]
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt)}" '
        f'width="{width}" height="{height}" loading="lazy">'
    )
