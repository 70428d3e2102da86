"""The generator's activations as features of pixels: which, in what form, at what size."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from repgan_jax.errors import UserError
from repgan_jax.ops import resampling

Taps = Mapping[str, jax.Array]


def size_of(name: str) -> int:
    """Returns the pixels a side of tap `name`: 64 for "conv_07_64"."""
    return int(name.rsplit("_", 1)[1])


def select(available: Sequence[str], names: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns `names` in the generator's order; none means all from 8x8 up (the paper's choice).

    Raises:
        UserError: names a tap that the generator does not have.
    """
    unknown = sorted(set(names) - set(available))
    if unknown:
        raise UserError(f"taps: no tap is called {unknown}; expected some of {list(available)}")
    return tuple(name for name in available if (name in names if names else size_of(name) >= 8))


def choose(taps: Taps, names: Sequence[str], size: int) -> dict[str, jax.Array]:
    """Returns the taps called `names`, those finer than `size` averaged down to it, or near it.

    Averaging commutes with the 1x1 convolution that follows, and leaves less to convolve and keep.
    """
    chosen = {}
    for name in names:
        side = taps[name].shape[1]
        factor = max(d for d in range(1, max(1, side // size) + 1) if side % d == 0)
        chosen[name] = resampling.area_reduce(taps[name], factor)
    return chosen


@jax.jit
def root_mean_square(taps: Taps) -> dict[str, jax.Array]:
    """Returns for each tap [N, h, w, C] the root mean square of its channels, [C], never zero."""
    power = {name: jnp.mean(jnp.square(tap), (0, 1, 2)) for name, tap in taps.items()}
    return {name: jnp.sqrt(mean + 1e-8) for name, mean in power.items()}  # channels may be silent


def project_and_sum(
    taps: Taps, kernels: Mapping[str, jax.Array], size: int, *, method: str = "bilinear"
) -> jax.Array:
    """Returns [N, size, size, F]: the 1x1 convolution of all `taps`, resized and stacked.

    Convolution and resizing commute, so each tap is projected at its own size, the results of one
    size are added, and only those F channels are resized: the stack of thousands of channels at
    full size (paper, section 3.2) is never built.

    Args:
        taps: by name, [N, h, w, C].
        kernels: by name, [C, F].
        size: pixels a side of the result.
        method: "bilinear" or "nearest".
    """
    projected = [taps[name] @ kernel for name, kernel in kernels.items()]
    return resampling.resize_and_sum(projected, size, method=method)
