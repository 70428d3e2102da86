"""Whether images are mirrored: one decision, for heads, stand-alone network and predictions."""

from collections.abc import Callable, Iterable

import numpy as np

from repgan_jax import sides
from repgan_jax.errors import UserError
from repgan_jax.palette import Palette

_ADVICE = (
    f"state pairs, as a line 'NAME {sides.ARROW} NAME' after the classes in the class list or in "
    "mirror_pairs"
)
Say = Callable[[str], None]


def check(flip: bool | str) -> None:
    """Raises UserError where `flip` is none of its values."""
    if flip not in (True, False, "always"):
        raise UserError(f"flip: {flip!r}, expected True, False or always")


def decide(
    labels: np.ndarray, palette: Palette, wanted: bool | str, *, say: Say = lambda text: None
) -> bool:
    """Returns whether to mirror images, and says why, and which classes are swapped there.

    Args:
        labels: ids of the shots [k, S, S].
        palette: names and pairs of the classes.
        wanted: True leaves the decision to the labels, "always" and False do not.
        say: takes what there is to say, one line each.
    """
    if not wanted:
        say("nothing is mirrored, as flip=False says")
        return False
    found = sides.find_one_sided(labels, palette.pairs, palette.num_classes)
    certain = [one for one in found if one.is_certain]
    if certain and wanted != "always":
        say(
            f"nothing is mirrored: {_describe(certain, palette)}, without a partner on the other "
            f"side; {_ADVICE}, or mirror all the same with flip=always",
        )
        return False
    if found:
        say(
            f"warning: {_describe(found, palette)}, without a partner on the other side; images "
            f"are mirrored all the same: if left and right are classes of their own, {_ADVICE}, or "
            "set flip=False",
        )
    _say_pairs(palette, say)
    return True


def _describe(found: Iterable[sides.OneSided], palette: Palette) -> str:
    return ", ".join(
        f"{palette.names[one.k]!r} is on the {one.side} in {one.shots} shots" for one in found
    )


def _say_pairs(palette: Palette, say: Say) -> None:
    """Says which classes are swapped in mirrored images, and how that is known."""
    if palette.pairs:
        pairs = ", ".join(" and ".join(palette.names[k] for k in pair) for pair in palette.pairs)
        guessed = f" (guessed from the names; to change that, {_ADVICE})"
        how = guessed if palette.stated is None else ""
        say(f"swapped in mirrored images: {pairs}{how}")
