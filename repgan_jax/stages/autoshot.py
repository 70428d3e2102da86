"""Stage `autoshot`: the stand-alone network, trained on the generated dataset."""

import contextlib
import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax import metrics
from repgan_jax.data import dataset
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, files, images, remote
from repgan_jax.models.unet import UNet
from repgan_jax.runtime import distributed, parallel, preemption
from repgan_jax.segmenter import Segmenter
from repgan_jax.stages import common, fewshot, generate, mirroring
from repgan_jax.training import heads as segment

FIELDS = ("seed", "generate.drop", "autoshot")
_VALIDATED = 2000  # held-out pictures; more would say the same, and take longer


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that do not fit each other or the devices."""
    options = config.autoshot
    counts = ("steps", "batch_size", "eval_every", "patch")
    common.expect_positive(config, *(f"autoshot.{name}" for name in counts))
    generate.check_drop(config)
    if not common.may_be_done(config, "autoshot", FIELDS):
        common.expect_share(config, "autoshot.batch_size")
    if options.warmup_steps >= options.steps:
        raise UserError(
            f"config.autoshot.warmup_steps: {options.warmup_steps}, expected fewer than "
            f"config.autoshot.steps, {options.steps}"
        )
    size, count, soft_labels = (
        common.made_with(config, "generate", f"generate.{name}")
        for name in ("picture_size", "num_pictures", "soft_labels")
    )
    if size is None:  # there is no dataset, or a remote one, of which `run` will know
        return
    _check_targets(options, has_probabilities=soft_labels)
    _num_held_out(round((1 - config.generate.drop) * count), options)
    if label_size := common.made_with(config, "fewshot", "label_size"):
        _check_sizes(options, size, label_size)


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains the network and keeps the weights that did best on held-out generated pictures.

    Raises:
        UserError: settings that do not fit the dataset or the devices, or that diverge.
    """
    with common.stage(
        "autoshot", config, workdir, FIELDS, after=("generate",), together=True
    ) as stage:
        if stage.finished:
            return
        common.expect_share(config, "autoshot.batch_size")
        data = generate.open_kept(config, workdir, stage.folder)
        palette = fewshot.load_palette(workdir)
        example, options = data[0], config.autoshot
        size = example["image"].shape[0]
        _check_targets(options, has_probabilities="probabilities" in example)
        _check_sizes(options, size, example["mask"].shape[0])
        network = _build(palette.num_classes, options)
        flip = mirroring.for_network(options, heads_flip=fewshot.load_flip(workdir))
        segmenter = Segmenter(network, None, palette, size, flip)
        best = _train(config, stage.folder, workdir, segmenter, data)
        if distributed.leads():
            segmenter.write_architecture(stage.folder)
            stage.finish({"steps": config.autoshot.steps, "held_out_mean_iou": best})


class Curve:
    """The rows of curve.jsonl, those after `step` forgotten: a killed run will make them again."""

    def __init__(self, path: Path, step: int):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [row for line in lines if (row := json.loads(line))["step"] <= step]

    def best(self) -> float:
        """Returns the highest validation score so far; -1 before the first."""
        return max((row.get("validation_mean_iou", -1.0) for row in self.rows), default=-1.0)

    def add(
        self, step: int, board: Any, *, loss: float, learning_rate: float, score: float
    ) -> None:
        """Writes the rows of `step`, and all before them, atomically; shows them to TensorBoard."""
        self.rows += [
            {"step": step, "loss": loss, "learning_rate": learning_rate},
            {"step": step, "validation_mean_iou": score},
        ]
        files.atomic_write(self._path, "".join(json.dumps(r) + "\n" for r in self.rows).encode())
        for name, value in (("loss", loss), ("learning_rate", learning_rate), ("mean_iou", score)):
            board.add_scalar(name, value, step)


