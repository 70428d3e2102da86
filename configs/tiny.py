"""The whole chain in under a minute, on two of the face shots: to try, not for results.

python -m repgan_jax.main --config=configs/tiny.py
"""

from ml_collections import ConfigDict

from repgan_jax.configs import face


def get_config() -> ConfigDict:
    """Returns the face config with everything cut down."""
    config = face.get_config()
    config.workdir = "runs/tiny"
    config.label_size = 32
    config.fewshot.names = ("seed000", "seed001")
    config.fewshot.steps = 20
    config.generate.num_images = 12
    config.generate.image_size = 32
    config.generate.shard_size = 4
    config.autoshot.widths = (8, 16)
    config.autoshot.steps = 12
    config.autoshot.batch_size = 8
    config.autoshot.warmup_steps = 2
    config.autoshot.eval_every = 6
    config.autoshot.held_out = 0.2
    config.evaluate.limit = 4
    return config
