"""Several processes of one run: who they are, how they wait, and that none waits for a dead one.

They speak through the key-value store of `jax.distributed`, which process 0 keeps: nothing here
runs on a device; for what does, in training, see `collective`. In a run of one process, nothing
here does anything.
"""

import contextlib
import itertools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from jax._src.distributed import global_state  # the store has no public name yet

from repgan_jax.errors import UserError
from repgan_jax.runtime import parallel

TRY_AGAIN = 75  # exit code of a process whose peer failed: sysexits' EX_TEMPFAIL
_BEAT = 0.5  # seconds between signs of life
_OF_JAX = 120  # seconds after which JAX ends all processes, should the signs of life fail
_WEEK = 7 * 24 * 3600 * 1000  # milliseconds; whom one waits for is watched meanwhile
_SIGNS, _VERDICT = "repgan_jax/signs", "repgan_jax/verdict"
_FAILED, _LEFT = "failed", "left"

T = TypeVar("T")
_calls = itertools.count()  # all processes make the same calls in the same order
_last_sign = ""  # in place of signs of life
_lost_after = 0.0
_watcher = threading.Thread()


def start(
    address: str = "", processes: int = 0, process: int = -1, lost_after: float = 30.0
) -> None:
    """Joins the other processes of a run, before JAX's first use.

    Args:
        address: host:port of process 0; "" where TPU, Slurm or Kubernetes tell all three.
        processes: their number.
        process: the index of this one, from 0.
        lost_after: seconds without a sign of life after which a process counts as dead.

    Raises:
        UserError: nobody tells; they do not find each other.
    """
    global _lost_after, _watcher
    _lost_after = lost_after
    given = (address or None, processes or None, process if process >= 0 else None)
    jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM for itself
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=_OF_JAX)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"config.distributed: {str(error).splitlines()[0]} "
            "Set config.cluster.address, processes and process, where no cluster sets them"
        ) from error
    parallel.expect_backend()  # all of them at once, for this waits for the others
    _watcher = threading.Thread(target=_watch, daemon=True)
    _watcher.start()


def size() -> int:
    """Returns the number of processes."""
    return global_state.num_processes


def leads() -> bool:
    """Returns whether this is process 0, which does what only one may do."""
    return global_state.process_id == 0


def mine(items: Sequence[T]) -> Sequence[T]:
    """Returns this process's share of `items`: every n-th."""
    return items[global_state.process_id :: size()]


def by_leader(work: Callable[[], T]) -> T:
    """Returns what `work` returns, as JSON can say it: process 0 does it, the others wait."""
    if size() == 1:
        return work()
    key = f"repgan_jax/results/{next(_calls)}"
    if leads():
        result = work()
        _client().key_value_set(key, json.dumps(result))
        return result
    return json.loads(_client().blocking_key_value_get(key, _WEEK))


def wait() -> None:
    """Waits until all processes have come here."""
    if size() > 1:
        _client().wait_at_barrier(f"repgan_jax/{next(_calls)}", _WEEK)


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Lets the others' death end this process as `start` says, not as the error that it causes.

    Where all devices work together, gloo fails at once when a peer is gone; NCCL waits.
    """
    try:
        yield
    except (ValueError, jax.errors.JaxRuntimeError):
        if size() > 1:
            time.sleep(_lost_after + 6 * _BEAT)  # until the watch has noticed, if that is why
        raise


def leave(code: int, *, failed: bool) -> None:
    """Waits for all processes to be done; ends them all, this one with `code`, if it `failed`."""
    global _last_sign
    if size() == 1:
        return
    if failed:
        if sys.exception():
            traceback.print_exc()
        _last_sign = _FAILED
        time.sleep(3 * _BEAT)  # until all have heard of it
        _exit(code)  # JAX's own way out would wait for those who are gone
    wait()
    _last_sign = _LEFT
    _watcher.join()  # a call of its that outlives Python ends in SIGABRT
    jax.distributed.shutdown()


def _client() -> Any:
    """Returns the client of the key-value store, which has no types."""
    return global_state.client


def _watch() -> None:
    """Gives signs of life; ends this process where process 0 finds that another one gives none."""
    client, seen = _client(), dict[str, tuple[str, float]]()
    for beat in itertools.count():
        sign = _last_sign or str(beat)
        try:
            client.key_value_set(f"{_SIGNS}/{global_state.process_id}", sign, allow_overwrite=True)
            if leads():
                verdict = _judge(client.key_value_dir_get(_SIGNS), seen)
                client.key_value_set(_VERDICT, verdict, allow_overwrite=True)
            else:
                verdict = client.blocking_key_value_get(_VERDICT, _WEEK)
        except jax.errors.JaxRuntimeError:
            return  # it is over; JAX itself ends those whose process 0 has died
        if sign == _LEFT:
            return
        if verdict and sign != _FAILED:
            _give_up(verdict)
        time.sleep(_BEAT)


def _judge(signs: Sequence[tuple[str, str]], seen: dict[str, tuple[str, float]]) -> str:
    """Returns why the run cannot go on, "" where it can; `seen` is of the times before."""
    now = time.monotonic()
    for name, sign in signs:
        who = f"process {name.rpartition('/')[2]} of {size()}"
        if sign == _FAILED:
            return f"{who} has failed or was stopped; see its own output"
        known, since = seen.get(name, ("", now))
        if known != sign:
            seen[name] = (sign, now)
        elif sign != _LEFT and now - since > _lost_after:
            return f"no sign of life from {who} for {_lost_after:g} s"
    return ""


def _give_up(reason: str) -> None:
    print(f"error: {reason}; run the same command again to go on", file=sys.stderr)
    if leads():
        time.sleep(3 * _BEAT)  # without process 0 the others would not hear why
    _exit(TRY_AGAIN)


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
