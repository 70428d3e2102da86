"""What makes a stage skip what is done, go on after a kill, and start again after a change."""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax.numpy as jnp
from ml_collections import ConfigDict

from repgan_jax import distributed, generator, parallel
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, listing, remote
from repgan_jax.stages import fingerprints

RECORD = remote.LAST  # {"status", "seconds", "summary", "fingerprint", "fields", "inputs"}


@dataclasses.dataclass
class Stage:
    """One stage of one run: the folder it writes, and whether that is complete already."""

    name: str
    folder: Path
    finished: bool
    record: dict[str, Any]
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Declares the folder complete; `summary` is what a report says in a line."""
        self.finished = True
        if remote.is_remote(self.folder):  # where no lock keeps other runs out
            found = _expect_same(self.folder, self.record, "another run")
            if found["status"] == "done":
                say(self.name, "another run was faster")
                return
        seconds = round(time.perf_counter() - self.started, 2)
        done = {"status": "done", "seconds": seconds, "summary": dict(summary)}
        checkpoint.write_json(self.folder / RECORD, {**self.record, **done})
        remote.finish(self.folder)
        say(self.name, f"done in {seconds:.0f} s")


@contextlib.contextmanager
def stage(
    name: str,
    config: ConfigDict,
    workdir: Path,
    fields: Sequence[str],
    *,
    inputs: Mapping[str, str] | None = None,
    after: Sequence[str] = (),
    refuse_changes: bool = False,
    together: bool = False,
) -> Iterator[Stage]:
    """Yields the stage `name`, whose result `fields`, `inputs` and the stages `after` determine.

    Its folder is as an interrupted run with the same fingerprint left it, and empty otherwise.

    Args:
        name: of the stage, and of its folder in `workdir`.
        config: of the run.
        workdir: of the run; no other run may use it meanwhile.
        fields: dotted names of config fields, or of groups of them.
        inputs: names and digests of files that the result depends on.
        after: stages that must be finished; their fingerprints are a part of this one.
        refuse_changes: raise where work would be thrown away, instead of starting again.
        together: all processes of the run are here; the first one prepares the folder for them.
    """
    folder = workdir / name
    with contextlib.ExitStack() as held:
        lock = distributed.leads() and held.enter_context(_lock(workdir, fcntl.LOCK_EX))
        record = _describe(config, workdir, fields, inputs or {}, after)

        def prepare() -> bool:
            finished = _prepare(folder, record, refuse_changes)
            if together:
                fcntl.flock(lock, fcntl.LOCK_SH)  # each process keeps other runs out while it lives
            return finished

        finished = distributed.by_leader(prepare) if together else prepare()
        if not distributed.leads():
            held.enter_context(_lock(workdir, fcntl.LOCK_SH))
            _expect_same(folder, record, "process 0")
        yield Stage(name, folder, finished, record)
        remote.push(workdir / "tensorboard" / name)
    if together:
        distributed.wait()


def expect_photos(config: ConfigDict, field: str) -> None:
    """Raises UserError where the dotted `field` names no photos, or none that are there."""
    if not (path := fingerprints.get(config, field)):
        raise UserError(f"config.{field}: no photos given; say --config.{field}=PHOTO_OR_FOLDER")
    if not is_made(config, path):
        listing.find_photos(path)


def is_made(config: ConfigDict, path: str) -> bool:
    """Returns whether `path` is in the workdir, where a stage may still have to write it."""
    return Path(path).absolute().is_relative_to(Path(config.workdir).absolute())


def may_be_done(config: ConfigDict, name: str, fields: Sequence[str]) -> bool:
    """Returns whether the stage `name` is finished with these `fields`, or is remote."""
    if config.workdir.startswith(remote.SCHEME):
        return True
    path = Path(config.workdir) / name / RECORD
    record = checkpoint.read_json(path) if path.exists() else {"status": "none"}
    now = fingerprints.values(config, fields)
    return record["status"] == "done" and not any(
        fingerprints.changed_values(record["fields"], now)
    )


def finished_folder(workdir: Path, name: str) -> Path:
    """Returns the folder of the finished stage `name`, as it is now."""
    _finished_record(workdir, name)
    remote.pull(workdir / name)
    return workdir / name


def fingerprint(workdir: Path, name: str) -> str:
    """Returns the hexadecimal digest of everything the finished stage `name` depended on."""
    return _finished_record(workdir, name)["fingerprint"]


def expect_positive(config: ConfigDict, *fields: str) -> None:
    """Raises UserError where one of the dotted `fields` is less than 1."""
    for field in fields:
        if (value := fingerprints.get(config, field)) < 1:
            raise UserError(f"config.{field}: {value}, expected at least 1")


def expect_one_of(config: ConfigDict, field: str, choices: Sequence[str]) -> None:
    """Raises UserError where the dotted `field` is none of `choices`."""
    if (value := fingerprints.get(config, field)) not in choices:
        raise UserError(f"config.{field}: {value!r}, expected one of {', '.join(choices)}")


def expect_share(config: ConfigDict, field: str) -> None:
    """Raises UserError unless the devices of all processes can share batches of size `field`."""
    here, devices = len(parallel.devices()), len(parallel.devices(everywhere=True))
    if devices != distributed.size() * here:
        raise UserError(
            f"config.cluster: {here} of {devices} devices are in this one of "
            f"{distributed.size()} processes; expected equally many in each"
        )
    if (value := fingerprints.get(config, field)) % devices:
        raise UserError(f"config.{field}: {value}, expected a multiple of the {devices} devices")


def load_generator(config: ConfigDict) -> generator.Generator:
    """Returns the run's generator, its arithmetic in `config.dtype`."""
    expect_one_of(config, "dtype", ("float32", "bfloat16"))
    return generator.load_generator(config.generator, dtype=jnp.dtype(config.dtype))