def _train(
    config: ConfigDict,
    folder: Path,
    workdir: Path,
    segmenter: Segmenter,
    data: dataset.Dataset,
) -> float:
    """Runs the steps that are left for `segmenter` and returns the best validation score.

    Validations are checkpoints too. Weights are kept before the state is saved, and a state is
    saved last, so that after a kill everything since that state is done again, identically.
    All processes train; the first one validates and writes.
    """
    options, leads = config.autoshot, distributed.leads()
    held_out = _num_held_out(len(data), options)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, options.warmup_steps, options.steps
    )
    state, step_fn = _start(config, segmenter, data, schedule)
    kept = {"state": state, "loss": np.zeros(())}  # its sum since the last validation
    states = checkpoint.Checkpoints(folder / "checkpoints")
    start = distributed.by_leader(states.latest) or 0
    if start and leads:  # from whom the others get it
        kept = states.restore(kept, step=start)
    curve = Curve(folder / "curve.jsonl", start)
    batches = _batches(data, len(data) - held_out, start, config.seed, options)
    with (
        common.board(workdir, "autoshot") if leads else contextlib.nullcontext() as board,
        tqdm(
            batches, "autoshot", options.steps, initial=start, unit="step", disable=not leads
        ) as bar,
        distributed.collective(),
        preemption.deferred() as told,
    ):
        for step, state, loss, stop in _advance(
            step_fn, kept, enumerate(bar, start + 1), options, told
        ):
            if leads and _due(step, options):
                variables = jax.device_get(state.variables())
                trained = dataclasses.replace(segmenter, variables=variables)
                score = _validate(trained, data, held_out, board, step)
                if score > curve.best():
                    checkpoint.write_tree(folder / "best", variables)
                loss, mean = 0.0, loss / ((step - 1) % options.eval_every + 1)
                rate = float(schedule(step - 1))
                curve.add(step, board, loss=mean, learning_rate=rate, score=score)
                bar.set_postfix(loss=f"{mean:.3f}", mean_iou=f"{score:.3f}")
            if leads:
                states.save(step, {"state": jax.device_get(state), "loss": np.asarray(loss)})
                remote.keep(folder)
            distributed.wait()
            if stop and not told.is_set():
                distributed.wait()  # in vain: the process that was told ends the others
    return curve.best()


def _advance(
    step_fn: Callable[..., Any],
    kept: Mapping[str, Any],
    batches: Iterable[tuple[int, dict[str, np.ndarray]]],
    options: ConfigDict,
    told: threading.Event,
) -> Iterator[tuple[int, segment.TrainState, float, bool]]:
    """Yields (step, state, sum of losses, whether it is the last) where a state is to be kept.

    That is at validations, where the sum starts again, and where a process was `told` to stop.
    All read that from the same step's metrics, one step late, so that no device waits for it.
    (Orbax's `reached_preemption` needs JAX's preemption service, which is there in runs of several
    processes only, and takes SIGTERM for itself: stages without steps would not hear it.)
    """
    state, loss = parallel.replicate(kept["state"], everywhere=True), float(kept["loss"])
    unread, stop = [], False
    for step, batch in batches:
        stops = np.full(len(batch["position"]), told.is_set(), np.float32)
        state, found = step_fn(state, {**batch, "stop": stops})
        unread.append(found)
        due = _due(step, options)
        while len(unread) > 1 or (unread and (due or stop)):
            found = unread.pop(0)
            loss, stop = loss + float(found["loss"]), stop or float(found["stop"]) > 0
            if not math.isfinite(loss):
                distributed.wait()  # all find it at the same step, and say so
                raise UserError(
                    f"autoshot: the loss became {loss} by step {step}; try a lower "
                    f"config.autoshot.learning_rate than {options.learning_rate:g}"
                )
        if due or stop:
            yield step, state, loss, stop
        if stop:
            return
        loss = 0.0 if due else loss


def _due(step: int, options: ConfigDict) -> bool:
    """Returns whether a validation follows this step."""
    return step % options.eval_every == 0 or step == options.steps


def _start(
    config: ConfigDict, segmenter: Segmenter, data: dataset.Dataset, schedule: optax.Schedule
) -> tuple[segment.TrainState, Any]:
    """Returns the state before the first step, and the step, for the devices of all processes."""
    options = config.autoshot
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.adamw(schedule, weight_decay=options.weight_decay),
    )
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    settings = options.augment.to_dict()
    step = segment.make_train_step(
        segmenter.network,
        optimizer,
        seed=config.seed,
        settings=settings if segmenter.flip else settings | {"flip": 0.0},
        decay=options.ema,
        class_weights=_class_weights(data, options.class_balance),
        mirrored=segmenter.palette.mirrored,
    )
    state = segment.init_state(key, segmenter.network, segmenter.size, optimizer)
    return state, parallel.spread_step(step, backend=config.backend)


