"""The report's section on labelled shots: how they were read, and what was learned from them."""

from html import escape

import numpy as np

from repgan_jax import metrics
from repgan_jax.palette import IGNORE
from repgan_jax.report import html as report


def section(found: report.Run) -> str:
    """Returns the section on shots, a note where there are none."""
    title = "Labelled shots"
    if not found.shots:
        return report.section(title, "", report.note("Stage fewshot left no shots."))
    items = []
    names = found.stages["fewshot"]["summary"]["shots"]
    triples = (found.shots[key] for key in ("images", "masks", "guesses"))
    for name, image, mask, guess in zip(names, *triples, strict=True):
        agreement = metrics.confusion(mask, guess, found.palette.num_classes)
        share = np.trace(agreement) / max(agreement.sum(), 1)
        pictures = {
            "shot": image,
            "drawn": found.overlay(image, mask),
            "head": found.overlay(image, guess),
        }
        items.append(report.figure(pictures, name, f"{100 * share:.1f} % agree"))
    lead = (
        "What was drawn by hand, and what the head says of the same pictures after learning from "
        "them: a shot with little agreement was not learned, or its mask is wrong."
    )
    grid = report.figures(items, wide=True)
    learned = (report.tag("h3", "What the head learned"), report.legend(found.palette), grid)
    return report.section(title, lead, *_masks_as_read(found), *learned)


def _masks_as_read(found: report.Run) -> tuple[str, ...]:
    """Returns how the masks of the shots were read, and a contact sheet of all they mean."""
    summary = found.stages["fewshot"]["summary"]
    notes = report.tag("ul", *(report.tag("li", escape(n)) for n in summary.get("read", ())))
    names = np.array(found.palette.names)
    items = []
    for name, image, mask in zip(
        summary["shots"], found.shots["images"], found.shots["masks"], strict=True
    ):
        shown = np.unique(mask)
        sheet = {"mask": found.overlay(image, mask, background=True)}
        classes = ", ".join(names[shown[shown != IGNORE]])
        ignored = (mask == IGNORE).mean()
        detail = classes + (f"; {ignored:.1%} ignored" if ignored else "")
        items.append(report.figure(sheet, name, detail))
    words = "Every class is tinted, background too; ignored pixels are as in the image."
    return (
        report.tag("h3", "Masks as they were read"),
        notes,
        report.tag("p", words, class_="quiet"),
        report.legend(found.palette, background=True),
        report.figures(items),
    )
