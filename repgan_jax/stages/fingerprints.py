"""What a stage's result depends on: values of config fields, and the content of files.

How a path is spelled, where files lie, and which machine works on them are no part of it.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from repgan_jax import config_file, generator
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint

# Every field that is a path. None is compared by its value: what a stage reads from there counts
# by its content, as one of the stage's inputs, and where it writes does not count.
PATHS = frozenset(
    (
        "workdir",
        "generator",
        "classes",
        "compilation_cache",
        "fewshot.shots",
        "evaluate.images",
        "evaluate.masks",
        "segment.input",
        "segment.output",
        "invert.input",
        "invert.landmarks",
        "invert.perceptual",
        "invert.cache",
        "invert.fast.start",
        "invert.standard.start",
        "invert.paper.start",
        "export.output",
    )
)

_OF_SHOTS = ("images", "masks", "labelme", "annotations.json", "latents.npz")


def describe(
    config: ConfigDict, fields: Sequence[str], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Returns {"fields", "inputs", "fingerprint"}: what a stage's result depends on.

    Paths stand in "fields" for the reader; "fingerprint" and `changes` leave them out.

    Args:
        config: of the run.
        fields: dotted names of config fields, or of groups of them.
        inputs: digests by name: "config.FIELD" for the content of each path in `fields`.
    """
    found = values(config, fields)
    unread = [f for f in PATHS & found.keys() if found[f] and f"config.{f}" not in inputs]
    if unread:
        raise ValueError(f"paths without a digest among the inputs: {', '.join(sorted(unread))}")
    decisive = {"fields": _without_paths(found), "inputs": dict(inputs)}
    text = json.dumps(decisive, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return {"fields": found, "inputs": dict(inputs), "fingerprint": fingerprint}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yields one phrase for every field or input of two records that differs, but for paths."""
    yield from changed_values(old["fields"], new["fields"])
    for name in sorted(old["inputs"].keys() | new["inputs"].keys()):
        if not is_same(old["inputs"].get(name), new["inputs"].get(name)):
            yield name


def changed_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yields one phrase for every field that differs, of two that `values` returned."""
    old = {config_file.RENAMED.get(name, name): value for name, value in old.items()}
    old, new = _without_paths(old), _without_paths(new)
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was != now:
            yield f"config.{name} {json.dumps(was)} -> {json.dumps(now)}"


def values(config: ConfigDict, fields: Sequence[str]) -> dict[str, Any]:
    """Returns the values of `fields` by dotted name, as they are on disk: (1, 2) is [1, 2]."""
    found = dict(leaf for field in fields for leaf in _leaves(config, field))
    return json.loads(json.dumps(found))


def get(config: ConfigDict, field: str) -> Any:
    """Returns the value of a dotted field."""
    return functools.reduce(getattr, field.split("."), config)


def digest(path: str | Path, names: Sequence[str] = ("*",)) -> str:
    """Returns a hexadecimal digest of a file, or of names and bytes of the files in a folder.

    Hidden files and folders count for nothing: file managers leave theirs anywhere.

    Args:
        path: file or folder.
        names: patterns of what counts in the folder.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    parts = [part for name in names for part in path.glob(name)] if path.is_dir() else [path]
    files = {file for part in parts for file in (part, *part.rglob("*")) if file.is_file()}
    relative = [(file.relative_to(path), file) for file in sorted(files)]
    shown = [x for x in relative if not _is_hidden(x[0])]
    return digest_files(shown)


def _is_hidden(name: Path) -> bool:
    """Returns whether a file of this relative name is a file manager's, not the user's."""
    hidden = any(part.startswith(".") for part in name.parts)
    return hidden or name.name.lower() in ("thumbs.db", "desktop.ini")


def digest_files(files: Iterable[tuple[str | Path, Path]]) -> str:
    """Returns a hexadecimal digest of `files`, (name that counts, path of the content) each."""
    total = hashlib.sha256()
    for name, file in files:
        total.update(os.fsencode(name) + b"\0")
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


class Digest(str):
    """A digest whose content earlier versions knew by others, which `former` compute."""

    former: tuple[Callable[[], str], ...]

    def __new__(cls, digest: str, *former: Callable[[], str]) -> "Digest":
        """Returns `digest`, a string like any other, with `former` attached."""
        self = super().__new__(cls, digest)
        self.former = former
        return self


def is_same(old: str | None, new: str | None) -> bool:
    """Returns whether a digest in a record, of this or an earlier version, is that of now."""
    if old == new:
        return True
    return isinstance(new, Digest) and any(old == former() for former in new.former)


def shots_digest(folder: str | Path) -> Digest:
    """Returns a digest of the shots in `folder`; what else lies there, as a licence, is none."""
    return Digest(
        digest(folder, _OF_SHOTS),
        functools.partial(digest, folder, (*_OF_SHOTS, "classes.txt")),
        functools.partial(digest, folder),
    )


def generator_digest(folder: str | Path) -> Digest:
    """Returns a digest of what the generator in `folder` draws with: architecture and tensors."""
    former = functools.partial(digest, folder, checkpoint.GENERATOR_FILES)
    return Digest(generator.generator_digest(folder), former)


def weights_digest(folder: str | Path) -> Digest:
    """Returns a digest of the tensors that `checkpoint.write_tree` put into `folder`."""
    return Digest(checkpoint.tree_digest(folder), functools.partial(digest, folder))


def _without_paths(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in PATHS}


def _leaves(config: ConfigDict, field: str) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of a field, or of every field in a group."""
    value = get(config, field)
    if isinstance(value, ConfigDict):
        for key in value:
            if f"{field}.{key}" in config_file.RENAMED:  # another name of a field that is there
                continue
            yield from ((f"{field}.{name}", leaf) for name, leaf in _leaves(value, key))
    else:
        yield field, value
