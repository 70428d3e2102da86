"""One file a domain; `base.py` names every field, `face.py` and the like say only what differs."""

if __name__ == "configs":  # found in the root of a checkout
    from repgan_jax import _checkout

    _checkout.share_modules(__name__)
