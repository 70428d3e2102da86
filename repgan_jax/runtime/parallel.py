"""Data parallelism: one program a device, each on its share of the batch, over a 1-D mesh.

Two backends give the same bits: "shard_map", and "pmap" for those who know it better.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.backend import backends, clear_backends
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from repgan_jax.errors import UserError

AXIS = "data"  # for collectives inside a step: `jax.lax.pmean(grads, parallel.AXIS)`
BACKENDS = ("shard_map", "pmap")
T = TypeVar("T")


def devices(*, everywhere: bool = False) -> list[jax.Device]:
    """Returns the devices that share the work: of this process, or `everywhere` in the run."""
    return jax.devices() if everywhere else jax.local_devices()


def expect_backend() -> None:
    """Raises UserError where JAX cannot work on what it was told to, as by JAX_PLATFORMS."""
    try:
        jax.devices()
        return
    except (RuntimeError, AssertionError) as error:  # of a platform that is not there
        wanted, reason = jax.config.jax_platforms, " ".join(str(error).split())[:200]
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


def spread_axis(tree: Any, axis: int) -> Any:
    """Returns `tree`, the same in all processes, with an axis of each leaf spread over all devices.

    For programs that say nothing of devices.
    """
    spec = PartitionSpec(*[None] * axis, AXIS)
    sharding = NamedSharding(data_mesh(everywhere=True), spec)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__), tree
    )


def padded(indices: np.ndarray, multiple: int) -> np.ndarray:
    """Returns `indices` [N] with the last one repeated until N is a multiple of `multiple`."""
    return np.pad(indices, (0, -len(indices) % multiple), mode="edge")


def ahead(pool: Executor, calls: Iterable[Callable[[], T]], count: int) -> Iterator[T]:
    """Yields the results of `calls` in their order, while `pool` works on up to `count` more."""
    pending = deque()
    try:
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # of no use to anyone where the caller stops early
        for future in pending:
            future.cancel()


class Busy:
    """Tells for which share of its life the devices had something to compute."""

    def __init__(self) -> None:
        self._watcher = ThreadPoolExecutor(1)
        self._seconds, self._began, self._idle_since = 0.0, None, 0.0

    def watch(self, fn: Callable[..., T]) -> Callable[..., T]:
        """Returns `fn`, which returns arrays at once; that they are computed is noted here."""

        def watched(*args: Any) -> T:
            outputs, now = fn(*args), time.perf_counter()  # compiled by then, the first time
            self._began = self._began or now
            self._watcher.submit(self._wait, outputs, now)
            return outputs

        return watched

    def share(self) -> float:
        """Returns the share, from the first call's start to now; 0 where there was none."""
        self._watcher.shutdown()
        return self._seconds / (time.perf_counter() - self._began) if self._began else 0.0

    def _wait(self, outputs: Any, started: float) -> None:
        jax.block_until_ready(outputs)
        now = time.perf_counter()
        self._seconds += now - max(started, self._idle_since)  # calls do not overlap on a device
        self._idle_since = now


def spread(fn: Callable[[Any, Any], Any], *, backend: str = "shard_map") -> Callable[..., Any]:
    """Returns jitted `fn(replicated, batch) -> outputs`, each device on its share of the batch.

    Leaves of `batch` and of the outputs start with the axis N, a multiple of the device count.
    """
    _check(backend)
    if backend == "shard_map":
        return jax.jit(_shard_map(fn, data_mesh(), out_specs=PartitionSpec(AXIS)))
    on_devices = jax.pmap(fn, axis_name=AXIS, in_axes=(None, 0), devices=devices())

    def spread_fn(replicated: Any, batch: Any) -> Any:
        return jax.tree.map(_merge, on_devices(replicated, jax.tree.map(_split, batch)))

    return spread_fn


def spread_step(
    step: Callable[[Any, Any], tuple[Any, Any]], *, backend: str = "shard_map"
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns jitted `step(state, batch) -> (state, metrics)`; it donates the replicated state.

    It runs on the devices of all processes, each of which gives its own part of the batch; a
    state comes from `replicate` with `everywhere`. `step` sees its device's share of the batch;
    gradients and metrics must pass through `jax.lax.pmean` or `psum` over `AXIS`, for what it
    returns is taken as equal on all devices.
    """
    _check(backend)
    if backend == "pmap":
        on_devices = jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=devices(everywhere=True),
            donate_argnums=0,
        )
        return lambda state, batch: on_devices(state, jax.tree.map(_split, batch))
    mesh = data_mesh(everywhere=True)
    on_mesh = jax.jit(_shard_map(step, mesh, out_specs=PartitionSpec()), donate_argnums=0)
    share = partial(
        jax.make_array_from_process_local_data, NamedSharding(mesh, PartitionSpec(AXIS))
    )
    return lambda state, batch: on_mesh(state, jax.tree.map(share, batch))


def _shard_map(
    fn: Callable[[Any, Any], Any], mesh: Mesh, *, out_specs: PartitionSpec
) -> Callable[..., Any]:
    # Unchecked, a gradient stays each device's own until the step averages it, as in pmap.
    return jax.shard_map(
        fn,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=out_specs,
        check_vma=False,
    )


def _from_first(tree: Any) -> Any:
    """Returns the first device's `tree` to all; the first collective, at which devices meet."""

    def keep(tree: Any, _: None) -> Any:
        first = jax.lax.axis_index(AXIS) == 0
        return jax.lax.psum(jax.tree.map(lambda x: jnp.where(first, x, 0), tree), AXIS)

    mesh = data_mesh(everywhere=True)
    return jax.jit(_shard_map(keep, mesh, out_specs=PartitionSpec()))(tree, None)


def _split(leaf: Any) -> Any:
    return leaf.reshape(len(devices()), -1, *leaf.shape[1:])


def _merge(leaf: Any) -> Any:
    return leaf.reshape(-1, *leaf.shape[2:])


def _check(backend: str) -> None:
    if backend not in BACKENDS:
        raise UserError(f"config.backend: {backend!r}, expected one of {', '.join(BACKENDS)}")
