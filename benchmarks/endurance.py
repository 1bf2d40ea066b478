"""Whether memory stays flat while a run trains, evaluates and saves for an hour.

    python benchmarks/endurance.py                 # an hour
    python benchmarks/endurance.py --minutes 5 --data photos.zip

Trains `configs/simclr_digits.py` or another config with an evaluation and a checkpoint every other
epoch, until the time is over; then prints the process's memory, threads and open files by tenths
of the time. Linux only: it reads /proc.
"""

import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import tyro

import jaxcl
from jaxcl.data import parse_source
from jaxcl.experiment import read_config
from jaxcl.training.logs import read_metrics

EPOCHS = 1_000_000
TENTHS = 10


@dataclass(frozen=True)
class Options:
    """What to train, and for how long."""

    config: str = str(Path(__file__).parents[1] / "configs" / "simclr_digits.py")
    """Config file."""
    data: str = ""
    """Other data than the config's: a folder or zip of class folders."""
    minutes: float = 60.0
    """How long to train."""
    every_s: float = 5.0
    """Seconds between two looks at the process."""


def look() -> tuple[float, int, int]:
    """MiB in memory, threads and open files of this process."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), files


def main(options: Options) -> None:
    """Trains, looks, and prints what was seen."""
    experiment = read_config(options.config)
    data = experiment.data
    if options.data:
        data = replace(data, source=parse_source(options.data))
    experiment = replace(
        experiment, data=data, optim=replace(experiment.optim, epochs=EPOCHS),
        probe=replace(experiment.probe, every=2), train=replace(experiment.train, log_every=100),
    )  # fmt: skip
    seen: list[tuple[float, int, int]] = []

    def watch() -> None:
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            time.sleep(options.every_s)
            seen.append(look())
        os.kill(os.getpid(), signal.SIGTERM)

    with tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=watch, daemon=True).start()
        outcome = jaxcl.fit(experiment, Path(folder) / "run")
        rows = read_metrics(outcome.run)
        steps = int(outcome.state.step)
    evaluations = sum(row["kind"] == "eval" for row in rows)
    print(f"jax {jax.__version__}, {steps:,} steps, {evaluations} evaluations and checkpoints")
    print("| minutes | MiB | threads | open files |\n|---:|---:|---:|---:|")
    for part, looks in enumerate(np.array_split(np.array(seen), TENTHS), 1):
        memory, threads, files = np.median(looks, axis=0)
        at = part * options.minutes / TENTHS
        print(f"| {at:.1f} | {memory:,.0f} | {threads:.0f} | {files:.0f} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
