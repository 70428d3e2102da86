"""What calls and processes cost, for scripts of any framework: the standard library alone."""

import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

RUNS = 5
Figures = dict[str, float]


class Laps:
    """Takes the time from call to call of `mark`; what comes before the first is a warm-up."""

    def __init__(self) -> None:
        self._laps, self._since = [], None

    def start(self) -> None:
        """Begins a lap, where something else came between."""
        self._since = time.process_time(), time.perf_counter()

    def mark(self, *_: Any) -> None:
        """Ends a lap and begins the next."""
        before = self._since
        self.start()
        if before:
            self._laps.append([now - then for now, then in zip(self._since, before, strict=True)])

    def figures(self, units: int) -> Figures:
        """Returns what a unit of work costs, where a lap is `units` of them.

        Returns:
            Medians over laps, "cpu_s" of the process and "wall_s"; "peak_gib", the most memory that
            the process has taken so far.
        """
        columns = zip(*self._laps, strict=True)
        cpu, wall = (statistics.median(column) / units for column in columns)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"cpu_s": cpu, "wall_s": wall, "peak_gib": peak}


def measure(call: Callable[[], Any], units: int = 1) -> Figures:
    """Returns what `call`, which does `units` of work, costs; see `Laps.figures`."""
    return alternate([call], units)[0]


def alternate(
    calls: Sequence[Callable[[], Any]], units: int = 1, runs: int = RUNS
) -> list[Figures]:
    """Returns what each of `calls` costs, taken in turn, so that the machine's moods hit all."""
    laps = [Laps() for _ in calls]
    for call in calls:
        call()  # compiles, and takes memory
    for _ in range(runs):
        for call, own in zip(calls, laps, strict=True):
            own.start()
            call()
            own.mark()
    return [own.figures(units) for own in laps]


def show(**fields: Any) -> None:
    """Prints a JSON line."""
    rounded = {key: round(x, 4) if isinstance(x, float) else x for key, x in fields.items()}
    print(json.dumps(rounded), flush=True)


def run(command: Sequence[str]) -> tuple[str, Figures]:
    """Returns what `command` printed, and what it cost: "cpu_s", "wall_s", "peak_gib".

    Raises:
        SystemExit: it failed; with what it said.
    """
    wall = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **pipes)
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
