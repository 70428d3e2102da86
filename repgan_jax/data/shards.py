"""One shard on disk: an ArrayRecord file, whole or absent, and a note of what is in it."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from repgan_jax.errors import UserError
from repgan_jax.io import files, json_files

SCORES = ("confidence", "disagreement")  # numbers that each record has
_FACTS = {"records", "bytes", "sha256", "pixels", *SCORES}
_READ = 64  # records at a time


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard of a dataset, there or not.

    Attributes:
        path: of its records.
        note: path of the JSON file with its checksum and what its labels add up to.
        indices: in the whole dataset, of its samples.
        num_classes: K.
    """

    path: Path
    note: Path
    indices: range
    num_classes: int

    def write(self, labelled: Iterable[tuple[bytes, Mapping[str, float], np.ndarray]]) -> None:
        """Writes records, each with its `SCORES` and pixels a class [K]; all or nothing.

        Raises:
            UserError: the disk is full, or keeps less than it was given.
        """
        scores: dict[str, list[float]] = {name: [] for name in SCORES}
        pixels = np.zeros(self.num_classes, int)

        def records() -> Iterator[bytes]:
            for record, one, one_pixels in labelled:
                for name in SCORES:
                    scores[name].append(one[name])
                pixels[:] += one_pixels
                yield record

        partial = self.path.with_name(f".{self.path.name}.partial")  # the same each time
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write_records(partial, records())
            if count_records(partial) != len(self.indices):
                raise OSError("fewer records than expected arrived on the disk")
            facts = {"records": len(self.indices), **_describe(partial)}
            os.replace(partial, self.path)
        except OSError as error:
            raise UserError(
                f"{self.path}: not written ({error}); make room, and run the same command to go on"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        facts |= {**scores, "pixels": pixels.tolist()}
        files.atomic_write(self.note, json.dumps(facts).encode())
        self.mark("")

    def is_whole(self) -> bool:
        """Returns whether it is there, as long as it was, and not marked as bad; reads no record.

        That its bytes are still those that were written, `flaw` tells.
        """
        facts = self.facts()
        if not facts or not self.path.exists() or self._mark.exists():
            return False
        return self.path.stat().st_size == facts["bytes"]

    def facts(self) -> dict[str, Any]:
        """Returns what `write` noted; nothing where that is missing or damaged."""
        try:
            facts = json_files.read(self.note)
        except UserError:
            return {}
        whole = isinstance(facts, dict) and facts.keys() == _FACTS
        return facts if whole and facts["records"] == len(self.indices) else {}

    def flaw(self, read: Callable[[bytes], Mapping[str, Any]]) -> str:
        """Returns what is wrong, after reading every record by `read`; "" where nothing is."""
        facts = self.facts()
        if not facts or not self.path.exists():
            return "missing, or its note is"
        if _describe(self.path) != {name: facts[name] for name in ("bytes", "sha256")}:
            return "not the bytes that were written"
        scores: dict[str, list[float]] = {name: [] for name in SCORES}
        pixels = np.zeros(self.num_classes, int)
        expected = iter(self.indices)
        for example in map(read, read_records(self.path)):
            index, counts = example["index"], np.bincount(example["mask"].ravel())
            if index != next(expected, None):
                return f"sample {index} is out of place"
            if len(counts) > self.num_classes:
                return f"sample {index} has class {len(counts) - 1}, of {self.num_classes}"
            for name in SCORES:
                scores[name].append(float(example[name]))
            pixels[: len(counts)] += counts
        if any(facts[name] != found for name, found in (*scores.items(), ("pixels", [*pixels]))):
            return "labels that do not add up to what was noted"
        return ""

    def mark(self, flaw: str) -> None:
        """Marks it as bad, so that it is not whole; as good where `flaw` is ""."""
        if flaw:
            files.atomic_write(self._mark, flaw.encode())
        else:
            self._mark.unlink(missing_ok=True)

    def marked_flaw(self) -> str:
        """Returns the flaw for which it is marked as bad; "" where it is not."""
        return self._mark.read_text() if self._mark.exists() else ""

    @property
    def _mark(self) -> Path:
        return self.note.with_suffix(".bad")


def read_records(path: Path, positions: Sequence[int] | None = None) -> Iterator[bytes]:
    """Yields the records at `positions`, or all, in their order; few are held at a time."""
    with _open(path) as reader:
        positions = range(reader.num_records()) if positions is None else positions
        for start in range(0, len(positions), _READ):
            yield from reader.read(list(positions[start : start + _READ]))


def count_records(path: Path) -> int:
    """Returns the number of records; 0 where the file is missing or was cut off."""
    if not path.exists():
        return 0
    with _complaining(), _open(path) as reader:
        return reader.num_records()


def _describe(path: Path) -> dict[str, Any]:
    """Returns length and checksum of a file, whose bytes are on the disk then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": sha256}


def _write_records(path: Path, records: Iterable[bytes]) -> None:
    with _complaining():
        writer = ArrayRecordWriter(str(path), "group_size:1")  # every record can be read alone
    try:
        for record in records:  # what fails in there is no fault of the disk
            with _complaining():
                writer.write(record)
    finally:
        with _complaining():
            writer.close()


@contextlib.contextmanager
def _complaining() -> Iterator[None]:
    """Makes an OSError of the RuntimeError that is ArrayRecord's."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


@contextlib.contextmanager
def _open(path: Path) -> Iterator[ArrayRecordReader]:
    reader = ArrayRecordReader(str(path))
    try:
        yield reader
    finally:
        with contextlib.suppress(RuntimeError):  # closing a damaged file complains once more
            reader.close()
