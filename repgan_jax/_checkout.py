"""In a checkout, `converters.x` is the module `repgan_jax.converters.x`: one copy, two names.

The folders `configs/` and `converters/` lie beside this package, which links to them. From the root
of a checkout, Python finds them under both names; loaded twice, their classes would not be equal.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


def share_modules(package: str) -> None:
    """Makes every module of the top-level `package` the one of that name in `repgan_jax`."""
    sys.meta_path.insert(0, _Finder(package))


class _Finder:
    """Finds the modules of one top-level package."""

    def __init__(self, package: str):
        self._prefix = f"{package}."

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns how to load the module `name`; None for those of other packages."""
        if not name.startswith(self._prefix):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _SameModule(name, spec.origin)
        return spec


class _SameModule(SourceFileLoader):
    """Imports `repgan_jax.NAME` in place of `NAME`; `python -m` reads the code from its file."""

    def exec_module(self, module: ModuleType) -> None:
        """Puts the library's module in the place of `module`."""
        sys.modules[module.__name__] = importlib.import_module(f"repgan_jax.{module.__name__}")
