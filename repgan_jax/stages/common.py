"""What makes a stage skip what is done, go on after a kill, and start again after a change."""

import contextlib
import dataclasses
import fcntl
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from repgan_jax import generator
from repgan_jax.errors import UserError
from repgan_jax.io import json_files, listing, remote, results
from repgan_jax.io.results import RECORD
from repgan_jax.runtime import distributed, parallel
from repgan_jax.stages import fingerprints, folders


@dataclasses.dataclass
class Stage:
    """One stage of one run.

    Attributes:
        name: of the stage.
        result: folder in which its result is used.
        folder: the one to write, which is another while `result` holds that of other settings.
        finished: whether `folder` is complete already.
        record: what the result depends on.
        started: time.
    """

    name: str
    result: Path
    folder: Path
    finished: bool
    record: dict[str, Any]
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Declares the folder complete, and puts it in the place of the result before.

        Args:
            summary: what a report says in a line.
        """
        self.finished = True
        if remote.is_remote(self.folder):  # where no lock keeps other runs out
            found = folders.expect_same(self.folder, self.record, "another run")
            if found["status"] == "done":
                say(self.name, "another run was faster")
                return
        seconds = round(time.perf_counter() - self.started, 2)
        done = {"status": "done", "seconds": seconds, "summary": dict(summary)}
        json_files.write(self.folder / RECORD, {**self.record, **done})
        remote.finish(self.folder)
        say(self.name, f"done in {seconds:.0f} s")
        if self.folder != self.result:
            results.settle(self.result)
            self.folder = self.result
            kept = results.predecessor(self.result)
            say(self.name, f"the result before is kept in {kept}; its settings bring it back")


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
    keep_unfinished: bool = False,
    together: bool = False,
) -> Iterator[Stage]:
    """Yields the stage `name`, whose result `fields`, `inputs` and the stages `after` determine.

    Its folder is as an interrupted run with the same fingerprint left it, and empty otherwise. A
    finished result of other settings stays in use until `Stage.finish`; see `results`.

    Args:
        name: of the stage, and of its folder in `workdir`.
        config: of the run.
        workdir: of the run; no other run may use it meanwhile.
        fields: dotted names of config fields, or of groups of them.
        inputs: names and digests of files that the result depends on.
        after: stages that must be finished; their fingerprints are a part of this one.
        refuse_changes: raise where there is work of other settings, instead of starting again.
        keep_unfinished: the same, where that work is unfinished and would be dropped.
        together: all processes of the run are here; the first one prepares the folder for them.
    """
    result = workdir / name
    protected = ("running", "done") if refuse_changes else ("running",) * keep_unfinished
    with contextlib.ExitStack() as held:
        lock = distributed.leads() and held.enter_context(folders.lock(workdir, fcntl.LOCK_EX))
        record = _describe(config, workdir, fields, inputs or {}, after)

        def prepare() -> tuple[str, bool]:
            folder, finished = folders.prepare(result, record, protected, partial(say, name))
            if together:
                fcntl.flock(lock, fcntl.LOCK_SH)  # each process keeps other runs out while it lives
            return folder.name, finished

        here, finished = distributed.by_leader(prepare) if together else prepare()
        folder = result.with_name(here)
        if not distributed.leads():
            held.enter_context(folders.lock(workdir, fcntl.LOCK_SH))
            folders.expect_same(folder, record, "process 0")
        yield Stage(name, result, folder, finished, record)
        remote.push(workdir / "tensorboard" / name)
    if together:
        distributed.wait()


def expect_photos(config: ConfigDict, field: str, *, recursive: bool) -> None:
    """Raises UserError where the dotted `field` names no photos, or none that are there."""
    if not (path := fingerprints.get(config, field)):
        raise UserError(f"config.{field}: no photos given; say --config.{field}=PHOTO_OR_FOLDER")
    if not is_made(config, path):
        listing.find_photos(path, recursive=recursive, without=[config.workdir])


def say_passed_over(name: str, photos: listing.Photos) -> None:
    """Prints a line of the stage `name` about files that are no photos, if there are any."""
    if text := photos.describe_passed_over():
        say(name, text)


def is_made(config: ConfigDict, path: str) -> bool:
    """Returns whether `path` is in the workdir, where a stage may still have to write it."""
    return Path(path).absolute().is_relative_to(Path(config.workdir).absolute())


def may_be_done(config: ConfigDict, name: str, fields: Sequence[str]) -> bool:
    """Returns whether the stage `name` is finished with these `fields`, or is remote."""
    if config.workdir.startswith(remote.SCHEME):
        return True
    if not (folder := find_result(config, name)):
        return False
    record, now = results.read_record(folder), fingerprints.values(config, fields)
    return record is not None and not any(fingerprints.changed_values(record["fields"], now))


def made_with(config: ConfigDict, name: str, field: str) -> Any:
    """Returns the value of `field` with which stage `name` is, or will be, made; None if unknown.

    It will be made if it is one of `config.stages`; it may have been made with another value. A
    remote result is not looked at.
    """
    if name in config.stages:
        return fingerprints.get(config, field)
    folder = find_result(config, name)
    return json_files.read(folder / RECORD)["fields"].get(field) if folder else None


def find_result(config: ConfigDict, name: str) -> Path | None:
    """Returns the folder of the finished stage `name`, None where it is not finished, or remote."""
    if config.workdir.startswith(remote.SCHEME):
        return None
    folder = results.current(Path(config.workdir) / name)
    return folder if results.is_done(folder) else None


def finished_folder(workdir: Path, name: str) -> Path:
    """Returns the folder of the finished stage `name`, as it is now.

    That is the last finished result, whatever may be in the making.
    """
    _finished_record(workdir, name)
    folder = results.current(workdir / name)
    remote.pull(folder)
    return folder


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
    parallel.check_share(fingerprints.get(config, field), f"config.{field}")


@contextlib.contextmanager
def config_names(config: ConfigDict, *groups: str) -> Iterator[None]:
    """Names config fields in errors about arguments: `steps: 0, ...` of `config.GROUP.steps`.

    Args:
        config: of the run.
        groups: whose fields are the arguments, the first that has one; others may be fields of
            `config` itself.
    """
    try:
        yield
    except UserError as error:
        match = re.match(r"\w+(?=(\.\w+)?[:,] )", str(error))
        name = match[0] if match else ""
        for group in groups:
            if name in config[group]:
                raise UserError(f"config.{group}.{error}") from error
        if name in config:
            raise UserError(f"config.{error}") from error
        raise


def load_generator(config: ConfigDict) -> generator.Generator:
    """Returns the run's generator, its arithmetic in `config.dtype`."""
    return generator.load_generator(config.generator, dtype=_dtype(config))


