import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from repgan_jax import metrics
from repgan_jax.data import dataset, masks
from repgan_jax.io import images, json_files
from repgan_jax.stages import report

FACES = Path(__file__).parents[2] / "examples" / "face"
SIZE = 64


def disturb(mask, share, seed):
    """Returns `mask` with a share of its pixels given the id of another place."""
    rng = np.random.default_rng(seed)
    moved = np.where(rng.random(mask.shape) < share, np.roll(mask, 5, 1), mask)
    return moved.astype(np.int32)


def fill(workdir, *, shots, pictures, size):
    """Writes what the stages of a run of labelled faces would have left in `workdir`."""
    palette = masks.read_classes(FACES / "classes.txt")
    found = masks.read_shots(FACES, palette)
    photos = np.stack([images.resize_area(image, size) for image in found.images])
    truths = np.stack([masks.resize_mask(mask, size, 10) for mask in found.masks])
    guesses = np.stack([disturb(mask, i / 20, i) for i, mask in enumerate(truths)])

    fewshot = workdir / "fewshot"
    fewshot.mkdir(parents=True)
    summary = {"shots": found.names[:shots], "read": found.notes, "pixel_accuracy": 0.991}
    stage(fewshot, 41.2, summary, {"fewshot.head": "mlp0", "seed": 0})
    np.savez(
        fewshot / "shots.npz", images=photos[:shots], masks=truths[:shots], guesses=guesses[:shots]
    )
    loss = [{"step": i, "loss": 2.3 * 0.985**i + 0.02} for i in range(300)]
    json_files.write(fewshot / "curve.json", loss)
    json_files.write(fewshot / "palette.json", palette.to_json())

    generate = workdir / "generate"
    confidence = [0.99 - 0.4 * ((7 * i) % pictures) / pictures for i in range(pictures)]
    dataset_of(generate, photos, truths, confidence, palette)
    stage(generate, 512.0, {"pictures_per_second": 1.953}, {"generate.num_images": pictures})

    autoshot = workdir / "autoshot"
    autoshot.mkdir()
    rng = np.random.default_rng(0)
    rows = [{"step": i, "loss": 2 / (1 + i / 50) + 0.1 * rng.random()} for i in range(1, 1001)]
    rows += [{"step": i, "validation_mean_iou": 0.9 - 60 / i} for i in range(200, 1001, 200)]
    (autoshot / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage(autoshot, 733.0, {"best_step": 1000}, {"autoshot.widths": [32, 64, 128, 128]})

    evaluate = workdir / "evaluate"
    evaluate.mkdir()
    counts = np.stack([metrics.confusion(t, g, 10) for t, g in zip(truths, guesses, strict=True)])
    scores = metrics.summary(counts, palette.names)
    json_files.write(
        evaluate / "metrics.json", scores | {"num_pictures": 10, "size": size, "split": "test"}
    )
    chosen = [1, 2, 5, 6, 8, 9]
    np.savez(
        evaluate / "examples.npz",
        photos=photos[chosen],
        truths=truths[chosen],
        guesses=guesses[chosen],
        names=np.array(found.names)[chosen],
        mean_iou=np.linspace(0.9, 0.3, len(chosen)),
        rank=np.repeat(["best", "median", "worst"], 2),
    )
    stage(evaluate, 64.0, {"mean_iou": scores["pooled"]["mean_iou"]}, {"evaluate.size": size})


def dataset_of(folder, photos, truths, confidence, palette):
    """Writes a data set in which the few pictures come again and again."""
    size = len(photos[0])
    lengths = [len(confidence)]
    writer = dataset.Writer(folder, palette.names, lengths, size, size, (4,), 0)
    examples = (
        {
            "image": photos[i % len(photos)],
            "mask": truths[i % len(photos)],
            "latent": np.zeros(4),
            "index": i,
            "confidence": value,
            "disagreement": 0.0,
        }
        for i, value in enumerate(confidence)
    )
    writer.write(0, examples)
    writer.finalize()


def stage(folder, seconds, summary, fields):
    record = {"status": "done", "seconds": seconds, "summary": summary, "fields": fields}
    record |= {"fingerprint": folder.name, "inputs": {}}
    json_files.write(folder / "stage.json", record)


@pytest.fixture
def workdir(tmp_path):
    fill(tmp_path / "face", shots=3, pictures=7, size=SIZE)
    return tmp_path / "face"


class Links(HTMLParser):
    """Collects what a page would fetch, and the tags that were not closed."""

    def __init__(self):
        super().__init__()
        self.fetched, self.open = [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.fetched += [values[key] for key in ("src", "href") if key in values]
        if tag not in ("meta", "link", "img", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag


def read_page(workdir):
    report.run(None, workdir)
    page = (workdir / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert not links.open
    assert all(link.startswith("data:") for link in links.fetched)  # nothing outside the file
    return page


def test_report_of_a_finished_run_shows_every_part(workdir):
    page = read_page(workdir)
    assert "The segmenter finds the parts." in page
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "Photos, predicted and true",
        "IoU by class",
        "Labelled shots",
        "Generated pictures and their labels",
        "Learning",
        "Time",
        "Settings",
    ]
    assert page.count("<svg") == 3
    assert page.count("<img") == 6 * 3 + 3 * (1 + 3) + (3 + 3 + 3) * 2
    assert '"note"' not in page
    assert "22 min 30 s" in page  # all stages


def test_masks_are_shown_as_they_were_read(workdir):
    page = read_page(workdir)
    section = page[page.index("Masks as they were read") : page.index("What the head learned")]
    assert "<li>masks: 10 masks read as ids: background in 10, skin in 10, " in section
    names = ("background", "skin", "nose", "eyes", "brows", "ears", "mouth", "hair", "neck")
    for name in (*names, "clothes"):  # all are tinted
        assert f"</span>{name}</li>" in section
    assert f"<b>seed000</b> {', '.join(names)}</figcaption>" in section
    record = json_files.read(workdir / "fewshot" / "stage.json")
    del record["summary"]["read"]  # a run of an earlier version
    json_files.write(workdir / "fewshot" / "stage.json", record)
    assert "masks read as" not in read_page(workdir)


def test_both_conventions_stand_in_the_table(workdir):
    page = read_page(workdir)
    scores = json_files.read(workdir / "evaluate" / "metrics.json")
    for convention in ("pooled", "per_picture"):
        assert f">{100 * scores[convention]['mean_iou']:.1f}<" in page
        assert f">{100 * scores[convention]['iou']['hair']:.1f}<" in page


def test_samples_are_ordered_by_confidence(workdir):
    page = read_page(workdir)
    shown = [float(x) for x in re.findall(r"confidence ([\d.]+) %", page)]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == 99.0


def test_report_of_nothing_says_what_is_missing(tmp_path):
    page = read_page(tmp_path)
    assert "Not finished." in page
    assert "To be done: fewshot, generate, autoshot." in page
    assert page.count('class="note"') == 6


def interrupt(workdir, *names):
    for name in names:
        record = json_files.read(workdir / name / "stage.json")
        del record["seconds"], record["summary"]
        json_files.write(workdir / name / "stage.json", record | {"status": "running"})


def test_half_written_files_are_left_alone(workdir):
    interrupt(workdir, "fewshot", "generate", "autoshot", "evaluate")
    (workdir / "fewshot" / "shots.npz").write_bytes(b"PK")
    (workdir / "evaluate" / "examples.npz").write_bytes(b"PK")
    assert "To be done: fewshot, generate, autoshot." in read_page(workdir)


def test_report_of_an_interrupted_run_shows_what_there_is(workdir):
    interrupt(workdir, "autoshot")
    curve = workdir / "autoshot" / "curve.jsonl"
    curve.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n')
    page = read_page(workdir)
    assert "To be done: autoshot." in page
    assert "! autoshot, not finished" in page
    assert page.count("<svg") == 2


@pytest.mark.parametrize(
    ("mean", "level"), [(0.9, "good"), (0.6, "good"), (0.5, "fair"), (0.1, "poor")]
)
def test_verdict_follows_the_mean_iou_and_names_strong_and_weak_parts(mean, level):
    parts = {"background": 0.99, "skin": 0.8, "hair": None, "eyes": 0.3, "ears": 0.5}
    scores = {"pooled": {"iou": parts, "mean_iou": mean}, "num_pictures": 5, "split": "test"}
    done = dict.fromkeys(("fewshot", "generate", "autoshot"), {"status": "done"})
    found, _, reason = report.verdict(scores, done)
    assert found == level
    assert "strongest parts are skin 80, ears 50, the weakest eyes 30, ears 50" in reason
    assert "5 test photos" in reason


def test_a_run_without_photos_is_not_called_good(workdir):
    shutil.rmtree(workdir / "evaluate")
    assert "Not evaluated." in read_page(workdir)


def test_names_are_text_not_markup(tmp_path):
    fill(tmp_path / "<b>", shots=1, pictures=3, size=32)
    page = read_page(tmp_path / "<b>")
    assert "<h1>&lt;b&gt;</h1>" in page and "<b>" not in re.findall("<h1>.*</h1>", page)[0]
