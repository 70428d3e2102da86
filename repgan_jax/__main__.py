"""The command, as `python -m repgan_jax`; also installed as `repgan-jax`."""

import sys

from repgan_jax.main import main

if __name__ == "__main__":
    sys.exit(main())
