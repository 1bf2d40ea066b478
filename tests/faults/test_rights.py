"""Rights that are missing: one line that names the file, and nothing lost once they are back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from jaxcl import UserError, fit, load
from jaxcl.data import Images
from jaxcl.training.logs import read_metrics

EXPERIMENT = tiny.with_("train", save_every=5, keep=3, tensorboard=True)
ROOT = Path(__file__).parents[2]
NO_EXCEPTIONS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
"""Before a command of the superuser: file modes count for it as for all others."""
REFUSED, DONE = "ermission denied", "done"
CASES = {
    "no folder can be made": ("../locked", 0o500, REFUSED),
    "the run cannot be written to": (".", 0o500, REFUSED),
    "the run cannot be entered": (".", 0o000, REFUSED),
    "no checkpoint can be written": ("checkpoints", 0o500, REFUSED),
    "no checkpoint can be seen": ("checkpoints", 0o000, REFUSED),
    "a checkpoint cannot be read": ("checkpoints/10", 0o000, REFUSED),
    "the log cannot be read": ("metrics.jsonl", 0o000, REFUSED),
    "the log cannot be written to": ("metrics.jsonl", 0o400, DONE),  # it is written anew
    "the config cannot be read": ("config.json", 0o000, DONE),  # its second copy can
    "no events can be written": ("tensorboard", 0o500, REFUSED),
}


def attempted(case, whole, folder):
    """How a run ends that goes on from step 10 without a right, and that it goes on with it."""
    run = folder / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "15")
    place, mode, _ = CASES[case]
    locked = Path(os.path.normpath(run / place))
    locked.mkdir(exist_ok=True) if locked.name == "locked" else None
    before = locked.stat().st_mode
    locked.chmod(mode)
    asked = locked / "run" if locked.name == "locked" else run
    try:
        fit(EXPERIMENT, asked)
        told = "done"
    except UserError as error:
        told = str(error)
    finally:
        locked.chmod(before)
    assert fit(EXPERIMENT, run).finished
    assert tiny.untimed(read_metrics(run)) == tiny.untimed(read_metrics(whole))
    assert tiny.same_bits(load(run).state, load(whole).state)
    return told


def all_cases(folder):
    """In a process of its own: every case, a line each."""
    whole = folder / "whole"
    fit(EXPERIMENT, whole)
    for number, case in enumerate(CASES):
        (folder / str(number)).mkdir()
        print(f"{case}: {attempted(case, whole, folder / str(number))}")
    shutil.copytree(ROOT / "docs", folder / "data" / "a", ignore=lambda *names: [])
    closed = folder / "data" / "b"
    closed.mkdir()
    closed.chmod(0)
    try:
        Images(str(folder / "data")).split("train")
    except UserError as error:
        print(f"a class cannot be read: {error}")


@pytest.mark.extended
def test_a_missing_right_is_one_line_and_nothing_is_lost(tmp_path):
    prefix = NO_EXCEPTIONS if os.geteuid() == 0 else []
    if prefix and not shutil.which("setpriv"):
        pytest.skip("the superuser may do everything, and setpriv is not there to take that away")
    here = str(Path(__file__).parent)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), here])
    script = f"import test_rights, pathlib; test_rights.all_cases(pathlib.Path({str(tmp_path)!r}))"
    process = subprocess.run(
        [*prefix, sys.executable, "-W", "ignore", "-c", script],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    lines = process.stdout.splitlines()
    assert len(lines) == len(CASES) + 1, lines
    wanted = {case: end for case, (_, _, end) in CASES.items()} | {
        "a class cannot be read": REFUSED
    }
    for (case, end), line in zip(wanted.items(), lines, strict=True):
        assert line.startswith(f"{case}: ") and end in line, line