def outline_generator(config: ConfigDict) -> generator.Generator:
    """Returns the run's generator without its weights: names and sizes, for checks of settings."""
    architecture = generator.read_architecture(config.generator)
    return generator.Generator.build(architecture, {}, _dtype(config))


def _dtype(config: ConfigDict) -> jnp.dtype:
    expect_one_of(config, "dtype", ("float32", "bfloat16"))
    return jnp.dtype(config.dtype)


def expect_same_generator(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError where the generator is not the one that the heads were fitted to."""
    fitted = _finished_record(workdir, "fewshot")["inputs"]["config.generator"]
    if not fingerprints.is_same(fitted, fingerprints.generator_digest(config.generator)):
        raise UserError(
            f"config.generator: {config.generator} is not the generator that the heads in "
            f"{workdir / 'fewshot'} were fitted to; run stage fewshot again, or give that one"
        )


def expect_consistent(workdir: Path, name: str) -> None:
    """Raises UserError where a stage that the finished stage `name` used has another result now."""
    if other := results.outdated(workdir, name):
        raise UserError(
            f"{workdir / name}: made with an earlier result of stage {other} than the one in "
            f"{workdir / other}; run stage {name} again, or {other} with the settings it had"
        )


def board(workdir: Path, name: str) -> Any:
    """Returns a `SummaryWriter` of TensorBoard scalars and pictures for the stage `name`."""
    from tensorboardX import SummaryWriter  # imports PyTorch where that is installed: a second

    return SummaryWriter(str(workdir / "tensorboard" / name), write_to_disk=True)


def _finished_record(workdir: Path, name: str) -> dict[str, Any]:
    record = results.read_record(results.current(workdir / name))
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


def say(name: str, text: str) -> None:
    """Prints a line about the stage `name`."""
    print(f"{name}: {text}", flush=True)
