"""`configs/tiny.py` for the random generator, the shots and the photos of `conftest.py`."""

from ml_collections import ConfigDict

from repgan_jax.configs import tiny
from repgan_jax.stages import STAGES


def get_config() -> ConfigDict:
    """Returns the tiny config with every stage but those that have runs of their own.

    True masks are ids of ours; paths come by flags.
    """
    config = tiny.get_config()
    own = ("verify", "repair", "invert", "export")
    config.stages = tuple(name for name in STAGES if name not in own)
    config.fewshot.names = ()
    config.fewshot.learning_rate = 8e-3  # few channels, few steps
    config.evaluate.class_map = ConfigDict()
    config.evaluate.validation = 1
    config.evaluate.size = 48
    config.sample.num_images = 3
    config.invert.cache = ""
    return config
