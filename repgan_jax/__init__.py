"""Part segmentation from one to ten labelled images, with the features of a trained GAN."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repgan_jax.errors import UserError
    from repgan_jax.generator import Generator, load_generator
    from repgan_jax.segmenter import Segmenter, load_segmenter

__version__ = "0.1.0"
__all__ = ["Generator", "Segmenter", "UserError", "load_generator", "load_segmenter"]

# The module of each public name. It is imported on first use: JAX and Orbax take a second.
_MODULES = {
    "Generator": "generator",
    "Segmenter": "segmenter",
    "UserError": "errors",
    "load_generator": "generator",
    "load_segmenter": "segmenter",
}


def __getattr__(name: str) -> Any:
    """Returns the public object `name` (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next time, Python finds it by itself
    return value


def __dir__() -> list[str]:
    """Returns the names in this module, those not imported yet included."""
    return sorted({*globals(), *__all__})
