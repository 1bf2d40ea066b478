"""A run that was stopped, in whatever way, goes on to the very same numbers."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from jaxcl import fit, load
from jaxcl.data import feeds
from jaxcl.training.logs import read_metrics

ROADS = ("resident", "streamed")
WORKER = """
import sys, tiny
from jaxcl import fit
outcome = fit(tiny.with_("data", road=sys.argv[2]), sys.argv[1])
sys.exit(0 if outcome.finished else 130)
"""


def worker(run, road):
    """The tiny run in a process of its own."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = os.environ | {
        "PYTHONPATH": paths,
        "JAX_COMPILATION_CACHE_DIR": str(root / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKER, str(run), road],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Metrics and final state of runs that nothing stopped, per road."""
    results = {}
    for road in ROADS:
        run = tmp_path_factory.mktemp(road) / "run"
        process = worker(run, road)
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
        results[road] = (tiny.untimed(read_metrics(run)), load(run).state)
    return results


def test_both_roads_train_alike(straight):
    """The batches are the same; the programs around them differ, so the last bits may."""
    one, two = (straight[road][0] for road in ROADS)
    assert [row["step"] for row in one] == [row["step"] for row in two]
    np.testing.assert_allclose(
        [row["loss"] for row in one if row["kind"] == "train"],
        [row["loss"] for row in two if row["kind"] == "train"],
        rtol=1e-4,
    )


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    """Metrics and final state of a run on the eight devices of this process."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert fit(tiny.experiment, run).finished
    return tiny.untimed(read_metrics(run)), load(run).state


@pytest.mark.parametrize(
    ("road", "how"),
    [
        ("resident", signal.SIGTERM),
        pytest.param("resident", signal.SIGKILL, marks=pytest.mark.extended),
        pytest.param("streamed", signal.SIGINT, marks=pytest.mark.extended),
        ("streamed", signal.SIGKILL),
    ],
)
def test_stopped_anywhere_it_goes_on_bit_for_bit(straight, tmp_path, road, how):
    """Signals at random moments of two starts, checkpoint writes among them; then to the end."""
    run, chance = tmp_path / "run", random.Random(f"{road} {how}")
    for _ in range(2):
        process = worker(run, road)
        wait_until_training(run, process)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(how)
        _, told = process.communicate(timeout=300)
        # Stopped in training, finished before the signal, or ended by it right after training.
        assert process.returncode in (130, 0, -how), told
    process = worker(run, road)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    rows, state = straight[road]
    assert tiny.untimed(read_metrics(run)) == rows
    assert tiny.same_bits(load(run).state, state)


@pytest.mark.extended
def test_killed_while_a_checkpoint_is_written(straight, tmp_path):
    """The kill comes as soon as the unfinished folder of the next checkpoint is seen."""
    run = tmp_path / "run"
    for _ in range(2):
        process = worker(run, "resident")
        seen = wait_for_unfinished_checkpoint(run, process)
        process.kill()
        process.communicate(timeout=300)
        assert seen
    process = worker(run, "resident")
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    rows, state = straight["resident"]
    assert tiny.untimed(read_metrics(run)) == rows
    assert tiny.same_bits(load(run).state, state)


def wait_for_unfinished_checkpoint(run, process):
    """Whether the process was seen to write a checkpoint beyond those that were there."""
    folder = run / "checkpoints"
    known = {path.name for path in folder.glob("*")}
    while process.poll() is None:
        if any(path.name not in known and "tmp" in path.name for path in folder.glob("*")):
            return True
        time.sleep(0.001)
    return False


def wait_until_training(run, process):
    """Until the process has written a line of the log beyond those that were there."""
    before = len(read_metrics(run))
    while process.poll() is None:
        if len(read_metrics(run)) > before:
            return
        time.sleep(0.01)


@pytest.mark.parametrize(
    "stop_at",
    [pytest.param(4, marks=pytest.mark.extended), 5, pytest.param(6, marks=pytest.mark.extended)],
)
def test_an_epoch_border_is_no_special_place(monkeypatch, tmp_path, in_process, stop_at):
    """Stopped right before, at and after the end of the first epoch, on eight devices."""
    open_feed = feeds.open_feed

    def stopping_feed(*arguments, **options):
        feed = open_feed(*arguments, **options)
        inputs = feed.inputs

        def stopping(step, count):
            if step + count == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return inputs(step, count)

        feed.inputs = stopping
        return feed

    with monkeypatch.context() as patch:
        patch.setattr(feeds, "open_feed", stopping_feed)
        outcome = fit(tiny.experiment, tmp_path / "run")
    assert not outcome.finished
    assert int(outcome.state.step) == stop_at
    assert fit(tiny.experiment, tmp_path / "run").finished
    rows, state = in_process
    assert tiny.untimed(read_metrics(tmp_path / "run")) == rows
    assert tiny.same_bits(load(tmp_path / "run").state, state)
