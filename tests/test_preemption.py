"""SIGTERM is heard in Python code, and where the main thread cannot hear it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from repgan_jax import preemption

BUSY = """
import contextlib, hashlib
from repgan_jax import preemption
preemption.GRACE = 0.3
with preemption.terminable("farewell"):
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


def test_a_main_thread_that_does_not_hear_is_not_waited_for():
    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.communicate(timeout=15)[0] == "farewell\n"
    assert process.returncode == 0
