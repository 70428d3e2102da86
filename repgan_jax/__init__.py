"""Part segmentation from one to ten labelled images, with the features of a trained GAN."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repgan_jax.data.dataset import open_dataset
    from repgan_jax.data.masks import load_shots
    from repgan_jax.errors import UserError
    from repgan_jax.evaluation import evaluate
    from repgan_jax.generation import generate_dataset
    from repgan_jax.generator import Generator, load_generator
    from repgan_jax.inversion.invert import invert
    from repgan_jax.labeller import Labeller, load_labeller
    from repgan_jax.pixel_features import features, project_features
    from repgan_jax.segmentation import segment_folder
    from repgan_jax.segmenter import Segmenter, load_segmenter
    from repgan_jax.training.labeller import fit_labeller
    from repgan_jax.training.segmenter import train_segmenter

__version__ = "0.1.0"
__all__ = [
    "Generator",
    "Labeller",
    "Segmenter",
    "UserError",
    "evaluate",
    "features",
    "fit_labeller",
    "generate_dataset",
    "invert",
    "load_generator",
    "load_labeller",
    "load_segmenter",
    "load_shots",
    "open_dataset",
    "project_features",
    "segment_folder",
    "train_segmenter",
]

# The module of each public name. It is imported on first use: JAX and Orbax take a second.
_MODULES = {
    "Generator": "generator",
    "Labeller": "labeller",
    "Segmenter": "segmenter",
    "UserError": "errors",
    "evaluate": "evaluation",
    "features": "pixel_features",
    "fit_labeller": "training.labeller",
    "generate_dataset": "generation",
    "invert": "inversion.invert",
    "load_generator": "generator",
    "load_labeller": "labeller",
    "load_segmenter": "segmenter",
    "load_shots": "data.masks",
    "open_dataset": "data.dataset",
    "project_features": "pixel_features",
    "segment_folder": "segmentation",
    "train_segmenter": "training.segmenter",
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
