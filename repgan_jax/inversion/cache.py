"""What was found for photos, kept by what determines it: no photo is worked on twice."""

import csv
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repgan_jax.io import files, images

PANELS = ("start", "10 %", "50 %", "end", "photo")  # of a strip, from left to right
SHARES = (0.0, 0.1, 0.5, 1.0)  # of the steps, in all of them but the photo itself
_COLUMNS = ("photo", "lpips", "psnr", "distance", "spread", "verdict", "steps")
_NOISE = "noise/"  # before the layer's name
_SCORES = ("lpips", "psnr", "distance", "spread", "steps")
_DAMAGE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Inversion:
    """What latent optimisation came to for a photo; see `projection.Projection`.

    Attributes:
        w: float32 [L, D].
        noise: {layer: [r, r]}, where noise maps were optimised.
        picture: uint8 [R, R, 3], made from them.
        strip: uint8 [S, 5 * S, 3], its `PANELS` side by side.
        lpips: distance of the picture from the photo.
        psnr: in dB.
        distance: of w from the mean.
        spread: of the layers' latents.
        steps: of the optimiser.
    """

    w: np.ndarray
    noise: Mapping[str, np.ndarray]
    picture: np.ndarray
    strip: np.ndarray
    lpips: float
    psnr: float
    distance: float
    spread: float
    steps: int

    def describe(self) -> str:
        """Returns the scores in a few words."""
        return f"LPIPS {self.lpips:.3f}, {self.distance:.2f} from the mean latent"


class Memory:
    """Inversions that are kept as long as this object; used like `Store`."""

    def __init__(self):
        """Holds nothing yet."""
        self._found: dict[str, Inversion] = {}

    def expect_writable(self) -> None:
        """Raises nothing: there is memory or there is not."""

    def read(self, key: str) -> Inversion | None:
        """Returns what is kept under `key`; None where nothing is."""
        return self._found.get(key)

    def write(self, key: str, found: Inversion) -> None:
        """Keeps `found` under `key`."""
        self._found[key] = found


@dataclass(frozen=True)
class Store:
    """Inversions in a folder, one file each, by a key of hexadecimal digits."""

    folder: Path

    def expect_writable(self) -> None:
        """Raises UserError where nothing can be written into the folder."""
        files.expect_writable(self.folder, "cache")

    def read(self, key: str) -> Inversion | None:
        """Returns what is kept under `key`; None where nothing is.

        What is damaged is none either, and named: it can be found again.

        Raises:
            UserError: it may not be read.
        """
        path = self._path(key)
        try:
            with np.load(path) as file:
                noise = {n.removeprefix(_NOISE): file[n] for n in file if n.startswith(_NOISE)}
                scores = {name: file[name].item() for name in _SCORES}
                return Inversion(file["w"], noise, file["picture"], file["strip"], **scores)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise files.unreadable(path, error) from error
        except _DAMAGE as error:
            reason = f"{type(error).__name__}: {error}"
            print(f"{path}: damaged ({reason}); that photo is worked on again", flush=True)
            return None

    def write(self, key: str, found: Inversion) -> None:
        """Keeps `found` under `key`."""
        noise = {_NOISE + layer: values for layer, values in found.noise.items()}
        scores = {name: np.asarray(getattr(found, name)) for name in _SCORES}
        pictures = {"picture": found.picture, "strip": found.strip}
        files.write_npz(self._path(key), w=found.w, **pictures, **scores, **noise)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def score(name: str, found: Inversion, verdict: str) -> dict[str, str]:
    """Returns the row of `scores.csv` for the photo `name`."""
    scores = (
        f"{found.lpips:.4f}",
        f"{found.psnr:.2f}",
        f"{found.distance:.3f}",
        f"{found.spread:.3f}",
    )
    return dict(zip(_COLUMNS, (name, *scores, verdict, str(found.steps)), strict=True))


def write_scores(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes `rows`, of `score` and perhaps more columns, the same in all, to `scores.csv`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0] if rows else _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.atomic_write(folder / "scores.csv", text.getvalue().encode(errors="surrogateescape"))


def read_scores(folder: Path) -> list[dict[str, str]]:
    """Returns what `write_scores` wrote to `folder`, nothing where it did not."""
    path = folder / "scores.csv"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return list(csv.DictReader(io.StringIO(text)))


def write_strip(folder: Path, name: str, found: Inversion) -> None:
    """Writes the strip of the photo `name` as a PNG file."""
    images.write_png(_strip_path(folder, name), found.strip)


def read_strip(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Returns uint8 [S, S, 3] by name of the panel, of the photo `name`."""
    strip = images.read_photo(_strip_path(folder, name))
    return dict(zip(PANELS, np.split(strip, len(PANELS), axis=1), strict=True))


def _strip_path(folder: Path, name: str) -> Path:
    return folder / "strips" / f"{name}.png"
