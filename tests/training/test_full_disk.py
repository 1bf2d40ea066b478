"""A run on a small disk that fills up: one line, the last good checkpoint kept, nothing hangs."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny

from jaxcl import UserError, fit, load
from jaxcl.training.logs import read_metrics

pytestmark = pytest.mark.extended
EXPERIMENT = tiny.with_("train", save_every=2, keep=3, tensorboard=True)
PROGRAM = """
import sys, tiny
from jaxcl import fit
from jaxcl.programs.answers import answered
from jaxcl.training import checkpoints
if sys.argv[2] == "unforeseen":
    checkpoints._check_room = lambda *asked: None
experiment = tiny.with_("train", save_every=2, keep=3, tensorboard=True)
answered(lambda: fit(experiment, sys.argv[1]))
"""


@pytest.fixture
def disk(tmp_path):
    """A folder on a file system of its own, and a function that gives it so many KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(size, *options):
        command = ["mount", "-t", "tmpfs", "-o", f"{''.join(options)}size={size}k", "tmpfs", folder]
        return subprocess.run(command, capture_output=True).returncode == 0

    if not sized(8):
        pytest.skip("no file system can be mounted here")
    yield folder, lambda size: sized(size, "remount,")
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(EXPERIMENT, run)
    return run


def test_each_time_it_gets_a_little_further(disk, whole):
    """From no room for the config to room for all; it ends as if it had had that from the start."""
    folder, resize = disk
    run, ended, threads = folder / "run", [], threading.active_count()
    for size in (8, 32, 64, 128, 256, 512, 4096):
        assert resize(size)
        try:
            assert fit(EXPERIMENT, run).finished
            break
        except UserError as error:
            ended.append(str(error))
            assert "\n" not in ended[-1]
            assert "No space left on device" in ended[-1] or "RESOURCE" in ended[-1]
        kept = [p for p in (run / "checkpoints").glob("*") if p.name.isdecimal()]
        for step in kept:
            assert int(load(run, at=int(step.name)).state.step) == int(step.name)
    assert len(ended) >= 3
    assert threading.active_count() <= threads + 1
    rows = [tiny.untimed(read_metrics(place)) for place in (run, whole)]
    assert rows[0] == rows[1]
    assert tiny.same_bits(load(run).state, load(whole).state)


@pytest.mark.parametrize(
    ("size", "how"),
    [(8, "told"), (64, "told"), (160, "told"), (60, "unforeseen"), (70, "unforeseen")],
)
def test_the_program_ends_at_once_with_one_line(disk, size, how):
    """Unforeseen: as where a quota is reached on a disk that has room."""
    folder, resize = disk
    assert resize(size)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder / "run"), how],
        env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr and "Exception ignored" not in process.stderr
    assert "ERROR" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: cannot write ")
