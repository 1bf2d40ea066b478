"""Programs run by several processes, which meet over gloo on this machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = """
from dataclasses import replace
import tiny
experiment = replace(
    tiny.experiment,
    train=replace(tiny.experiment.train, devices=0, log_every=1, save_every=0),
    optim=replace(tiny.experiment.optim, lr=0.1, epochs=4),
    probe=replace(tiny.experiment.probe, every=2),
)
"""


class Several:
    """Processes that run one program together.

    Args:
      folder: where their output goes.
      count: how many.
      words: the command, as of one of them; a function of the rank where they differ.
      slurm: they are a step of SLURM, which says who they are.
    """

    def __init__(self, folder, count, words, *, slurm=False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "XLA_FLAGS": re.sub(r"--xla_force_host\S+", "", os.environ["XLA_FLAGS"]),
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.told = [folder / f"{count}-{rank}.txt" for rank in range(count)]
        self.processes = []
        for rank, told in enumerate(self.told):
            command = words(rank) if callable(words) else words
            here = ["--hosts", address, "--rank", str(rank), "--of", str(count)]
            if slurm:
                step = {"JOB_ID": os.getpid(), "STEP_NODELIST": "localhost", "NTASKS": count,
                        "STEP_NUM_TASKS": count, "PROCID": rank, "LOCALID": rank}  # fmt: skip
                environment |= {f"SLURM_{name}": str(value) for name, value in step.items()}
                here = []
            with told.open("w") as file:
                self.processes.append(subprocess.Popen(
                    [sys.executable, "-W", "ignore", *map(str, command), *here],
                    env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
                ))  # fmt: skip

    def after(self, step, run):
        """Waits until the run has logged so many steps."""
        while f'"step": {step},' not in _read(run / "metrics.jsonl"):
            assert all(process.poll() is None for process in self.processes), self.texts
            time.sleep(0.01)
        return self

    def signal(self, rank, number):
        """Sends one of them a signal."""
        self.processes[rank].send_signal(number)
        return self

    def ends(self, within=240):
        """Exit status of each, in order; the seconds from now to the last one's end."""
        start = time.monotonic()
        try:
            found = [process.wait(within) for process in self.processes]
        except subprocess.TimeoutExpired:
            for process in self.processes:
                process.send_signal(signal.SIGKILL)
            raise AssertionError("\n".join(self.texts)) from None
        return found, time.monotonic() - start

    @property
    def texts(self):
        """What each printed."""
        return [_read(told) for told in self.told]


def _read(path):
    return path.read_text(errors="replace") if path.exists() else ""
