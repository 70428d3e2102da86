"""Faces in ten parts, from ten generated faces with hand-drawn masks.

    python -m repgan_jax.converters.mobilestylegan weights/face
    python -m repgan_jax.main --config=configs/face.py

With CelebAMask-HQ photos and fused masks (`images/`, `masks/`) in the folder that the environment
variable CELEBAMASK_HQ names, the result is evaluated on them.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from repgan_jax.configs import base

# CelebAMask-HQ's ids: hats, glasses, earrings and necklaces count as background
FUSED = {
    "0": "background", "1": "skin", "2": "nose", "3": "background", "4": "eyes", "5": "eyes",
    "6": "brows", "7": "brows", "8": "ears", "9": "ears", "10": "mouth", "11": "mouth",
    "12": "mouth", "13": "hair", "14": "background", "15": "background", "16": "background",
    "17": "neck", "18": "clothes",
}  # fmt: skip
# the original's files, `{id}_{part}.png`, each painted over those before it
PARTS = {
    "skin": "skin", "nose": "nose", "l_eye": "eyes", "r_eye": "eyes", "l_brow": "brows",
    "r_brow": "brows", "l_ear": "ears", "r_ear": "ears", "mouth": "mouth", "u_lip": "mouth",
    "l_lip": "mouth", "hair": "hair", "neck": "neck", "cloth": "clothes",
}  # fmt: skip


def get_config(variant: str = "fused") -> ConfigDict:
    """Returns the demo's config.

    Args:
        variant: layout of the true masks: "fused" or "celebamask" (as in `face.py:celebamask`).
    """
    config = base.get_config()
    config.workdir = "runs/face"
    evaluate = config.evaluate
    photos = Path(os.environ.get("CELEBAMASK_HQ") or "data/celebamask_hq")
    if (photos / "images").is_dir():
        evaluate.images, evaluate.masks = str(photos / "images"), str(photos / "masks")
    evaluate.layout = variant
    evaluate.class_map = ConfigDict(FUSED if variant == "fused" else PARTS)
    evaluate.merge_order = () if variant == "fused" else tuple(PARTS)
    evaluate.validation = 91
    return config