def _batches(
    data: dataset.Dataset, count: int, start: int, seed: int, options: ConfigDict
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's part of the batches of steps `start` to the last.

    A step's batch depends on the step alone.
    """
    size = options.batch_size
    epochs = math.ceil(options.steps * size / count)

    def to_training(position: int, example: Mapping[str, Any]) -> dict[str, Any]:
        if options.soft_targets:
            targets = example["probabilities"]
        else:
            targets = np.eye(len(data.class_names), dtype=np.float32)[example["mask"]]
        return {"image": example["image"], "targets": targets, "position": np.int32(position)}

    examples = grain.MapDataset.source(data)[:count].seed(seed).shuffle().repeat(epochs)
    left = examples.map_with_index(to_training)[start * size : options.steps * size]
    share = size // distributed.size()
    return iter(
        distributed.mine(left)
        .to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4 * share))
        .batch(share)
    )


def _class_weights(data: dataset.Dataset, balance: float) -> np.ndarray:
    """Returns [K] float32: each class's share of the pixels to the power -`balance`.

    Scaled so that the mean over pixels is 1.
    """
    num_classes = len(data.class_names)
    count = min(len(data), 200)  # enough for shares; a dataset may hold millions
    pixels = sum(np.bincount(data[i]["mask"].ravel(), minlength=num_classes) for i in range(count))
    share = np.maximum(pixels / pixels.sum(), 1e-4)  # of a class that never shows, too
    weights = share**-balance
    return (weights / (share * weights).sum()).astype(np.float32)


def _validate(
    segmenter: Segmenter, data: dataset.Dataset, count: int, board: Any, step: int
) -> float:
    """Returns the mean IoU on the last `count` generated pictures; shows four to TensorBoard.

    Of more than `_VALIDATED`, on the first so many.
    """
    held_out = range(len(data) - count, len(data))[:_VALIDATED]
    counts = 0
    for start in range(0, len(held_out), 16):  # memory for few, however many they are
        examples = [data[i] for i in held_out[start : start + 16]]
        pictures, truth = (np.stack([x[name] for x in examples]) for name in ("image", "mask"))
        guesses = segmenter.predict(pictures)
        counts = counts + metrics.confusion(truth, guesses, segmenter.palette.num_classes)
        if not start:
            pairs = zip(pictures[:4], guesses[:4], strict=True)
            shown = [images.overlay(*pair, segmenter.palette) for pair in pairs]
            board.add_image("held out", np.concatenate(shown, 1), step, dataformats="HWC")
    return float(np.nanmean(metrics.iou(counts)))


def _build(num_classes: int, options: ConfigDict) -> UNet:
    return UNet(num_classes, tuple(options.widths), options.patch)


def _num_held_out(count: int, options: ConfigDict) -> int:
    """Returns how many of `count` pictures are held out; raises UserError where all are."""
    held_out = max(1, round(options.held_out * count))
    if held_out >= count:
        raise UserError(
            f"config.autoshot.held_out: {options.held_out} of {count} generated pictures "
            "leaves none to learn from"
        )
    return held_out


def _check_targets(options: ConfigDict, *, has_probabilities: bool) -> None:
    """Raises UserError where the dataset lacks what is to be learned from."""
    if options.soft_targets and not has_probabilities:
        raise UserError(
            "config.autoshot.soft_targets: the dataset has no probabilities; set "
            "config.generate.soft_labels=True and generate again, or soft_targets=False"
        )


def _check_sizes(options: ConfigDict, size: int, label_size: int) -> None:
    """Raises UserError where pictures of `size` fit neither labels of `label_size` nor network."""
    if label_size != size:
        raise UserError(
            f"config.generate.picture_size: pictures of {size} pixels but labels of "
            f"{label_size}; expected config.label_size for both"
        )
    stride = _build(1, options).stride
    if size % stride:
        raise UserError(
            f"config.autoshot.widths, patch: the network needs pictures whose side is a multiple "
            f"of {stride}; the dataset has {size} pixels"
        )
