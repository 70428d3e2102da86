"""Cars (LSUN Car, 512x384 drawn in 512x512), for a StyleGAN2 checkpoint and shots of your own.

python -m repgan_jax.converters.stylegan2 stylegan2-car.pt weights/car
python -m repgan_jax.main --config=configs/car.py --config.fewshot.shots=SHOTS \
        --config.classes=SHOTS/classes.txt
"""

from ml_collections import ConfigDict

from repgan_jax.configs import base


def get_config() -> ConfigDict:
    """Returns the config; the paper labels cars at 512 pixels (table in section 4)."""
    config = base.get_config()
    config.workdir = "runs/car"
    config.generator = "weights/car"
    config.classes = "examples/car/classes.txt"  # yours: see docs/your_own_domain.md
    config.fewshot.shots = "examples/car"
    config.label_size = 256
    config.generate.image_size = 256
    return config
