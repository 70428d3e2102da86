"""Training of the stand-alone network on a labelled dataset ("auto-shot", paper, section 3.5)."""

import dataclasses
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from repgan_jax import metrics
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint
from repgan_jax.palette import Palette
from repgan_jax.runtime import distributed, parallel
from repgan_jax.segmenter import Segmenter
from repgan_jax.training import batches, step
from repgan_jax.training.curve import Curve, Validation
from repgan_jax.training.options import TrainingOptions

VALIDATED = 2000  # held-out images at most; more would say the same, and take longer


def train_segmenter(
    key: jax.Array,
    dataset: batches.Examples,
    *,
    folder: str | os.PathLike[str] | None = None,
    palette: Palette | None = None,
    flip: bool | None = None,
    on_validation: Callable[[Validation], None] = lambda found: None,
    on_checkpoint: Callable[[], None] = lambda: None,
    stop: threading.Event | None = None,
    backend: str = "shard_map",
    progress: bool = True,
    **options: Any,
) -> Segmenter:
    """Returns the network [N, H, W, 3] -> [N, H, W, K] that did best on held-out images.

    A training with a folder can be killed at any moment: the same call continues at its last
    checkpoint, identically.

    Args:
        key: of all random choices.
        dataset: from `generate_dataset` or `open_dataset`, or any sequence of examples: "image"
            uint8 [S, S, 3], "mask" int [S, S], and "probabilities" float [P, P, K] for
            `soft_targets`.
        folder: for checkpoints and the learning curve; None = a temporary one.
        palette: names and colours of the classes; None = the dataset's.
        flip: whether mirrored images are used, in training and in prediction; None = as the
            labeller of the dataset decided. Without flips in `augment`, they are not.
        on_validation: called after each validation.
        on_checkpoint: called when a checkpoint is on disk.
        stop: ends the training early, with a checkpoint, once it is set.
        backend: "shard_map" or "pmap".
        progress: whether a progress bar is shown.
        **options: fields of `TrainingOptions`.

    Raises:
        UserError: options that do not fit the dataset or the devices; a loss that is not finite.
    """
    chosen = TrainingOptions(**options)
    chosen.check()
    size = len(dataset[0]["image"])
    palette = palette or dataset.palette
    if flip is None:
        flip = getattr(dataset, "flip", True)
    network = chosen.network(palette.num_classes)
    with tempfile.TemporaryDirectory(prefix="repgan_jax_training_") as temporary:
        trainer = Trainer(
            key,
            dataset,
            Segmenter(None, network, palette, size, bool(flip and chosen.augment.flip)),
            Path(folder or temporary),
            chosen,
            backend=backend,
        )
        trainer.run(
            on_validation=on_validation, on_checkpoint=on_checkpoint, stop=stop, progress=progress
        )
        return trainer.best()


