"""The command: repgan-jax --config=face [--config.FIELD=VALUE ...]."""

import difflib
import errno
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from repgan_jax import config_file, stages
from repgan_jax.errors import UserError
from repgan_jax.io import files, remote
from repgan_jax.runtime import distributed, parallel, preemption

MAIN_FIELDS = {
    "workdir": "folder for the results, one subfolder per stage; may be gs://BUCKET/RUN",
    "stages": "stages to run, in this order: --config.stages=evaluate,report",
    "generator": "folder of a converted generator",
    "classes": "file with the names of the classes, one per line",
    "fewshot.shots": "folder of the labelled images",
    "fewshot.names": "which of them to use; empty = all",
    "generate.num_images": "number of images in the generated dataset",
    "autoshot.steps": "training steps of the stand-alone network",
    "evaluate.images": "folder of photos with true masks (evaluate.masks)",
    "segment.input": "photo, or folder of photos, to segment",
    "invert.input": "photo, or folder of photos, to find latents for",
    "seed": "seed of every random choice",
    "distributed": "True if this is one of several processes of a run: see docs/scale.md",
}

CONFIGS = Path(__file__).parent / "configs"
_MAY_BE_REMOTE = ("config.workdir", "config.generator")
# Fields that name what a run reads, and can therefore name examples/ of the library.
_INPUTS = (
    "classes",
    "fewshot.shots",
    "evaluate.images",
    "evaluate.masks",
    "segment.input",
    "invert.input",
)
TERMINATED = "stopped by SIGTERM; what is written is whole, and the same command goes on from here"


def help_text() -> str:
    """Returns what --help prints."""
    lines = [__doc__.replace("The command", "Usage", 1).rstrip(".")]
    lines += ["", f"Configs: {', '.join(_config_names())}, or the path of a config file"]
    for title, entries in (
        ("Stages; a finished stage is skipped, an interrupted one resumes:", stages.STAGES),
        (
            "Main fields, for example --config.seed=3; all fields: repgan_jax/configs/base.py",
            MAIN_FIELDS,
        ),
    ):
        lines += ["", title, *(f"  {name:<22} {text}" for name, text in entries.items())]
    return "\n".join(lines)


def read_config(argv: Sequence[str]) -> ConfigDict:
    """Returns the config that the arguments `argv` (without the program's name) ask for."""
    path, rest = _take_config(argv)
    values, argv = flags.FlagValues(), ["main", *config_file.quote_names(rest)]
    config = None
    if path:
        config = config_file.load_config(path)
        config_file.check_names(config, rest)
        config_file.note_former_names(rest)
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        stray = values(argv)[1:]
        if config:
            config = values["config"].value
            _tidy(config)
            _find_examples(config)
    except (flags.Error, OSError) as error:
        reason = str(error).strip().splitlines()[-1]  # a traceback may stand before it
        raise UserError(reason.removeprefix("flag ")) from error
    if stray:
        raise UserError(f"argument {stray[0]!r} is not understood; fields are --config.NAME=VALUE")
    if not config:
        raise UserError("no config; give one, for example --config=face")
    return config


