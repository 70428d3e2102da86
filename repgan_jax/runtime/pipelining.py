"""Work that waits for nobody: results computed ahead, and how busy the devices are."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def ahead(pool: Executor, calls: Iterable[Callable[[], T]], count: int) -> Iterator[T]:
    """Yields the results of `calls` in their order, while `pool` works on up to `count` more."""
    pending = deque[Future[T]]()
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
        self._seconds, self._began, self._idle_since = 0.0, 0.0, 0.0

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