class Trainer:
    """One training: its state on disk, and the steps that are left.

    Validations are checkpoints too. Weights are kept before the state is saved, and a state is
    saved last, so that after a kill everything since that state is done again, identically.
    All processes train; the first one validates and writes.
    """

    def __init__(
        self,
        key: jax.Array,
        dataset: batches.Examples,
        segmenter: Segmenter,
        folder: Path,
        options: TrainingOptions,
        *,
        backend: str = "shard_map",
    ):
        """Binds what does not change.

        Args:
            key: of all random choices.
            dataset: see `train_segmenter`.
            segmenter: the untrained network, without variables.
            folder: for checkpoints, the learning curve and the best weights.
            options: of the training.
            backend: see `parallel`.

        Raises:
            UserError: options that do not fit the dataset, a batch that does not fit the devices,
                or nothing left to train on.
        """
        example = dataset[0]
        options.check_targets(has_probabilities="probabilities" in example)
        options.check_sizes(len(example["image"]), len(example["mask"]))
        self._dataset, self._segmenter = dataset, segmenter
        self._folder, self._options, self._backend = folder, options, backend
        self._key, self._seed = key, int(jax.device_get(jax.random.key_data(key)).ravel()[-1])
        self._held_out = batches.num_held_out(len(dataset), options.held_out)
        parallel.check_share(options.batch_size, "batch_size")

    def best(self) -> Segmenter:
        """Returns the network with the weights that did best on held-out images."""
        variables = checkpoint.read_tree(self._folder / "best")
        return dataclasses.replace(self._segmenter, variables=jax.device_put(variables))

    def run(
        self,
        *,
        on_validation: Callable[[Validation], None] = lambda found: None,
        on_checkpoint: Callable[[], None] = lambda: None,
        stop: threading.Event | None = None,
        progress: bool = True,
    ) -> float:
        """Runs the steps that are left; returns the best validation score, a mean IoU.

        Args:
            on_validation: called after each validation, in the first process.
            on_checkpoint: called when a checkpoint is on disk, in the first process.
            stop: ends the training early, with a checkpoint, once it is set.
            progress: whether a progress bar is shown.

        Raises:
            UserError: in all processes, where the loss is not finite.
        """
        options, leads = self._options, distributed.leads()
        state, step_fn = self._start()
        kept = {"state": state, "loss": np.zeros(())}  # its sum since the last validation
        states = checkpoint.Checkpoints(self._folder / "checkpoints")
        start = distributed.by_leader(states.latest) or 0
        if start and leads:  # from whom the others get it
            kept = states.restore(kept, step=start)
        curve = Curve(self._folder / "curve.jsonl", start)
        stream, stop = self._batches(start), stop or threading.Event()
        with (
            tqdm(
                stream,
                "autoshot",
                options.steps,
                initial=start,
                unit="step",
                disable=not (progress and leads),
            ) as bar,
            distributed.collective(),
        ):
            for step_, state, loss, ends in self._advance(
                step_fn, kept, enumerate(bar, start + 1), stop
            ):
                if leads and self._due(step_):
                    mean = loss / ((step_ - 1) % options.eval_every + 1)
                    found, loss = self._validate(step_, mean, state), 0.0
                    if found.mean_iou > curve.best():
                        variables = jax.device_get(state.variables())
                        checkpoint.write_tree(self._folder / "best", variables)
                    curve.add(found)
                    on_validation(found)
                    bar.set_postfix(loss=f"{mean:.3f}", mean_iou=f"{found.mean_iou:.3f}")
                if leads:
                    kept = {"state": jax.device_get(state), "loss": np.asarray(loss)}
                    states.save(step_, kept)
                    on_checkpoint()
                distributed.wait()
                if ends and not stop.is_set():
                    distributed.wait()  # in vain: the process that was told ends the others
        return curve.best()

    def _start(self) -> tuple[step.TrainState, Any]:
        """Returns the state before the first step, and the step, for all processes' devices."""
        options, segmenter = self._options, self._segmenter
        optimizer = optax.chain(
            optax.clip_by_global_norm(options.clip_norm),
            optax.adamw(options.schedule(), weight_decay=options.weight_decay),
        )
        change = options.augment if segmenter.flip else options.augment.without_flip()
        step_fn = step.make_train_step(
            segmenter.network,
            optimizer,
            key=self._key,
            augmentation=change,
            decay=options.ema,
            class_weights=batches.class_weights(
                self._dataset, segmenter.palette.num_classes, options.class_balance
            ),
            mirrored=segmenter.palette.mirrored,
        )
        # a stream of random numbers of its own, apart from the augmentation's
        init_key = jax.random.fold_in(self._key, 2)
        state = step.init_state(init_key, segmenter.network, segmenter.size, optimizer)
        return state, parallel.spread_step(step_fn, backend=self._backend)

    def _batches(self, start: int) -> Iterator[dict[str, np.ndarray]]:
        options = self._options
        return batches.make_batches(
            self._dataset,
            self._segmenter.palette.num_classes,
            count=len(self._dataset) - self._held_out,
            batch_size=options.batch_size,
            steps=options.steps,
            start=start,
            seed=self._seed,
            soft_targets=options.soft_targets,
        )

    def _advance(
        self,
        step_fn: Callable[..., Any],
        kept: Mapping[str, Any],
        stream: Iterable[tuple[int, dict[str, np.ndarray]]],
        told: threading.Event,
    ) -> Iterator[tuple[int, step.TrainState, float, bool]]:
        """Yields (step, state, sum of losses, whether it is the last) where a state is to be kept.

        That is at validations, where the sum starts again, and where a process was `told` to stop.
        All read that from the same step's metrics, one step late, so that no device waits for it.
        (Orbax's `reached_preemption` needs JAX's preemption service, which is there in runs of
        several processes only, and takes SIGTERM for itself: stages without steps would not hear
        it.)
        """
        state, loss = parallel.replicate(kept["state"], everywhere=True), float(kept["loss"])
        unread, stop = [], False
        for number, batch in stream:
            stops = np.full(len(batch["position"]), told.is_set(), np.float32)
            state, found = step_fn(state, {**batch, "stop": stops})
            unread.append(found)
            due = self._due(number)
            while len(unread) > 1 or (unread and (due or stop)):
                found = unread.pop(0)
                loss, stop = loss + float(found["loss"]), stop or float(found["stop"]) > 0
                if not math.isfinite(loss):
                    distributed.wait()  # all find it at the same step, and say so
                    raise UserError(
                        f"learning_rate: the loss became {loss} by step {number}; expected less "
                        f"than {self._options.learning_rate:g}"
                    )
            if due or stop:
                yield number, state, loss, stop
            if stop:
                return
            loss = 0.0 if due else loss

    def _due(self, number: int) -> bool:
        """Returns whether a validation follows this step."""
        return number % self._options.eval_every == 0 or number == self._options.steps

    def _validate(self, number: int, loss: float, state: step.TrainState) -> Validation:
        """Returns the scores on the held-out images, of which at most `VALIDATED` are used."""
        variables = jax.device_get(state.variables())
        segmenter = dataclasses.replace(self._segmenter, variables=variables)
        first = len(self._dataset) - self._held_out
        held_out = range(first, len(self._dataset))[:VALIDATED]
        num_classes = segmenter.palette.num_classes
        counts = np.zeros((num_classes, num_classes), int)
        shown: list[np.ndarray] = []
        for start in range(0, len(held_out), 16):  # memory for few, however many they are
            examples = [self._dataset[i] for i in held_out[start : start + 16]]
            images, truth = (np.stack([x[name] for x in examples]) for name in ("image", "mask"))
            predictions = segmenter.predict(images)
            counts = counts + metrics.confusion(truth, predictions, num_classes)
            shown = shown or [images[:4], predictions[:4]]
        mean_iou = float(np.nanmean(metrics.iou(counts)))
        rate = float(self._options.schedule()(number - 1))
        images, predictions = shown
        return Validation(number, loss, rate, mean_iou, images, predictions)
