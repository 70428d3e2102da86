"""Horses (LSUN Horse, 256x256), for a StyleGAN2 checkpoint and shots of your own.

python -m repgan_jax.converters.stylegan2 stylegan2-horse.pt weights/horse
python -m repgan_jax.main --config=configs/horse.py --config.fewshot.shots=SHOTS \
        --config.classes=SHOTS/classes.txt
"""

from ml_collections import ConfigDict

from repgan_jax.configs import base


def get_config() -> ConfigDict:
    """Returns the config; the paper labels horses at 256 pixels (table in section 4)."""
    config = base.get_config()
    config.workdir = "runs/horse"
    config.generator = "weights/horse"
    config.classes = "examples/horse/classes.txt"  # yours: see docs/your_own_domain.md
    config.fewshot.shots = "examples/horse"
    config.label_size = 256
    config.generate.image_size = 256
    return config
