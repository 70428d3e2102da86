"""Stage `report`: one HTML page that shows whether a run worked, and where it did not."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from repgan_jax.io import remote
from repgan_jax.report import chart
from repgan_jax.report import html as report
from repgan_jax.stages import STAGES, report_shots

FIELDS = ()  # it shows what it finds, in a second or two, and is never skipped

_CHAIN = ("fewshot", "generate", "autoshot", "evaluate")
_GOOD, _FAIR = 0.6, 0.4  # pooled mean IoU from which a segmenter is called so
_MEANS = (
    ("mean_iou", "mean IoU"),
    ("mean_iou_without_background", "mean IoU without background"),
    ("weighted_iou", "weighted IoU"),
    ("weighted_iou_without_background", "weighted IoU without background"),
    ("pixel_accuracy", "pixel accuracy"),
)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `report.html` into `workdir` from whatever the other stages left there."""
    del config  # the stages wrote down what they were run with
    for name in STAGES.keys() - {"segment", "export"}:  # large, and not shown
        remote.pull(workdir / name)
    found = report.read_run(workdir, tuple(STAGES))
    path = workdir / "report.html"
    report.write_page(
        path,
        f"{found.name} · RepGAN-JAX",
        _summary(found),
        _photos(found),
        _scores(found),
        report_shots.section(found),
        _inversions(found),
        _generated(found),
        _curves(found),
        _timings(found),
        _settings(found),
    )
    remote.push(path)
    print(f"report: {remote.name(path)}")


def verdict(scores: Mapping, stages: Mapping) -> tuple[str, str, str]:
    """Returns "good", "fair", "poor" or "unknown", what that means, and the reason."""
    unfinished = [s for s in _CHAIN[:-1] if stages.get(s, {}).get("status") != "done"]
    if unfinished:
        return "unknown", "Not finished.", f"To be done: {', '.join(unfinished)}."
    if not scores:
        return "unknown", "Not evaluated.", "There were no photos with true masks to compare with."
    pooled = scores["pooled"]
    _, *parts = pooled["iou"].items()  # without background
    ranked = sorted(((value, name) for name, value in parts if value is not None), reverse=True)
    words = [f"{name} {100 * value:.0f}" for value, name in ranked]
    mean = pooled["mean_iou"]
    level, meaning = (
        ("good", "The segmenter finds the parts.")
        if mean >= _GOOD
        else ("fair", "The segmenter finds some of the parts.")
        if mean >= _FAIR
        else ("poor", "The segmenter does not find the parts.")
    )
    reason = (
        f"Mean IoU is {100 * mean:.1f} on {scores['num_pictures']} {scores['split']} photos; "
        f"the strongest parts are {', '.join(words[:2])}, the weakest {', '.join(words[:-3:-1])}."
    )
    return level, meaning, reason


def _summary(found: report.Run) -> str:
    level, meaning, reason = verdict(found.scores, found.stages)
    numbers = []
    if found.scores:
        pooled = found.scores["pooled"]
        for key, label in (_MEANS[0], _MEANS[2], _MEANS[4]):
            numbers.append((f"{100 * pooled[key]:.1f}", f"{label}, %, pooled"))
    if found.shots:
        numbers.append((str(len(found.shots["images"])), "labelled shots"))
    pictures = found.stages.get("generate", {}).get("fields", {}).get("generate.num_images")
    if pictures:
        numbers.append((str(pictures), "generated pictures"))
    seconds = sum(stage.get("seconds", 0) for stage in found.stages.values())
    numbers.append((_duration(seconds), "for all stages"))
    states = (_state(found.stages.get(name, {})) for name in _CHAIN)
    items = (
        report.tag("li", f"{mark} {escape(name)}, {escape(words)}", class_=colour)
        for name, (colour, mark, words) in zip(_CHAIN, states, strict=True)
    )
    return report.tag(
        "header",
        report.tag("p", "RepGAN-JAX, report of a run", class_="quiet"),
        report.tag("h1", escape(found.name)),
        report.tag(
            "p",
            report.tag("strong", escape(meaning)),
            report.tag("span", escape(reason)),
            class_=f"verdict {level}",
        ),
        report.tiles(numbers),
        report.tag("ul", *items, class_="chips"),
    )


def _photos(found: report.Run) -> str:
    title = "Photos, predicted and true"
    if not found.examples:
        return report.section(title, "", report.note("Stage evaluate left no examples."))
    shown = found.examples
    parts = []
    for rank, words in (("best", "Best"), ("median", "Median"), ("worst", "Worst")):
        items = [
            report.figure(
                {
                    "photo": shown["photos"][i],
                    "prediction": found.overlay(shown["photos"][i], shown["guesses"][i]),
                    "truth": found.overlay(shown["photos"][i], shown["truths"][i]),
                },
                str(shown["names"][i]),
                f"mean IoU {100 * shown['mean_iou'][i]:.1f}",
            )
            for i in np.flatnonzero(shown["rank"] == rank)
        ]
        parts.append(report.tag("h3", words) + report.figures(items, wide=True))
    lead = "Photos that nothing was learned from. Mean IoU is that of the one photo."
    return report.section(title, lead, report.legend(found.palette), *parts)


