"""Whether the score of an inverted photo predicts how well its parts are found, photo by photo.

    python -m benchmarks.inversion_quality [runs/face] [--photos=40] [--crop=1.0] [--preset=fast]

Needs the finished stages fewshot and autoshot of that run and, as the stage evaluate, true masks
($CELEBAMASK_HQ). The first validation photos are inverted and segmented by the few-shot heads. One
JSON line a photo (mean IoU over its parts of both methods), and a summary: rank correlation of IoU
with each score, and the mean IoU of photos by LPIPS. `--crop=0.6` takes the middle 60 % of each
photo: framed as no picture of the generator is.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from repgan_jax import load_generator, load_labeller, load_segmenter, metrics
from repgan_jax.configs import face
from repgan_jax.data import celebamask, masks
from repgan_jax.inversion import cache, perceptual
from repgan_jax.io import images
from repgan_jax.segmenter import most_likely
from repgan_jax.stages import evaluate, inverters

BINS = 4
SIZE = 256  # pixels a side at which LPIPS is measured


def mean_iou(truth: np.ndarray, guess: np.ndarray, names: tuple[str, ...]) -> float:
    """Returns the mean IoU over the classes that `truth` [S, S] has."""
    counts = metrics.confusion(truth, guess, len(names))
    return metrics.summary(counts[None], names)["per_picture"]["mean_iou"]


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Spearman's coefficient of `x` and `y` [n], which have no ties."""
    ranks = (np.argsort(np.argsort(values)) for values in (x, y))
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    """Measures the run in the folder of the first argument."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", nargs="?", type=Path, default=Path("runs/face"))
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--crop", type=float, default=1.0)
    parser.add_argument("--preset", choices=("fast", "standard", "paper"), default="fast")
    arguments = parser.parse_args()
    config = face.get_config()
    config.invert.preset = arguments.preset
    options = config.evaluate
    options.split, options.limit = "validation", arguments.photos
    pairs = celebamask.find_pairs(options.images, options.masks, options.layout)
    pairs = evaluate.select(pairs, options)
    labeller = load_labeller(arguments.workdir)
    palette = labeller.palette
    segmenter, generator = load_segmenter(arguments.workdir), load_generator(config.generator)
    inverter = inverters.build(config, arguments.workdir, generator)
    nets = {
        f"lpips_{net}": perceptual.load_perceptual(config.invert.perceptual, net=net)
        for net in ("alex", "vgg")
    }
    distance = jax.jit(lambda net, a, b: net.distance(a, net.features(b))[0])
    label = jax.jit(lambda labeller, generator, w: labeller.label(generator, w)[0])
    size = options.size
    border = round((1 - arguments.crop) * size / 2)
    inside = slice(border, size - border)
    photos, truths, rows = {}, {}, []
    labelled = evaluate.labelled_photos(config, pairs, palette)
    for name, (photo, truth) in zip(labelled.names, labelled, strict=True):
        photos[name] = images.resize_area(photo[inside, inside], inverter.size)
        truths[name] = masks.resize_mask(truth[inside, inside], size, palette.num_classes)
    for name, found in inverter.find(photos):
        probabilities = np.asarray(
            label(labeller, generator.with_noise(found.noise), found.w[None])
        )
        guess = most_likely(probabilities, (size, size))
        direct = segmenter.predict(images.resize_area(photos[name], size)[None])[0]
        row = cache.score(name, found, inverter.options.verdict(found))
        both = (images.resize_area(x, SIZE) for x in (found.picture, photos[name]))
        both = [np.float32(x)[None] / 127.5 - 1 for x in both]
        row |= {key: round(float(distance(net, *both)), 4) for key, net in nets.items()}
        row["iou"] = round(mean_iou(truths[name], guess, palette.names), 3)
        row["iou_of_the_network"] = round(mean_iou(truths[name], direct, palette.names), 3)
        row["confidence"] = round(float(probabilities.max(-1).mean()), 4)
        rows.append(row)
        print(json.dumps(row))
    columns = {
        key: np.array([float(row[key]) for row in rows])
        for key in rows[0]
        if key not in ("photo", "verdict")
    }
    order = np.argsort(columns["lpips"])
    print(
        json.dumps(
            {
                "photos": len(rows),
                "iou": round(columns["iou"].mean(), 3),
                "iou_of_the_network": round(columns["iou_of_the_network"].mean(), 3),
                "rank_correlation_with_iou": {
                    key: round(rank_correlation(columns[key], columns["iou"]), 2)
                    for key in ("lpips", *nets, "psnr", "distance", "confidence")
                },
                "from_the_best_lpips_to_the_worst": [
                    {
                        "lpips_up_to": float(columns["lpips"][part[-1]]),
                        "iou": round(columns["iou"][part].mean(), 3),
                    }
                    for part in np.array_split(order, min(BINS, len(rows)))
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
