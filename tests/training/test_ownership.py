"""A run directory has one owner at a time."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jaxcl import UserError
from jaxcl.training import ownership
from jaxcl.training.ownership import LOCK, Owner, owning

HOLDER = """
import sys, time
from pathlib import Path
from jaxcl.training.ownership import Owner
owner = Owner(Path(sys.argv[1]), print)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A run directory that another process owns, and that process."""
    run = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield run, process
        process.kill()


def test_a_second_one_is_refused_and_a_killed_one_is_followed(held):
    run, process = held
    words = rf"in use by process {process.pid} on {socket.gethostname()} since 20.*another --dir"
    with pytest.raises(UserError, match=words):
        Owner(run, print)
    process.kill()
    process.wait()
    told = []
    owner = Owner(run, told.append)
    assert f"was left by process {process.pid} on" in told[0] and "taken over" in told[0]
    assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()
    owner.check()
    owner.release()
    assert not (run / LOCK).exists()


def test_two_in_one_process_are_two(tmp_path):
    with owning(tmp_path), pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        Owner(tmp_path, print)
    with owning(tmp_path) as check:
        check()


def test_nothing_is_left_of_folders_that_were_made_for_it(tmp_path):
    run = tmp_path / "runs" / "one"
    with owning(run):
        assert run.is_dir()
    assert list(tmp_path.iterdir()) == []
    with owning(run):
        (run / "config.json").write_text("{}")
    assert [p.name for p in run.iterdir()] == ["config.json"]


def test_a_directory_that_is_removed_or_made_anew_is_noticed(tmp_path):
    run = tmp_path / "run"
    owner = Owner(run, print)
    shutil.rmtree(run)
    with pytest.raises(UserError, match="run was removed while it was trained in"):
        owner.check()
    other = Owner(run, print)
    with pytest.raises(UserError, match="taken over by another process"):
        owner.check()
    owner.release()
    other.check()
    other.release()


@pytest.mark.parametrize("alive", [True, False])
def test_an_owner_on_another_host_counts_as_gone_without_a_sign_of_life(
    tmp_path, monkeypatch, alive
):
    lock = tmp_path / LOCK
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 7, "start": "yesterday"}))
    monkeypatch.setattr(ownership, "PATIENCE", 1.5)
    if alive:
        timer = threading.Timer(0.3, lambda: os.utime(lock, (1, 1)))
        timer.start()
        with pytest.raises(UserError, match="in use by process 7 on elsewhere since yesterday"):
            Owner(tmp_path, print)
        timer.join()
        return
    told = []
    Owner(tmp_path, told.append).release()
    assert "waiting 1.5 s" in told[0] and "taken over" in told[1]


def test_an_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT", 0.05)
    owner = Owner(tmp_path, print)
    os.utime(tmp_path / LOCK, (1, 1))
    until = time.monotonic() + 30
    while (tmp_path / LOCK).stat().st_mtime == 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert (tmp_path / LOCK).stat().st_mtime > 1
    owner.release()


def test_a_lock_that_is_no_lock_is_told_and_taken(tmp_path, monkeypatch):
    (tmp_path / LOCK).write_bytes(b"\xff[")
    monkeypatch.setattr(ownership, "PATIENCE", 0.1)
    told = []
    Owner(tmp_path, told.append).release()
    assert "belongs to another process" in told[0]


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="run is no directory; use another --dir"):
        Owner(tmp_path / "run", print)
