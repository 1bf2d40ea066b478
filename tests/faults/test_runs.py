"""Runs that are killed, damaged or started twice end with the same bits and rows, or one line.

A few of each in the extended part; JAXCL_KILLS, JAXCL_DAMAGES and JAXCL_PAIRS say how many. The
seed is printed, and JAXCL_SEED=NUMBER repeats it; `-s` shows the counts.
"""

import collections
import os
import random
import shutil
import signal
import time

import pytest
import tiny
from six_runs import EXPERIMENTS, begun

from jaxcl import UserError, fit, load
from jaxcl.training.logs import read_metrics

pytestmark = [
    pytest.mark.extended,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of orbax
]
KILLS = int(os.environ.get("JAXCL_KILLS", 6))
DAMAGES = int(os.environ.get("JAXCL_DAMAGES", 8))
PAIRS = int(os.environ.get("JAXCL_PAIRS", 1))
SEED = int(os.environ.get("JAXCL_SEED", random.SystemRandom().randrange(1 << 32)))
LONGEST = 120.0


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Of each run that nothing disturbed: its directory, its rows, and the seconds it took."""
    found = {}
    for name in EXPERIMENTS:
        run = tmp_path_factory.mktemp(name) / "run"
        start = time.monotonic()
        process, told = begun(name, run)
        process.join(LONGEST)
        assert process.exitcode == 0, told.read_text()
        found[name] = run, tiny.untimed(read_metrics(run)), time.monotonic() - start
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_killed_at_any_moment(name, straight, tmp_path):
    """Killed again and again from its start to its end; each time it goes on where it was."""
    chance = random.Random(f"{SEED} {name}")
    whole, rows, length = straight[name]
    kills, runs, during = 0, 0, collections.Counter()
    wanted = KILLS // len(EXPERIMENTS) + (list(EXPERIMENTS).index(name) < KILLS % len(EXPERIMENTS))
    while kills < wanted or not runs:
        run, seen = tmp_path / str(runs), set()
        while True:
            process, told = begun(name, run)
            process.join(chance.uniform(0.2, 1) * length if kills < wanted else LONGEST)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                assert kills < wanted, f"seed {SEED}: it hangs: {told.read_text()}"
                kills += 1
            process.join()
            text = told.read_text()
            assert "Traceback" not in text and process.exitcode in (0, -signal.SIGKILL), text
            seen.add(len(read_metrics(run)) if run.exists() else -1)
            if process.exitcode == 0:
                break
        during.update(len(rows) > lines >= 0 for lines in seen)
        assert tiny.untimed(read_metrics(run)) == rows, f"seed {SEED}"
        assert tiny.same_bits(load(run).state, load(whole).state), f"seed {SEED}"
        assert [path for path in run.rglob("*") if "damaged" in path.name] == []
        runs += 1
    print(f"\n{name}: {kills} kills, {runs} runs with the same rows and bits; seed {SEED}")


def damage(path, chance, others):
    """Changes a file as disks, editors and people do; says how."""
    content = path.read_bytes()
    at = chance.randrange(len(content) + 1)
    how = chance.choice(("flip", "cut", "zeros", "empty", "gone", "longer", "other", "blank"))
    if how == "flip" and content:
        at = min(at, len(content) - 1)
        path.write_bytes(
            content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        )
    elif how == "cut":
        path.write_bytes(content[:at])
    elif how == "zeros":
        path.write_bytes(content[:at] + bytes(len(content[at : at + 64])) + content[at + 64 :])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()
    elif how == "longer":
        path.write_bytes(content + chance.randbytes(9))
    elif how == "other":
        path.write_bytes(chance.choice(others).read_bytes())
    else:
        path.write_bytes(bytes(len(content)))
    return how


def test_damaged_files_give_right_numbers_or_one_line(straight, tmp_path):
    """One to three files of a run that is done are damaged; then it is read, and trained again."""
    whole, rows, _ = straight["simclr"]
    state, chance, ends = load(whole).state, random.Random(f"{SEED} damage"), collections.Counter()
    for number in range(DAMAGES):
        run = tmp_path / str(number)
        shutil.copytree(whole, run)
        files = sorted(path for path in run.rglob("*") if path.is_file())
        chosen = chance.sample(files, chance.choice((1, 1, 1, 2, 3)))
        what = [f"{damage(p, chance, files)} {p.relative_to(run)}" for p in chosen if p.exists()]
        where = f"seed {SEED}, damage {number}: {what}"
        start = time.monotonic()
        try:
            found = load(run)
            step = int(found.state.step)
            assert step in (16, 18, 20), where
            if step == 20:
                assert tiny.same_bits(found.state, state), where
            ends["read"] += 1
        except UserError as error:
            assert "\n" not in str(error), where
            ends["not read"] += 1
        try:
            assert fit(EXPERIMENTS["simclr"], run).finished, where
            kept = tiny.untimed(read_metrics(run))
            assert tiny.same_bits(load(run).state, state), where
            assert [row for row in rows if row in kept] == kept, where
            ends["trained to the same bits"] += 1
        except UserError as error:
            assert "\n" not in str(error), where
            ends["refused"] += 1
        assert time.monotonic() - start < LONGEST, where
        shutil.rmtree(run)
    print(f"\n{DAMAGES} damages: {dict(ends)}; seed {SEED}")


def test_two_started_at_once(straight, tmp_path):
    """One trains, as if alone; the other one is told by whom the directory is in use."""
    chance = random.Random(f"{SEED} pairs")
    whole, rows, _ = straight["simclr"]
    for number in range(PAIRS):
        run = tmp_path / str(number)
        one = begun("simclr", run)
        time.sleep(chance.uniform(0, 0.5))
        other = begun("simclr", run)
        for process, _ in (one, other):
            process.join(LONGEST)
        ends = sorted((process.exitcode, told.read_text()) for process, told in (one, other))
        assert [end[0] for end in ends] == [0, 2], ends
        assert f"error: {run} is in use by process" in ends[1][1], ends
        assert tiny.untimed(read_metrics(run)) == rows
        assert tiny.same_bits(load(run).state, load(whole).state)
    print(f"\n{PAIRS} pairs; seed {SEED}")
