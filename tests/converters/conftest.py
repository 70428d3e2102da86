"""A watcher over the reader of files that nobody vouches for."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repgan_jax.converters.pytorch_files import torch_file

# audit events of what a file of weights must never bring about
DANGEROUS = ("open", "os.", "subprocess.", "exec", "compile", "import", "pickle.", "socket.")
DANGEROUS += ("shutil.", "ctypes.", "marshal.", "tempfile.", "code.", "sys.", "urllib.", "glob.")


@pytest.fixture(scope="session")
def watched_read() -> Callable[..., Any]:
    """`torch_file.read`, or another function, that fails if it does more than open its path."""
    watched: list[Path] = []
    events: list[tuple] = []

    def notice(event: str, arguments: tuple) -> None:
        harmless = event == "open" and watched and str(arguments[0]) == str(watched[-1])
        if watched and event.startswith(DANGEROUS) and not harmless:
            events.append((event, arguments))

    sys.addaudithook(notice)  # for good: hooks cannot be taken off

    def read(path: Path, function: Callable[[Path], Any] = torch_file.read) -> Any:
        events.clear()
        watched.append(path)
        try:
            return function(path)
        finally:
            watched.pop()
            assert not events

    return read
