"""What several tests share."""

import os
from collections.abc import Callable
from pathlib import Path

# Eight virtual devices cost an ordinary test nothing: whoever wants one or two says so (below).
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import pytest

from repgan_jax import parallel

ROOT = Path(__file__).parents[1]


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Finds data that lie beside the repository, or skips the test."""

    def find(path: str) -> Path:
        found = ROOT.parent / "shared" / path
        if not found.exists():
            pytest.skip(f"needs {found}")
        return found

    return find


@pytest.fixture
def use_devices(monkeypatch) -> Callable[[int], None]:
    """Lets `parallel` see only the first so many devices."""
    return lambda count: monkeypatch.setattr(
        parallel, "devices", lambda: jax.local_devices()[:count]
    )
