"""Faces in ten parts at 256 pixels: `face.py` with more images, steps and time.

python -m repgan_jax.main --config=configs/face_full.py
"""

from ml_collections import ConfigDict

from repgan_jax.configs import face


def get_config(variant: str = "fused") -> ConfigDict:
    """Returns the full setting.

    Args:
        variant: layout of the true masks, as in `face.py`.
    """
    config = face.get_config(variant)
    config.workdir = "runs/face_full"
    config.label_size = 256
    config.generate.image_size = 256
    config.generate.num_images = 2500
    config.autoshot.widths = (48, 64, 96, 128)
    config.autoshot.patch = 4
    config.autoshot.steps = 3000
    return config
