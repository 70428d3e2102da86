"""SIGTERM is heard in Python code, and where the main thread cannot hear it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from repgan_jax.runtime import preemption

BUSY = """
import contextlib, hashlib, sys
from repgan_jax.runtime import preemption
preemption.GRACE, preemption.GRACE_DEFERRED = 0.3, 0.6
inner = preemption.deferred if sys.argv[1] == "deferred" else contextlib.nullcontext
with preemption.terminable("farewell"), inner():
    for word in ("ready\\n", ""):  # the signal may come before the first call
        with contextlib.suppress(preemption.Terminated):
            print(word, end="", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # one call of minutes
"""


def test_it_is_raised_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(preemption.Terminated), preemption.terminable("unheard"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) == before


def test_deferred_it_is_raised_at_the_end():
    done = []
    with pytest.raises(preemption.Terminated), preemption.terminable("unheard"):
        with preemption.deferred() as told:
            assert not told.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert told.wait(5)
            done.append("saved")
        done.append("not reached")
    assert done == ["saved"]


def test_deferred_in_vain_it_leaves_no_trace():
    with preemption.terminable("unheard"):
        before = signal.getsignal(signal.SIGTERM)
        with preemption.deferred():
            pass
        assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("context", ["terminable", "deferred"])
def test_a_main_thread_that_does_not_hear_is_not_waited_for(context):
    command = [sys.executable, "-c", BUSY, context]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.communicate(timeout=15)[0] == "farewell\n"
    assert process.returncode == 0
