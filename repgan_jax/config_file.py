"""A run's config: the file that it comes from, and the names of the fields that arguments change.

What is wrong in either is said in one line, with the file and its line, or with the nearest name.
"""

import difflib
import importlib.util
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from repgan_jax.errors import UserError

_ARGUMENT = re.compile(r"--?(?:no)?config\.([^=\[]+)")


# Fields that had other names in version 0.1.0, which are still accepted.
RENAMED = {
    "fewshot.picture_tolerance": "fewshot.image_tolerance",
    "generate.num_pictures": "generate.num_images",
    "generate.picture_size": "generate.image_size",
    "sample.num_pictures": "sample.num_images",
}


# Fields whose values are names. Python would read 00012 as an error, and 1e5 as a number.
_NAMES = ("stages", "fewshot.names", "fewshot.taps", "evaluate.merge_order")


def quote_names(argv: Sequence[str]) -> list[str]:
    """Returns `argv`, its lists of names as tuples of text: `a,00012` is ('a', '00012')."""
    quoted = []
    for argument in argv:
        flag, separator, value = argument.partition("=")
        found = _ARGUMENT.match(argument)
        if separator and found and found[1] in _NAMES and value[:1] not in ("(", "["):
            argument = f"{flag}={tuple(name.strip() for name in value.split(','))}"
        quoted.append(argument)
    return quoted


def note_former_names(argv: Sequence[str]) -> None:
    """Prints a note for every argument that uses a former name of a field."""
    for argument in argv:
        found = _ARGUMENT.match(argument)
        if found and (new := RENAMED.get(found[1])):
            print(f"note: config.{found[1]} is called config.{new} now", flush=True)


def add_former_names(config: ConfigDict) -> None:
    """Makes former names of renamed fields stand for the fields, in config files as well."""
    for old, new in RENAMED.items():
        group, name = old.split(".")
        config[group][name] = config[group].get_ref(new.split(".")[1])


def load_config(path: str) -> ConfigDict:
    """Returns what `get_config` in the file `path` returns; "FILE:VARIANT" is its argument.

    Raises:
        UserError: the file has an error, or gives no config.
    """
    file, *variant = path.split(":", 1)
    spec = importlib.util.spec_from_file_location("config_file", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: expected a file of Python code, NAME.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{file}: has no function get_config, which returns the config")
        config = module.get_config(*variant)
    except UserError:
        raise
    except Exception as error:  # the file may do anything
        raise UserError(f"{_place(file, error)}: {_describe(error)}") from error
    if not isinstance(config, ConfigDict):
        found = type(config).__name__
        raise UserError(f"{file}: get_config returned {found}, expected a ConfigDict")
    return config


def check_names(config: ConfigDict, argv: Sequence[str]) -> None:
    """Raises UserError where an argument names no field of `config`, or a group of fields."""
    for argument in argv:
        if found := _ARGUMENT.match(argument):
            _check_name(config, found[1])


def _check_name(config: ConfigDict, dotted: str) -> None:
    """Raises UserError unless `dotted` names a field."""
    value, names = config, dotted.split(".")
    for i, name in enumerate(names):
        if not isinstance(value, ConfigDict):
            field = ".".join(("config", *names[:i]))
            raise UserError(f"{field}: a field, not a group; it has no {name!r}")
        if name not in value:
            raise UserError(_unknown(names, i, [str(key) for key in value]))
        value = value[name]
    if isinstance(value, ConfigDict):
        fields = [str(key) for key in value]
        some = f", for example --config.{dotted}.{fields[0]}=VALUE" if fields else ""
        raise UserError(f"config.{dotted}: a group, not a field; set its fields one by one{some}")


def _unknown(names: Sequence[str], i: int, known: Sequence[str]) -> str:
    """Returns what to say of the `i`th of `names`, which is none of those `known` in its group."""
    name, before = names[i], names[:i]
    if not name.isidentifier() or not known:  # as of a mapping with free names
        dotted = ".".join((*before, name))
        return f"{dotted!r}; a field of that name can be set in a config file alone"
    if near := difflib.get_close_matches(name, known, n=1):
        dotted = ".".join(("config", *before, near[0], *names[i + 1 :]))
        return f'unknown config field {name!r}; did you mean "{near[0]}" instead, --{dotted}?'
    return f"unknown config field {name!r}; {'.'.join(('config', *before))} has {', '.join(known)}"


def _place(file: str, error: Exception) -> str:
    """Returns FILE:LINE for where `error` arose, in `file` or in what lies beside it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    folder = Path(file).absolute().parent
    return next((f"{path}:{line}" for path, line in _frames(error, folder)), file)


def _frames(error: Exception, folder: Path) -> Iterator[tuple[str, int | None]]:
    """Yields (file, line), the innermost first, of the code in `folder` that led to `error`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).absolute().parent == folder:
            yield frame.filename, frame.lineno


def _describe(error: Exception) -> str:
    """Returns the kind of an error and its first line."""
    first = error.args[0] if error.args else ""
    if isinstance(first, KeyError):  # as ConfigDict wraps it, whose text is quoted
        first = first.args[0]
    text = " ".join((first if isinstance(first, str) else str(error)).split())
    text, _, more = text.partition(" Other fields present: ")  # of a locked ConfigDict: all of them
    if hint := re.search(r"Did you mean .*", more):
        text = f"{text} {hint[0]}"
    return f"{type(error).__name__}: {text}"
