"""What calls and processes cost, for scripts of any framework: the standard library alone."""

import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

RUNS = 5
Figures = dict[str, float]


class Laps:
    """Takes the time at each call of `mark`; the first lap is a warm-up."""

    def __init__(self) -> None:
        self._moments = []

    def mark(self, *_: Any) -> None:
        """Ends a lap."""
        self._moments.append((time.process_time(), time.perf_counter()))

    def figures(self, units: int) -> Figures:
        """Returns what a unit of work costs, where a lap is `units` of them.

        Returns:
            Medians over laps, "cpu_s" of the process and "wall_s"; "peak_gib", the most memory that
            the process has taken so far.
        """
        laps = [
            (after[0] - before[0], after[1] - before[1])
            for before, after in pairwise(self._moments)
        ]
        cpu, wall = (statistics.median(column) / units for column in zip(*laps, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"cpu_s": cpu, "wall_s": wall, "peak_gib": peak}


def measure(call: Callable[[], Any], units: int = 1) -> Figures:
    """Returns what `call`, which does `units` of work, costs; see `Laps.figures`."""
    laps = Laps()
    for _ in range(RUNS + 1):
        call()
        laps.mark()
    return laps.figures(units)


def show(**fields: Any) -> None:
    """Prints a JSON line."""
    rounded = {key: round(x, 4) if isinstance(x, float) else x for key, x in fields.items()}
    print(json.dumps(rounded), flush=True)


def run(command: Sequence[str], **environment: str) -> tuple[str, Figures]:
    """Returns what `command` printed, and what it cost: "cpu_s", "wall_s", "peak_gib".

    Raises:
        SystemExit: it failed; with what it said.
    """
    wall = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **pipes)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{printed[-2000:]}")
    return printed, {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - wall,
        "peak_gib": usage.ru_maxrss / 2**20,
    }