def expect_same_generator(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError where the generator is not the one that the heads were fitted to."""
    fitted = _finished_record(workdir, "fewshot")["inputs"]["config.generator"]
    if fitted != fingerprints.generator_digest(config):
        raise UserError(
            f"config.generator: {config.generator} is not the generator that the heads in "
            f"{workdir / 'fewshot'} were fitted to; run stage fewshot again, or give that one"
        )


def board(workdir: Path, name: str) -> Any:
    """Returns a `SummaryWriter` of TensorBoard scalars and pictures for the stage `name`."""
    from tensorboardX import SummaryWriter  # imports PyTorch where that is installed: a second

    return SummaryWriter(str(workdir / "tensorboard" / name), write_to_disk=True)


def _finished_record(workdir: Path, name: str) -> dict[str, Any]:
    record = _read_record(workdir / name)
    if not record or record["status"] != "done":
        raise UserError(
            f"{workdir / name}: stage {name} is not finished; run it first, "
            f"""with the same config and --config.stages='("{name}",)'"""
        )
    return record


def _describe(
    config: ConfigDict,
    workdir: Path,
    fields: Sequence[str],
    inputs: Mapping[str, str],
    after: Sequence[str],
) -> dict[str, Any]:
    """Returns what `fingerprints.describe` does, the stages `after` among the inputs."""
    inputs = {**inputs, **{other: fingerprint(workdir, other) for other in after}}
    return fingerprints.describe(config, fields, inputs)


def _prepare(folder: Path, record: Mapping[str, Any], refuse_changes: bool) -> bool:
    """Makes `folder` fit for work on `record`; returns whether nothing is left to do there."""
    old = _read_record(folder)
    if old and (changes := ", ".join(fingerprints.changes(old, record))):
        work = refuse_changes and len(list(folder.glob("[!.]*"))) > 1
        if work or remote.is_remote(folder):  # whose it is cannot be known there
            raise UserError(
                f"{folder}: made with other settings ({changes}); "
                "delete that folder or choose another --config.workdir"
            )
        say(folder.name, f"starting again, for these changed: {changes}")
        _discard(folder)
        old = None
    finished = bool(old) and old["status"] == "done"
    if finished:
        say(folder.name, "done already (same settings)")
    else:
        checkpoint.write_json(folder / RECORD, {"status": "running", **record})
        if not old:
            remote.push(folder / RECORD)
        remote.restore(folder)
    return finished


def _expect_same(folder: Path, record: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Returns the record in `folder`; raises UserError if `who` wrote it has other settings."""
    found = _read_record(folder)
    if not found:
        raise UserError(
            f"{folder}: not there; all processes need one --config.workdir that they share"
        )
    if changes := ", ".join(fingerprints.changes(found, record)):
        raise UserError(f"{folder}: {who} has other settings ({changes}); start all with the same")
    return found


def say(name: str, text: str) -> None:
    """Prints a line about the stage `name`."""
    print(f"{name}: {text}", flush=True)


@contextlib.contextmanager
def _lock(workdir: Path, kind: int) -> Iterator[TextIO]:
    """Keeps other runs out; the system lets go of it however this process ends."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("a+") as file:  # NFS shares no lock on what cannot be read
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{workdir}: another run is working here; wait for it or choose another workdir"
            ) from error
        except OSError as error:
            raise UserError(
                f"{workdir}: its file system has no locks ({error.strerror}); choose another "
                "--config.workdir, or mount it with flock"
            ) from error
        yield file


def _discard(folder: Path) -> None:
    """Removes `folder` at one stroke: a kill leaves no part of it without its record."""
    doomed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)  # of a killed run
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def _read_record(folder: Path) -> dict[str, Any] | None:
    """Returns the stage's record, or None where nothing is; never takes over a foreign folder."""
    remote.pull(folder / RECORD)
    if (folder / RECORD).exists():
        return checkpoint.read_json(folder / RECORD)
    if any(folder.glob("[!.]*")) or remote.find(folder):
        raise UserError(
            f"{folder}: not the folder of a stage (it has no {RECORD}); "
            "move it away or choose another --config.workdir"
        )
    return None
