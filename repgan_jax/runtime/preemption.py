"""SIGTERM, which comes before a machine is taken away, ends a run within seconds."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

GRACE = 4.0  # seconds until a main thread that compiles, say, is not waited for any more
GRACE_DEFERRED = 8.0  # the same, where it has something to save first


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, no error."""


@contextlib.contextmanager
def terminable(farewell: str) -> Iterator[None]:
    """Raises `Terminated` at SIGTERM; where nobody can, says `farewell` and exits with 0.

    Nothing needs to be rescued: what is written is whole, and the rest is made again.
    """
    listen, tell = os.pipe()
    os.set_blocking(tell, False)
    over = threading.Event()

    def watch() -> None:
        # what is read here comes at once, even while the main thread cannot be reached
        for number in iter(lambda: os.read(listen, 1), b""):
            grace = GRACE if signal.getsignal(signal.SIGTERM) is stop else GRACE_DEFERRED
            if number[0] == signal.SIGTERM and not over.wait(grace):
                print(farewell, flush=True)
                os._exit(0)

    def stop(*_: object) -> None:
        raise Terminated

    handler = signal.signal(signal.SIGTERM, stop)
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        os.close(tell)
        thread.join()
        os.close(listen)


@contextlib.contextmanager
def deferred() -> Iterator[threading.Event]:
    """Yields an event that SIGTERM sets; `Terminated` is raised at the end, no sooner."""
    told = threading.Event()
    handler = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, handler)
    if told.is_set():
        raise Terminated
