"""Which files of a folder are taken as photos and masks, and what their results are called."""

import itertools
import os
import stat
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image, ImageFile, UnidentifiedImageError

from repgan_jax.errors import UserError


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


# Files of these names are photos, whatever is in them: those that cannot be read are reported.
RAW_SUFFIXES = _suffixes("3fr arw cr2 cr3 crw dng erf iiq mrw nef nrw orf pef raf rw2 srw")
PHOTO_SUFFIXES = RAW_SUFFIXES | _suffixes(
    "apng avif bmp dib exr gif hdr heic heif hif j2k jfif jp2 jpe jpeg jpf jpg jpx jxl mpo pbm pgm "
    "png pnm ppm tga tif tiff webp"
)
MASK_SUFFIXES = _suffixes("png bmp gif tif tiff")  # these keep every value

# What Pillow identifies without being able to decode it by itself: video and drawings.
_NOT_PHOTOS = frozenset(("MPEG", "EPS", "WMF", "EMF"))
_RECORD = "stage.json"  # in the folder of a stage
_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Photos:
    """The photos in a folder.

    Attributes:
        files: their paths, by their paths relative to the folder with "/" between the parts,
            sorted by these.
        passed_over: the relative paths of what is no photo; those of folders end in "/".
    """

    files: Mapping[str, Path]
    passed_over: Sequence[str] = ()

    def describe_passed_over(self) -> str:
        """Returns one line that counts and names what is no photo, "" if there is nothing."""
        if not (count := len(self.passed_over)):
            return ""
        kind = "file or folder" if count == 1 else "files or folders"
        return f"{count} {kind} passed over: {name_some(self.passed_over)}"


def name_some(names: Sequence[str]) -> str:
    """Returns the first few of `names`, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def find_photos(
    path: str | os.PathLike[str],
    *,
    recursive: bool = False,
    without: Collection[str | Path] = (),
    companions: Collection[str] = (),
) -> Photos:
    """Returns the photos in a folder, or the one file that `path` is.

    A file is a photo if its suffix says so, in whatever case, or if Pillow identifies its content.
    Hidden files and folders are left out, as are folders below `path` that this program wrote: of
    stages, and `masks/` and `overlays/` beside `areas.csv`. Folders are entered once, even if links
    lead to them again.

    Args:
        path: a photo or a folder of photos.
        recursive: whether photos in the folders inside are found, too.
        without: folders that are not entered.
        companions: suffixes of files that go with a photo of the same stem: these are not among
            what is passed over.

    Raises:
        UserError: nothing at `path`, a folder that cannot be listed, or no photos.
    """
    path = Path(path)
    if path.is_file():
        return Photos({path.name: path})
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; give a photo or a folder of photos")
    files, passed_over = {}, []
    for entry, is_photo in _walk(path, recursive, {_identity(each) for each in without} - {None}):
        name = entry.relative_to(path).as_posix()
        if is_photo:
            files[name] = entry
        else:
            passed_over.append(f"{name}/" if os.path.isdir(entry) else name)
    stems = {PurePath(name).with_suffix("") for name in files}
    passed_over = [
        name
        for name in sorted(passed_over)
        if PurePath(name).suffix.lower() not in companions
        or PurePath(name).with_suffix("") not in stems
    ]
    photos = Photos(dict(sorted(files.items())), passed_over)
    if not files:
        found = photos.describe_passed_over()
        raise UserError(
            f"{path}: no photos in this folder{found and f' ({found})'}; "
            "expected JPEG, PNG, WebP or the like"
        )
    return photos


def _walk(
    folder: Path, recursive: bool, closed: Collection[tuple[int, int] | None]
) -> Iterator[tuple[Path, bool]]:
    """Yields (path, whether it is a photo) of files, and (path, False) of folders not entered."""
    visited, left = {_identity(folder)}, [folder]
    while left:
        folder = left.pop()
        paths = _list(folder)
        written = {"masks", "overlays"} if folder / "areas.csv" in paths else set()
        for path in paths:
            if not os.path.isdir(path):  # false for a link to itself, too
                yield path, _is_photo(path)
                continue
            identity = _identity(path)
            is_closed = identity in closed or identity in visited or path.name in written
            if is_closed or not recursive or (path / _RECORD).exists():
                yield path, False
            else:
                visited.add(identity)
                left.append(path)


def _list(folder: Path) -> list[Path]:
    """Returns what is in `folder` and not hidden: links after the rest, both by name."""
    try:
        paths = [path for path in folder.iterdir() if path.name[0] != "."]
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror}); change its permissions or move it away"
        ) from error
    return sorted(paths, key=lambda path: (path.is_symlink(), path.name))


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Returns what a folder has in common with links to it; None where nothing is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_photo(path: Path) -> bool:
    """Returns whether the suffix or, where it says nothing, the content is that of an image."""
    return path.suffix.lower() in PHOTO_SUFFIXES or _is_image(path)


def _is_image(path: Path) -> bool:
    """Returns whether Pillow identifies and can decode the kind of file; no pixel is decoded."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reading it will warn again
            with Image.open(path) as image:
                is_stub = isinstance(image, ImageFile.StubImageFile)
                return not is_stub and image.format not in _NOT_PHOTOS
    except Image.DecompressionBombError:
        return True
    except (UnidentifiedImageError, OSError, ValueError, EOFError, OverflowError, KeyError):
        return False


def index(folder: Path, suffixes: Collection[str]) -> dict[str, list[Path]]:
    """Returns the files in `folder` with one of `suffixes`, in any case, by `stem_key`.

    Hidden files are left out. The result is empty if there is no such folder.
    """
    found: dict[str, list[Path]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in suffixes and path.name[0] != "." and path.is_file():
                found.setdefault(stem_key(path.stem), []).append(path)
    return found


def stem_key(stem: str) -> str:
    """Returns one spelling of a stem: systems differ in how they write letters with accents."""
    return unicodedata.normalize("NFC", stem)


def the_one(paths: Sequence[Path], what: str) -> Path:
    """Returns the only path of `paths`.

    Raises:
        UserError: there are several for `what`.
    """
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise UserError(
            f"{paths[0].parent}: {len(paths)} files for {what}: {names}; "
            "expected one: rename or remove the others"
        )
    return paths[0]


def result_names(paths: Iterable[str]) -> dict[str, str]:
    """Returns a name for the results of each relative path, without suffix, in the same folder.

    It is the stem, or the whole file name where the stem is not unique, or that with a number. No
    two names are equal, even where a file system tells neither case nor spellings of Unicode
    apart, and no name with a suffix `.png` or `.npz` is that of a folder in another's path.
    """
    relative = sorted(map(PurePath, paths))
    taken = {_fold(parent) for path in relative for parent in path.parents}
    files = {_fold(path) for path in relative}
    stems = Counter(_fold(path.with_name(path.stem)) for path in relative)
    names = {}
    for path in relative:
        stem = path.with_name(path.stem)
        is_clear = stems[_fold(stem)] == 1 and (stem == path or _fold(stem) not in files)
        numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
        candidates = itertools.chain([stem] if is_clear else [], [path], numbered)
        name = next(name for name in candidates if not _claims(name) & taken)
        taken |= _claims(name)
        names[path.as_posix()] = name.as_posix()
    return names


def _claims(name: PurePath) -> set[str]:
    """Returns the folded paths that the results called `name` take."""
    return {_fold(name.with_name(name.name + suffix)) for suffix in (".png", ".npz")}


def _fold(path: PurePath) -> str:
    """Returns what is the same for paths that a file system may take for one."""
    return stem_key(stem_key(path.as_posix()).casefold())
