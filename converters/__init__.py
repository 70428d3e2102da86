"""Readers of other checkpoints: each writes a generator folder and runs nothing it reads."""

if __name__ == "converters":  # found in the root of a checkout
    from repgan_jax import _checkout

    _checkout.share_modules(__name__)