def _take_config(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the path of the config file that `argv` names, "" if none, and all but this."""
    path, rest, arguments = "", [], iter(argv)
    for argument in arguments:
        flag, separator, given = argument.partition("=")
        if flag not in ("--config", "-config"):
            rest.append(argument)
            continue
        value = given if separator else next(arguments, None)
        if value is None:
            raise UserError("Missing value for flag --config")
        path = _config_path(value)
    return path, rest


def _config_path(value: str) -> str:
    """Returns the path of a config file for its path, or its name if it is one of the library's.

    What follows a colon, as in "face:celebamask", is kept: the argument of its `get_config`.
    """
    name, colon, variant = value.partition(":")
    if name in _config_names():
        return f"{CONFIGS / name}.py{colon}{variant}"
    if not Path(name).is_file():
        near = difflib.get_close_matches(Path(name).stem, _config_names(), n=1)
        hint = f"; did you mean --config={near[0]}{colon}{variant}?" if near else ""
        raise UserError(
            f"--config={value}: no such file; expected the path of a config file, "
            f"or one of {', '.join(_config_names())}{hint}"
        )
    return value


def _config_names() -> list[str]:
    """Returns the names of the library's own configs."""
    return sorted(path.stem for path in CONFIGS.glob("[!_]*.py"))


def use_all_cores(batch_size: int) -> None:
    """Makes a CPU device of each core, as many as divide `batch_size`; before JAX's first use.

    Networks this small keep one core busy each better than several together: on two cores,
    generation takes 0.7 and training 0.8 of the time. Other accelerators are not affected.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = os.cpu_count() or 1
    devices = max(n for n in range(1, cores + 1) if batch_size % n == 0)
    jax.config.update("jax_num_cpu_devices", devices)
    flags_so_far = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags_so_far} --xla_cpu_multi_thread_eigen=false"


def run(config: ConfigDict) -> None:
    """Runs the stages of `config` in their order."""
    if not config.stages:
        raise UserError(f"config.stages: none given; expected some of {', '.join(stages.STAGES)}")
    _use_compilation_cache(config.compilation_cache)
    todo = [(name, stages.load(name)) for name in config.stages]
    with (
        remote.working_folder(config.workdir) as workdir,
        remote.working_folder(config.generator) as generator,
    ):
        if not workdir.is_dir():
            files.expect_writable(workdir, "config.workdir")
        remote.pull(generator)
        config.generator = str(generator)
        parts = [(name, partial(x.check, config)) for name, x in todo if hasattr(x, "check")]
        parts += [(name, partial(x.run, config, workdir)) for name, x in todo]
        for name, part in parts:
            part() if stages.is_shared(name, config) else distributed.by_leader(part)


def _use_compilation_cache(folder: str) -> None:
    """Keeps compiled programs in `folder`, unless it is "" or cannot be written."""
    if not folder:
        return
    try:
        files.expect_writable(os.path.expanduser(folder), "config.compilation_cache")
    except UserError as error:  # programs are compiled anew each time, no more
        print(f"warning: {error}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the command line asks for; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    logging.set_verbosity(logging.FATAL)  # Orbax logs a traceback for what it raises as well
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    if not argv or {"-h", "--help"} & set(argv):
        print(help_text())
        return 0
    code, failed = 1, True
    with preemption.terminable(TERMINATED):
        try:
            code, failed = _attempt(argv)
        finally:  # of a bug, too
            distributed.leave(code, failed=failed)
    return code


def _attempt(argv: Sequence[str]) -> tuple[int, bool]:
    """Returns (exit code, whether it ended before its time); says why it did."""
    try:
        config = read_config(argv)
        _expect_local(config)
        if not 0 <= config.seed < 2**32:  # what JAX's and Grain's keys can tell apart
            raise UserError(f"config.seed: {config.seed}, expected 0 to {2**32 - 1}")
        use_all_cores(config.autoshot.batch_size)
        if config.distributed or config.cluster.address:
            distributed.start(**config.cluster)
        parallel.expect_backend()
        run(config)
        return 0, False
    except preemption.Terminated:
        print(TERMINATED, flush=True)
        return 0, True
    except UserError as error:
        message, code = str(error), 2
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        message, code = f"out of memory ({reason}); see docs/getting_started.md#short-of-memory", 2
    except KeyboardInterrupt:
        message, code = "interrupted; the same command goes on from here", 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        message, code = f"{error.filename or 'disk'}: {error.strerror}; choose another folder", 2
    print(f"error: {message}", file=sys.stderr)
    return code, True


def _expect_local(config: ConfigDict, group: str = "config") -> None:
    """Raises UserError for an address where a local path is expected."""
    for name, value in config.items():
        field = f"{group}.{name}"
        may_be_remote = field in _MAY_BE_REMOTE and str(value).startswith(remote.SCHEME)
        if isinstance(value, ConfigDict):
            _expect_local(value, field)
        elif isinstance(value, str) and "://" in value and not may_be_remote:
            raise UserError(
                f"{field}: {value}, expected a local path; "
                f"only {' and '.join(_MAY_BE_REMOTE)} may be {remote.SCHEME}..."
            )


def _find_examples(config: ConfigDict) -> None:
    """Replaces examples/... that is not in the working folder by the library's own."""
    for field in _INPUTS:
        *groups, name = field.split(".")
        group = config[groups[0]] if groups else config
        group[name] = files.find_example(group[name])


def _tidy(config: ConfigDict) -> None:
    """Does what a shell would: "~" is the home folder; `--config.names=a,b`, ("a,b",), are two.

    What is empty is left out: `--config.names=` is ().
    """
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _tidy(value)
        elif isinstance(value, str) and value.startswith("~"):
            config[name] = os.path.expanduser(value)
        elif isinstance(value, tuple) and any("," in str(item) or item == "" for item in value):
            parts = (part.strip() for item in value for part in str(item).split(","))
            config[name] = tuple(part for part in parts if part)


if __name__ == "__main__":
    sys.exit(main())
