"""What the loop costs beside the compiled step, and what share of a step the views are.

    python benchmarks/loop.py configs/simclr_cifar10_small.py --data FOLDER-OR-ZIP

Trains a few hundred steps and then calls the very same compiled program as often without the loop,
several times in turn; prints the medians and their ratio.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from jaxcl.experiment import read_config
from jaxcl.programs.train import with_options
from jaxcl.scale import data_mesh
from jaxcl.training import loop
from jaxcl.training.logs import read_metrics

STEPS, ROUNDS = 20, 5


class Kept(loop._Run):
    """A run that keeps its compiled program."""

    def _compiled(self, state: Any, inputs: Any, count: int) -> Any:
        self.program = super()._compiled(state, inputs, count)
        return self.program


def bare_step(run: Kept, state: Any, inputs: Any) -> tuple[Any, float]:
    """The program called in a chain, and seconds per call."""
    started = time.perf_counter()
    for _ in range(STEPS):
        state, done = run.program(state, run.feed.constants, inputs)
    jax.block_until_ready(done)
    return state, (time.perf_counter() - started) / STEPS


def views_alone(run: Kept, inputs: Any) -> float:
    """Seconds that the views of a batch take in a program of their own."""
    make = jax.jit(
        lambda key, constants, one: run.experiment.method.views(key, run.feed.batch(constants, one))
    )
    one = jax.tree.map(lambda x: x[0], inputs)
    key, times = jax.random.key(0), []
    for _ in range(STEPS):
        started = time.perf_counter()
        jax.block_until_ready(make(key, run.feed.constants, one))
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Prints a row per figure."""
    experiment = with_options(read_config(sys.argv[1]), sys.argv[2:], program="loop.py")
    train = replace(experiment.train, log_every=STEPS, tensorboard=False, save_every=10**9)
    experiment = replace(
        experiment,
        train=train,
        probe=replace(experiment.probe, every=0),
        optim=replace(experiment.optim, epochs=1, warmup_epochs=0),
    )
    size = experiment.data.batch_size
    mesh = data_mesh(train.devices)
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(mesh):
        run = Kept(experiment, Path(folder), mesh)
        run.total = min(run.total, STEPS * (ROUNDS + 1))
        state = run.go().state
        rows = [row["images_per_s"] for row in read_metrics(Path(folder)) if "images_per_s" in row]
        inside = [size / rate for rate in rows[1:]]
        inputs = run.feed.inputs(0, 1)
        state, _ = bare_step(run, state, inputs)  # warm
        bare = []
        for _ in range(ROUNDS):
            state, seconds = bare_step(run, state, inputs)
            bare.append(seconds)
        views = views_alone(run, inputs)
    a, b = statistics.median(inside), statistics.median(bare)
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, batch {size}")
    print(f"step inside the loop  {1e3 * a:8.2f} ms  (of {[round(1e3 * s, 1) for s in inside]})")
    print(f"compiled step alone   {1e3 * b:8.2f} ms  (of {[round(1e3 * s, 1) for s in bare]})")
    print(f"host overhead         {100 * (a / b - 1):8.2f} %")
    print(f"views alone           {1e3 * views:8.2f} ms, {100 * views / b:.1f} % of the step")


main()
