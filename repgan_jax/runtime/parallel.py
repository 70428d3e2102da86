"""Data parallelism: one program a device, each on its share of the batch, over a 1-D mesh.

Two backends give the same bits: "shard_map", and "pmap" for those who know it better.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.backend import backends, clear_backends
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from repgan_jax.errors import UserError

AXIS = "data"  # for collectives inside a step: `jax.lax.pmean(grads, parallel.AXIS)`
BACKENDS = ("shard_map", "pmap")


def devices(*, everywhere: bool = False) -> list[jax.Device]:
    """Returns the devices that share the work: of this process, or `everywhere` in the run."""
    return jax.devices() if everywhere else jax.local_devices()


def expect_backend() -> None:
    """Raises UserError where JAX cannot work on what it was told to, as by JAX_PLATFORMS."""
    try:
        jax.devices()
        return
    except (RuntimeError, AssertionError) as error:  # of a platform that is not there
        wanted, reason = jax.config.read("jax_platforms"), " ".join(str(error).split())[:200]
        if not wanted:
            raise
    with contextlib.suppress(RuntimeError, AssertionError):
        jax.config.update("jax_platforms", None)
        reason = f"JAX finds here: {', '.join(sorted(backends()))}"
    clear_backends()  # nobody asked for these
    jax.config.update("jax_platforms", wanted)
    raise UserError(
        f"JAX_PLATFORMS={wanted}: not available on this machine ({reason}); unset it or say "
        "JAX_PLATFORMS=cpu, or install what it needs: the driver, and for an NVIDIA GPU "
        '"jax[cuda12]"'
    )


def data_mesh(*, everywhere: bool = False) -> Mesh:
    """Returns the 1-D mesh of `devices`."""
    found = devices(everywhere=everywhere)
    return jax.make_mesh((len(found),), (AXIS,), axis_types=(AxisType.Auto,), devices=found)


def replicate(tree: Any, *, everywhere: bool = False) -> Any:
    """Returns `tree` with a copy on every device, so that no call has to send it again.

    `everywhere`, in all processes of the run, it is the first one's `tree`.
    """
    sharding = NamedSharding(data_mesh(everywhere=everywhere), PartitionSpec())
    if not everywhere or jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    share = partial(jax.make_array_from_process_local_data, sharding)
    return _from_first(jax.tree.map(share, jax.device_get(tree)))


def own_share(batch: np.ndarray) -> np.ndarray:
    """Returns this process's part of `batch` [N, ...], which is the same in all processes."""
    share = len(batch) // jax.process_count()
    return batch[jax.process_index() * share :][:share]


def padded(indices: np.ndarray, multiple: int) -> np.ndarray:
    """Returns `indices` [N] with the last one repeated until N is a multiple of `multiple`."""
    return np.pad(indices, (0, -len(indices) % multiple), mode="edge")


def spread(fn: Callable[[Any, Any], Any], *, backend: str = "shard_map") -> Callable[..., Any]:
    """Returns jitted `fn(replicated, batch) -> outputs`, each device on its share of the batch.

    Leaves of `batch` and of the outputs start with the axis N, a multiple of the device count.
    """
    _check(backend)
    if backend == "shard_map":
        specs = PartitionSpec(), PartitionSpec(AXIS)
        return jax.jit(_shard_map(fn, data_mesh(), in_specs=specs, out_specs=PartitionSpec(AXIS)))
    on_devices = jax.pmap(fn, axis_name=AXIS, in_axes=(None, 0), devices=devices())

    def spread_fn(replicated: Any, batch: Any) -> Any:
        return jax.tree.map(_merge, on_devices(replicated, jax.tree.map(_split, batch)))

    return spread_fn


def spread_step(
    step: Callable[..., tuple[Any, Any]], *, backend: str = "shard_map"
) -> Callable[..., tuple[Any, Any]]:
    """Returns jitted `step(state, batch, *fixed) -> (state, metrics)`; it donates the state.

    It runs on the devices of all processes, each of which gives its own part of the batch; `state`
    and `fixed` come from `replicate` with `everywhere`. `step` sees its device's share of the
    batch; gradients and metrics must pass through `jax.lax.pmean` or `psum` over `AXIS`, for what
    it returns is taken as equal on all devices.
    """
    _check(backend)

    def on_device(state: Any, batch: Any, fixed: Any) -> tuple[Any, Any]:
        return step(state, batch, *fixed)

    on_device.__name__ = getattr(step, "__name__", "step")  # what profiles call the program
    if backend == "pmap":
        on_devices = jax.pmap(
            on_device,
            axis_name=AXIS,
            in_axes=(None, 0, None),
            out_axes=None,
            devices=devices(everywhere=True),
            donate_argnums=0,
        )
        return lambda state, batch, *fixed: on_devices(state, jax.tree.map(_split, batch), fixed)
    mesh = data_mesh(everywhere=True)
    specs = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()
    on_mesh = jax.jit(
        _shard_map(on_device, mesh, in_specs=specs, out_specs=PartitionSpec()), donate_argnums=0
    )
    share = partial(
        jax.make_array_from_process_local_data, NamedSharding(mesh, PartitionSpec(AXIS))
    )
    return lambda state, batch, *fixed: on_mesh(state, jax.tree.map(share, batch), fixed)


def check_share(batch_size: int, name: str = "batch_size") -> None:
    """Raises UserError unless the devices of all processes can share batches of `batch_size`.

    Args:
        batch_size: over all devices of all processes.
        name: of the argument, for the error.
    """
    here, everywhere = len(devices()), len(devices(everywhere=True))
    if everywhere != jax.process_count() * here:
        raise UserError(
            f"{here} of {everywhere} devices are in this one of {jax.process_count()} processes; "
            "expected the same number in each"
        )
    if batch_size % everywhere:
        raise UserError(f"{name}: {batch_size}, expected a multiple of the {everywhere} devices")


def _shard_map(
    fn: Callable[..., Any], mesh: Mesh, *, in_specs: Any, out_specs: PartitionSpec
) -> Callable[..., Any]:
    # Unchecked, a gradient stays each device's own until the step averages it, as in pmap.
    return jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _from_first(tree: Any) -> Any:
    """Returns the first device's `tree` to all; the first collective, at which devices meet."""

    def keep(tree: Any, _: None) -> Any:
        first = jax.lax.axis_index(AXIS) == 0
        return jax.lax.psum(jax.tree.map(lambda x: jnp.where(first, x, 0), tree), AXIS)

    mesh, specs = data_mesh(everywhere=True), (PartitionSpec(), PartitionSpec(AXIS))
    return jax.jit(_shard_map(keep, mesh, in_specs=specs, out_specs=PartitionSpec()))(tree, None)


def _split(leaf: Any) -> Any:
    return leaf.reshape(len(devices()), -1, *leaf.shape[1:])


def _merge(leaf: Any) -> Any:
    return leaf.reshape(-1, *leaf.shape[2:])


def _check(backend: str) -> None:
    if backend not in BACKENDS:
        raise UserError(f"backend: {backend!r}, expected one of {', '.join(BACKENDS)}")
