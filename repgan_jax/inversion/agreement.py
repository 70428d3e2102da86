"""How well labelled images agree: whether the labels of one predict those of another.

Latents of photos are found by comparing images, and the distance of images (LPIPS) says little
about what matters for a shot: whether its labels lie on the activations that they name. Other
labelled shots can tell. A linear classifier is fitted to the activations and labels of each shot
alone, and predicts the labels of all others. A shot that is off, because its latent makes another
image or because its mask is wrong, neither predicts others nor is predicted by them.

Classifiers of single shots, and the median over the others, rather than one classifier fitted to
all others: a bad shot then spoils only its own comparisons, so that up to half of the shots may be
bad, and a shot can be removed without fitting anything again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repgan_jax import metrics
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import IGNORE
from repgan_jax.training import losses

_STEPS = 40
_RATE = 0.025


def pairwise(taps: taps_lib.Taps, masks: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns float [k, k], 0 to 1: how well each two of k shots predict one another's labels.

    The mean IoU of the classes that both show, over the pixels whose class both show, mean of the
    two directions. It is nan on the diagonal, and for two shots that have no class in common.

    Args:
        taps: activations by name, [k, h, w, C].
        masks: [k, S, S] ids, 255 = ignore.
        num_classes: K.
    """
    masks = np.asarray(masks)
    stats = taps_lib.root_mean_square(taps)
    scores = np.full((len(masks), len(masks)), np.nan)
    for i, mask in enumerate(masks):
        guesses = np.asarray(_predict_by_one(taps, stats, mask, i, num_classes))
        for j in range(len(masks)):
            if i != j:
                scores[i, j] = _mean_iou(mask, masks[j], guesses[j], num_classes)
    return (scores + scores.T) / 2


@dataclass(frozen=True)
class Judgement:
    """Whether a shot is kept.

    Attributes:
        kept: whether it is.
        agreement: median agreement with the other shots that were still there when this was
            decided, 0 to 1; nan where there was none to compare with.
    """

    kept: bool
    agreement: float


def judge(
    scores: np.ndarray, distances: Sequence[float], far: Sequence[bool], limit: float
) -> list[Judgement]:
    """Returns which of k shots are kept.

    A shot is kept where it agrees with the others by `limit` or more, and removed where it agrees
    by less than half of that. In between, or without another shot to compare with, it is removed
    where its image is `far` from the photo. The worst is removed first, then all others are judged
    anew without it: of two shots that contradict one another, the one whose image is nearer to its
    photo stays.

    Args:
        scores: [k, k], of `pairwise`.
        distances: [k], of the photos from the images found for them.
        far: [k], whether that distance alone would remove a shot.
        limit: 0 to 1.
    """
    result: dict[int, Judgement] = {}
    left = list(range(len(far)))
    while left:
        found = {i: _median(scores[i, [j for j in left if j != i]]) for i in left}
        failing = [i for i in left if _fails(found[i], far[i], limit)]
        if not failing:
            break
        worst = min(failing, key=lambda i: (np.nan_to_num(found[i], nan=-1), -distances[i]))
        result[worst] = Judgement(False, found[worst])
        left.remove(worst)
    for i in left:
        result[i] = Judgement(True, found[i])
    return [result[i] for i in range(len(far))]


def _fails(agreement: float, far: bool, limit: float) -> bool:
    if np.isnan(agreement):
        return far
    return agreement < (limit if far else limit / 2)


def _median(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _mean_iou(teacher: np.ndarray, truth: np.ndarray, guess: np.ndarray, num_classes: int) -> float:
    """Returns the mean IoU of `guess` over the classes that `teacher` and `truth` [S, S] show."""
    shown = np.setdiff1d(np.intersect1d(teacher, truth), [IGNORE])
    known = np.where(np.isin(truth, shown), truth, IGNORE)
    scores = metrics.iou(metrics.confusion(known, guess, num_classes))[shown]
    return float(scores.mean()) if len(shown) else float("nan")


@partial(jax.jit, static_argnames="num_classes")
def _predict_by_one(
    taps: taps_lib.Taps,
    stats: taps_lib.Taps,
    mask: jax.Array,
    index: jax.Array,
    num_classes: int,
) -> jax.Array:
    """Returns ids [k, S, S] for `taps`, by a linear classifier fitted to the shot `index` alone.

    It starts at zero and its loss is convex: no random number takes part.
    """
    size = mask.shape[0]
    kernels = {name: jnp.zeros((tap.shape[-1], num_classes)) for name, tap in taps.items()}
    params = kernels, jnp.zeros(num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

    def logits(params, taps):
        kernels, bias = params
        kernels = {name: kernel / stats[name][:, None] for name, kernel in kernels.items()}
        return taps_lib.project_and_sum(taps, kernels, size) + bias

    own = {name: tap[index][None] for name, tap in taps.items()}

    def step(state, _):
        params, moments = state
        grads = jax.grad(lambda p: losses.cross_entropy(logits(p, own), mask[None]))(params)
        updates, moments = optimizer.update(grads, moments)
        return (optax.apply_updates(params, updates), moments), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=_STEPS)
    return jax.lax.map(
        lambda one: logits(params, {name: tap[None] for name, tap in one.items()})[0].argmax(-1),
        dict(taps),
    )
