"""Runs of stages in processes of their own."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# For gcsfs: no look for credentials, nor for kinds of buckets that an emulator does not have.
os.environ |= {"NO_GCE_CHECK": "true", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@dataclasses.dataclass
class Forks:
    """Runs stages in `count` processes of one run that start at once; see `forked.py`."""

    server: subprocess.Popen
    chain: object
    source: Path  # a run whose heads are used
    environment: dict = dataclasses.field(default_factory=dict)  # of runs at a url

    def __call__(
        self,
        workdir,
        *,
        url="",
        count=1,
        devices=1,
        flags="",
        stages="generate",
        ends=None,
        watched="",
        changes=None,
        **fields,
    ):
        """Returns [(exit code, output)]; `ends` {process: (moment, delay, signal)}.

        `watched` is what these moments are of, the workdir where nothing is said; `changes`
        {process: fields} are of single processes; each has so many `devices`, and XLA's `flags`.
        Where the run's folder is at a `url`, `workdir` is where their temporary files go, and
        their output beside it.
        """
        if url:
            workdir.mkdir(exist_ok=True)
        elif not workdir.exists():
            shutil.copytree(self.source / "fewshot", workdir / "fewshot")
        fields |= {"stages": stages, "generate__shard_size": 2}
        if count > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
            fields |= {"cluster__address": address, "cluster__processes": count}
        logs = [workdir.with_name(f"{workdir.name}.log{i}") for i in range(count)]
        common = {"watched": watched or str(workdir), "devices": devices}
        common["environment"] = {"XLA_FLAGS": flags}
        if url:
            common["environment"] |= {"TMPDIR": str(workdir), **self.environment}
        processes = []
        for i, log in enumerate(logs):
            own = {"cluster__process": i} if count > 1 else {}
            own = fields | own | (changes or {}).get(i, {})
            end = zip(("moment", "delay", "signal"), (ends or {}).get(i, (0, 0, 0)), strict=True)
            arguments = self.chain.arguments(url or workdir, **own)
            processes.append({"arguments": arguments, "log": str(log), **common, **dict(end)})
        self.server.stdin.write(json.dumps(processes) + "\n")
        self.server.stdin.flush()
        codes = json.loads(self.server.stdout.readline())
        return [(code, log.read_text()) for code, log in zip(codes, logs, strict=True)]


@pytest.fixture(scope="session")
def forks(tiny_chain, tiny_run):
    """Runs stages in processes of their own."""
    command = [sys.executable, str(ROOT / "tests" / "forked.py")]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as server:
        yield Forks(server, tiny_chain, tiny_run.workdir)


@pytest.fixture(scope="session")
def whole(forks, tmp_path_factory):
    """A dataset that one process has written undisturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    ((code, output),) = forks(workdir)
    assert code == 0, output
    return workdir
