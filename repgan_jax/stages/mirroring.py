"""Whether a run mirrors images: one decision, for heads, stand-alone network and predictions."""

from collections.abc import Iterable

import numpy as np
from ml_collections import ConfigDict

from repgan_jax import sides
from repgan_jax.errors import UserError
from repgan_jax.palette import Palette
from repgan_jax.runtime import distributed
from repgan_jax.stages import common

_ADVICE = (
    f"state pairs, as a line 'NAME {sides.ARROW} NAME' after the classes in config.classes or in "
    "config.mirror_pairs"
)


def check(config: ConfigDict) -> None:
    """Raises UserError where `config.fewshot.flip` is none of its values."""
    if (value := config.fewshot.flip) not in (True, False, "always"):
        raise UserError(f"config.fewshot.flip: {value!r}, expected True, False or always")


def decide(labels: np.ndarray, palette: Palette, wanted: bool | str) -> bool:
    """Returns whether to mirror images, and says why, and which classes trade names there.

    Args:
        labels: ids of the shots [k, S, S].
        palette: names and pairs of the classes.
        wanted: `config.fewshot.flip`: True leaves it to the labels, "always" and False do not.
    """
    if not wanted:
        common.say("fewshot", "nothing is mirrored, as config.fewshot.flip says")
        return False
    found = sides.find_one_sided(labels, palette.pairs, palette.num_classes)
    certain = [one for one in found if one.is_certain]
    if certain and wanted != "always":
        common.say(
            "fewshot",
            f"nothing is mirrored: {_describe(certain, palette)}, without a partner on the other "
            f"side; {_ADVICE}, or mirror all the same with config.fewshot.flip=always",
        )
        return False
    if found:
        common.say(
            "fewshot",
            f"warning: {_describe(found, palette)}, without a partner on the other side; images "
            f"are mirrored all the same: if left and right are classes of their own, {_ADVICE}, or "
            "set config.fewshot.flip=False",
        )
    _say_pairs(palette)
    return True


def for_network(options: ConfigDict, *, heads_flip: bool) -> bool:
    """Returns whether the stand-alone network is trained on mirrored images, and predicts on both.

    Args:
        options: `config.autoshot`.
        heads_flip: what `decide` returned.
    """
    if options.augment.flip and not heads_flip and distributed.leads():
        common.say("autoshot", "nothing is mirrored, as stage fewshot decided")
    return bool(heads_flip and options.augment.flip)


def _describe(found: Iterable[sides.OneSided], palette: Palette) -> str:
    return ", ".join(
        f"{palette.names[one.k]!r} is on the {one.side} in {one.shots} shots" for one in found
    )


def _say_pairs(palette: Palette) -> None:
    """Says which classes trade names in mirrored images, and how that is known."""
    if palette.pairs:
        pairs = ", ".join(" and ".join(palette.names[k] for k in pair) for pair in palette.pairs)
        guessed = f" (guessed from the names; to change that, {_ADVICE})"
        how = guessed if palette.stated is None else ""
        common.say("fewshot", f"trade places in mirrored images: {pairs}{how}")
