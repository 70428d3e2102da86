"""Runs the command in forked processes, which start at once, and ends them at given moments.

Each line on standard input is a JSON list of processes {"arguments", "devices", "environment",
"log", "watched", "moment", "delay", "signal"}; the answer is a line with their exit codes. A
process gets `signal`, `delay` seconds after it has opened, renamed or removed a file under
`watched` for the `moment`th time; where `watched` is "batch", before that batch of a training.
"""

import json
import os
import sys
import tempfile
import threading

import gcsfs  # noqa: F401  imported once for all, as below
import jax

from repgan_jax import main
from repgan_jax.stages import autoshot, fewshot, generate, repair, verify  # noqa: F401
from repgan_jax.training import batches

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")


def end_at(watched: str, moment: int, delay: float, signal: int) -> None:
    left = moment

    def watch(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in EVENTS and watched in str(arguments[0]):
            left -= 1
            if left == 0:
                threading.Timer(delay, os.kill, (os.getpid(), signal)).start()

    sys.addaudithook(watch)


def end_before(batch: int, signal: int) -> None:
    make_batches = batches.make_batches

    def ending(*arguments, **options):
        for i, found in enumerate(make_batches(*arguments, **options), 1):
            if i == batch:
                os.kill(os.getpid(), signal)
            yield found

    batches.make_batches = ending


def start(process: dict) -> int:
    """Returns the process id of the command."""
    if child := os.fork():
        return child
    code = 1
    try:
        log = os.open(process["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(process["environment"])
        tempfile.tempdir = None  # it may have been looked up before
        jax.config.update("jax_num_cpu_devices", process["devices"])
        if process["watched"] == "batch":
            end_before(process["moment"], process["signal"])
        elif process["moment"]:
            end_at(*(process[name] for name in ("watched", "moment", "delay", "signal")))
        code = main.main(process["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for line in sys.stdin:
    children = [start(process) for process in json.loads(line)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)
