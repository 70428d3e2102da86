"""Part segmentation from one to ten labelled pictures, with the features of a trained GAN."""

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator, load_generator
from repgan_jax.segmenter import Segmenter, load_segmenter

__all__ = ["Generator", "Segmenter", "UserError", "load_generator", "load_segmenter"]
