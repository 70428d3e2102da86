"""Left and right: which classes trade names in a mirrored image.

That is stated by the user, guessed from the names where the guess is certain, and contradicted by
masks that show a class without a partner on one side only.
"""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from repgan_jax.errors import UserError

ARROW = "<->"
Pairs = tuple[tuple[int, int], ...]

# Words or stems (Spanish "izquierdo" and "izquierda", German "linkes" and "linker").
_WORDS = (
    ("left", "right"),
    ("izquierd", "derech"),  # Spanish
    ("esquerd", "direit"),  # Portuguese
    ("gauche", "droite"),  # French
    ("gauche", "droit"),
    ("sinistr", "destr"),  # Italian
    ("link", "recht"),  # German, Dutch
    ("vänster", "höger"),  # Swedish
    ("venstre", "høyre"),  # Norwegian
    ("venstre", "højre"),  # Danish
    ("лев", "прав"),  # Russian
    ("lew", "praw"),  # Polish
    ("左", "右"),  # Chinese, Japanese
    ("왼", "오른"),  # Korean
)
_SHORT = (("l", "r"),)  # whole words only
_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")  # between the words of leftEar
_WORD = re.compile(r"[^\W\d_]+|\d+")

_FAR = 0.1  # share of the width between a class and the centre line that makes a side
_ENOUGH = 3  # shots whose masks are evidence, not chance


@dataclasses.dataclass(frozen=True)
class OneSided:
    """A class without a partner that masks show on one side only.

    Attributes:
        k: its id.
        side: "left" or "right", in the image.
        shots: how many masks show it there, by more than a tenth of the width.
    """

    k: int
    side: str
    shots: int

    @property
    def is_certain(self) -> bool:
        """Whether there are enough shots to rule out chance."""
        return self.shots >= _ENOUGH


def guess_pairs(names: Sequence[str]) -> Pairs:
    """Returns the pairs of ids whose `names` differ by nothing but left against right.

    Upper and lower case, spaces and other separators count for nothing. Both names have to be
    there, and no third one may fit as well.
    """
    words = [_words(name) for name in names]
    ids = collections.defaultdict(list)
    for k, parts in enumerate(words):
        ids["".join(parts)].append(k)
    partners = [_partner(parts, ids) for parts in words]
    return tuple(
        (k, other)
        for k, other in enumerate(partners)
        if other is not None and k < other and partners[other] == k
    )


def _words(name: str) -> list[str]:
    """Returns the words and numbers of `name`, in lower case."""
    name = unicodedata.normalize("NFKC", name)
    return _WORD.findall(_CAMEL.sub(" ", name).casefold())


def _partner(words: list[str], ids: dict[str, list[int]]) -> int | None:
    """Returns the id of the one class that `words` name on the other side, if there is one."""
    for candidates in (_swap_words(words), _swap_parts("".join(words))):
        if found := {k for name in candidates for k in ids.get(name, ())}:
            return found.pop() if len(found) == 1 else None
    return None


def _swap_words(words: list[str]) -> set[str]:
    """Returns `words` joined, sides swapped in all that are a side and nothing else."""
    found = set()
    for left, right in (*_WORDS, *_SHORT):
        swap = {left: right, right: left}
        if swap.keys() & set(words):
            found.add("".join(swap.get(word, word) for word in words))
    return found


def _swap_parts(text: str) -> set[str]:
    """Returns `text` with the side swapped at one of the places where it names one."""
    found = set()
    for left, right in _WORDS:
        for one, other in ((left, right), (right, left)):
            for match in re.finditer(one, text):
                found.add(text[: match.start()] + other + text[match.end() :])
    return found


def parse_pairs(lines: Sequence[tuple[str, str]], names: Sequence[str]) -> Pairs:
    """Returns the pairs of ids that `lines`, (where, text), state as "left ear <-> right ear".

    The arrow alone, or "none", states that there are no pairs.

    Raises:
        UserError: no pair of two known classes; a class in two pairs; a pair beside "none".
    """
    pairs: dict[int, int] = {}
    if any(text in (ARROW, "none") for _, text in lines):
        if len(lines) > 1:
            raise UserError(f"{lines[0][0]}: pairs beside one that says that there are none")
        return ()
    for where, text in lines:
        parts = [part.strip() for part in text.split(ARROW)]
        if len(parts) != 2:
            raise UserError(
                f"{where}: {text!r}; expected 'NAME {ARROW} NAME', or {ARROW} alone for no pairs"
            )
        for part in parts:
            if part not in names:
                raise UserError(
                    f"{where}: no class is named {part!r}; the classes are {', '.join(names)}"
                )
        one, other = map(names.index, parts)
        if one == other:
            raise UserError(
                f"{where}: {names[one]!r} is paired with itself; a class that keeps its name in a "
                "mirrored image needs no line"
            )
        for k in (one, other):
            if k in pairs:
                raise UserError(
                    f"{where}: {names[k]!r} is paired with {names[pairs[k]]!r} already; "
                    "a class has one partner"
                )
        pairs |= {one: other, other: one}
    return tuple(sorted((k, other) for k, other in pairs.items() if k < other))


def find_one_sided(masks: np.ndarray, pairs: Pairs, num_classes: int) -> tuple[OneSided, ...]:
    """Returns the classes without a partner that `masks`, ids [k, H, W], show on one side only.

    A mask shows a class on a side where its centroid is more than a tenth of the width from the
    centre line. Some masks have to, at least three or all that show the class, and none may show it
    on the other side. The background, class 0, has no side.
    """
    paired = {k for pair in pairs for k in pair}
    columns = (np.arange(masks.shape[2]) + 0.5) / masks.shape[2] - 0.5
    found = []
    for k in range(1, num_classes):
        counts = (masks == k).sum(1)  # [k, W]
        counts = counts[counts.any(1)]
        offsets = counts @ columns / counts.sum(1)
        left, right = int((offsets < -_FAR).sum()), int((offsets > _FAR).sum())
        shots = max(left, right)
        if k not in paired and min(left, right) == 0 and shots >= min(_ENOUGH, len(offsets)) > 0:
            found.append(OneSided(k, "left" if left else "right", shots))
    return tuple(found)