def _scores(found: report.Run) -> str:
    title = "IoU by class"
    if not found.scores:
        return report.section(title, "", report.note("Stage evaluate left no numbers."))
    pooled, single = found.scores["pooled"], found.scores["per_picture"]
    rows = [
        (
            report.tag("span", report.swatch(colour), escape(name), class_="swatched"),
            report.meter(pooled["iou"][name]),
            report.meter(single["iou"][name]),
        )
        for name, colour in zip(pooled["iou"], found.palette.colours, strict=False)
    ]
    rows += [(label, report.meter(pooled[key]), report.meter(single[key])) for key, label in _MEANS]
    lead = (
        f"In percent, on {found.scores['num_pictures']} photos ({found.scores['split']}) at "
        f"{found.scores['size']} pixels a side. Pooled: intersections and unions of all photos "
        "are added, then divided. Per picture: IoU in each photo over the parts present in its "
        "truth, then the mean over photos. A number of one column is not to be compared with one "
        "of the other."
    )
    table = report.table(("class", "pooled", "per picture"), rows, means=len(_MEANS))
    return report.section(title, lead, table)


def _scores_of_photo(row: Mapping[str, str]) -> str:
    """Returns the verdict on a photo; of a labelled one also what its labels say, and the rest."""
    text = f"{row['verdict']}: LPIPS {row['lpips']}"
    if row.get("agreement"):
        text += f", agreement with the other shots {row['agreement']}"
    return text if row.get("used", "yes") == "yes" else f"{text}; left out"


def _inversions(found: report.Run) -> str:
    if not found.inversions:
        return ""
    parts = []
    for stage, photos in found.inversions.items():
        items = [report.figure(strip, row["photo"], _scores_of_photo(row)) for row, strip in photos]
        parts.append(report.tag("h3", f"Stage {stage}") + report.figures(items, wide=True))
    lead = (
        "What the generator drew on the way to each photo. Where the end is not like the photo, "
        "neither latents nor labels of it are to be trusted."
    )
    return report.section("Photos and the pictures found for them", lead, *parts)


def _generated(found: report.Run) -> str:
    title = "Generated pictures and their labels"
    if not found.samples:
        return report.section(title, "", report.note("Stage generate left no finished data set."))
    parts = []
    for kind, samples in found.samples.items():
        items = [
            report.figure(
                {"picture": s.image, "label": found.overlay(s.image, s.mask)},
                f"picture {s.index}",
                f"confidence {100 * s.confidence:.1f} %",
            )
            for s in samples
        ]
        parts.append(report.tag("h3", kind.capitalize()) + report.figures(items))
    lead = (
        "What the stand-alone network learns from. Confidence is the probability of the likeliest "
        "class, averaged over the picture's pixels."
    )
    return report.section(title, lead, report.legend(found.palette), *parts)


def _curves(found: report.Run) -> str:
    wanted = (
        ("Few-shot head: loss", found.fewshot_curve, "loss", True),
        ("Auto-shot network: loss", found.autoshot_curve, "loss", True),
        (
            "Auto-shot network: held-out mean IoU",
            found.autoshot_curve,
            "validation_mean_iou",
            False,
        ),
    )
    charts = []
    for title, rows, key, log in wanted:
        points = [(row["step"], row[key]) for row in rows if key in row]
        points = [(x, y) for x, y in points if np.isfinite(y) and (y > 0 or not log)]
        if points:
            x, y = zip(*points, strict=True)
            drawing = chart.line_chart(x, y, title=title, x_label="step", log=log)
            charts.append(report.tag("div", report.tag("h3", escape(title)), drawing))
    if not charts:
        return report.section("Learning", "", report.note("No learning curves were left."))
    return report.section("Learning", "", report.tag("div", *charts, class_="charts"))


def _timings(found: report.Run) -> str:
    total = sum(stage.get("seconds", 0) for stage in found.stages.values()) or 1
    rows = []
    for name, stage in found.stages.items():
        result = ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in _scalars(stage))
        share = report.meter(stage.get("seconds", 0) / total)
        rows.append((escape(name), escape(_state(stage)[2]), share, escape(result)))
    if not rows:
        return report.section("Time", "", report.note("No stage was run yet."))
    table = report.table(("stage", "time", "share of time, %", "result"), rows)
    return report.section("Time", "", table)


def _settings(found: report.Run) -> str:
    parts = []
    for name, stage in found.stages.items():
        rows = [
            (report.tag("code", escape(field)), report.tag("code", escape(str(value))))
            for field, value in stage.get("fields", {}).items()
        ]
        if rows:
            inside = report.table(("field", "value"), rows)
            parts.append(report.tag("details", report.tag("summary", escape(name)), inside))
    lead = "What the result of each stage depends on; all else left it unchanged."
    return report.section("Settings", lead, *parts) if parts else ""


def _state(stage: Mapping) -> tuple[str, str, str]:
    """Returns a colour, a mark and words for how far a stage is."""
    if not stage:
        return "unknown", "–", "not run"
    if stage["status"] == report.OUTDATED:
        return "fair", "!", f"made with an earlier result of {stage['outdated']}"
    if stage["status"] != "done":
        return "fair", "!", "not finished"
    return "good", "✓", _duration(stage["seconds"])


def _scalars(stage: Mapping) -> list[tuple[str, object]]:
    summary = stage.get("summary", {})
    return [(k, v) for k, v in summary.items() if isinstance(v, (int, float, str))]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.3g} s"
