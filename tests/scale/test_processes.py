"""Several processes train one run: the same numbers as one, one stop, one end."""

import re
import signal
import threading
import time
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny
from several import CONFIG, Several

from jaxcl import fit, load
from jaxcl.data import Data, Digits
from jaxcl.errors import UserError
from jaxcl.programs.hosts import joined
from jaxcl.scale import join, join_found, processes
from jaxcl.training.checkpoints import Checkpoints
from jaxcl.training.logs import read_metrics


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def one_process():
    """The same experiment, for this process."""
    found: dict = {}
    exec(CONFIG, found)
    experiment = found["experiment"]
    return replace(experiment, train=replace(experiment.train, devices=1))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that one process trains without a stop, and its log."""
    run = tmp_path_factory.mktemp("alone") / "run"
    return fit(one_process(), run).state, tiny.untimed(read_metrics(run))


def alike(run, alone):
    """The finished run equals that of one process, but for the order of sums."""
    state, rows = alone
    found = tiny.untimed(read_metrics(run))
    assert [(row["kind"], row["step"]) for row in found] == [
        (row["kind"], row["step"]) for row in rows
    ]
    losses = [[row["loss"] for row in some if "loss" in row] for some in (found, rows)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for mine, one in zip(
        jax.tree.leaves(load(run).state.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_allclose(mine, one, rtol=0, atol=1e-4)


def test_two_stop_at_one_step_when_one_is_asked_and_one_goes_on(config, tmp_path, alone):
    run = tmp_path / "run"
    two = Several(tmp_path, 2, ["train.py", config, "--dir", run])
    two.after(3, run).signal(1, signal.SIGTERM)
    assert two.ends()[0] == [130, 130], two.texts
    stopped = int(re.search(r"stopped after step (\d+) of 20 and saved", two.texts[0])[1])
    assert "of 2 processes" in two.texts[0] and "stopped" not in two.texts[1]
    assert load(run).state.step == stopped
    fit(one_process(), run)
    alike(run, alone)


@pytest.mark.extended
def test_four_end_when_one_is_killed_and_two_go_on_from_the_last_whole_checkpoint(
    config, tmp_path, alone
):
    run = tmp_path / "run"
    four = Several(tmp_path, 4, ["train.py", config, "--dir", run])
    four.after(11, run).signal(2, signal.SIGKILL)
    statuses, seconds = four.ends()
    assert statuses == [1, 1, -signal.SIGKILL, 1] and seconds < 60, four.texts
    for rank in (0, 1, 3):
        assert "error: process 2 of 4: no sign of life for 20 s" in four.texts[rank]
        assert "Traceback" not in four.texts[rank]
    newest = Checkpoints(run).steps[-1]
    for path in (run / "checkpoints" / str(newest) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))
    two = Several(tmp_path, 2, ["train.py", config, "--dir", run])
    assert two.ends()[0] == [0, 0], two.texts
    assert f"checkpoint {newest} is damaged and set aside" in two.texts[0]
    alike(run, alone)


@pytest.mark.extended
def test_all_end_soon_when_the_first_is_killed(config, tmp_path):
    run = tmp_path / "run"
    two = Several(tmp_path, 2, ["train.py", config, "--dir", run])
    two.after(3, run).signal(0, signal.SIGKILL)
    statuses, seconds = two.ends()
    assert statuses[1] != 0 and seconds < 60, two.texts


@pytest.mark.extended
@pytest.mark.parametrize("rank", [0, 1])
def test_both_stop_before_the_first_step(config, tmp_path, rank):
    run = tmp_path / "run"
    two = Several(tmp_path, 2, ["train.py", config, "--dir", run])
    while not (run / ".lock").exists():
        time.sleep(0.01)
    two.signal(rank, signal.SIGTERM)
    statuses, seconds = two.ends()
    assert statuses == [130, 130] and seconds < 60, two.texts
    assert "Traceback" not in "".join(two.texts) and not (run / ".lock").exists()


@pytest.mark.extended
@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--method.temperature", "0.1"], r"process 1 has method\.temperature=0\.1, and process 0"),
        (["--dir", "elsewhere"], r"process 1 does not see .*elsewhere as process 0 does"),
        (["--method.temprature", "0.1"], r"process 1 of 2: it ended with status 2"),
        (
            ["--train.devices", "1"],
            r"train\.devices=1 leaves process 1 of 2 without a device; use 0",
        ),
        (
            ["--train.start", "gone.pth"],
            r"process 1 has train\.start='a place', and process 0 has ''",
        ),
    ],
)
def test_an_error_of_one_ends_both(config, tmp_path, extra, told):
    run = tmp_path / "run"
    extra = [tmp_path / "elsewhere" if word == "elsewhere" else word for word in extra]
    two = Several(
        tmp_path, 2, lambda rank: ["train.py", config, "--dir", run, *(extra if rank else [])]
    )
    statuses, seconds = two.ends()
    assert statuses == [2, 2] and seconds < 60, two.texts
    assert not any("Traceback" in text for text in two.texts)
    assert re.search(told, two.texts[0]), two.texts
    assert not (run / "config.json").exists() and not (run / ".lock").exists()


OF_A_METHOD = """
import sys
from contract import experiment as made
sys.path.append("tests/methods")
from {module} import {name}
experiment = made({name})
"""
KINDS = {
    "streamed": CONFIG
    + """
experiment = replace(experiment, data=replace(experiment.data, road="streamed"))
""",
    "clusters between epochs": OF_A_METHOD.format(module="test_deepcluster", name="SMALL"),
    "queue and groups": OF_A_METHOD.format(module="test_moco", name="GROUPED"),
    "text": "from tiny_lines import experiment",
}


@pytest.mark.extended
@pytest.mark.parametrize("kind", KINDS)
def test_two_train_what_one_trains(kind, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(KINDS[kind])
    rows = []
    for count in (1, 2):
        run = tmp_path / str(count)
        words = ["train.py", config, "--dir", run, "--train.devices", count]
        several = Several(tmp_path, count, words)
        assert set(several.ends()[0]) == {0}, several.texts
        rows.append(tiny.untimed(read_metrics(run)))
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        assert one.get("loss", 0) == pytest.approx(two.get("loss", 0), rel=1e-4)


@pytest.mark.extended
def test_eval_by_two_is_eval_by_one(config, tmp_path):
    run = tmp_path / "run"
    data = Data(Digits(tiny.SIZE), batch_size=256)
    experiment = replace(tiny.with_("optim", lr=0.1, epochs=2), data=data)
    fit(experiment, run)
    protocol = ["eval.py", run, "--protocol", "simsiam", "--epochs", "1", "--batch-size", "32"]
    for words, kept in ((["eval.py", run], "evaluation.json"), (protocol, "protocol_*.json")):
        two = Several(tmp_path, 2, words)
        assert two.ends()[0] == [0, 0], two.texts
        (path,) = run.glob(kept)
        found = path.read_text()
        path.unlink()
        assert Several(tmp_path, 1, words).ends()[0] == [0]
        assert _close(found, path.read_text())


LOADING = """
import sys, jax, jaxcl
run = jaxcl.load(sys.argv[1])
print(jax.process_index(), jax.process_count(), int(run.state.step), run.state.step.device)
"""


@pytest.mark.extended
def test_each_process_of_a_slurm_step_loads(tmp_path):
    run = tmp_path / "run"
    fit(tiny.with_("optim", epochs=2), run)
    script = tmp_path / "script.py"
    script.write_text(LOADING)
    two = Several(tmp_path, 2, [script, run], slurm=True)
    assert two.ends()[0] == [0, 0], two.texts
    for rank in range(2):
        assert f"{rank} 2 10 " in two.texts[rank]


def _close(one, other):
    """Whether two files hold the same words, and numbers that are close."""
    number = r"-?\d+\.\d+(?:e-?\d+)?"
    assert re.sub(number, "x", one) == re.sub(number, "x", other)
    pairs = zip(re.findall(number, one), re.findall(number, other), strict=True)
    return all(abs(float(x) - float(y)) < 1e-2 * max(1, abs(float(y))) for x, y in pairs)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("host", 2, 2), "--rank 2 --of 2: every process needs its own rank"),
        (("host", 0, 0), "--rank 0 --of 0: every process needs its own rank"),
        (("host:x", 0, 2), "--hosts host:x is no host or host:port"),
        (("host:99999", 0, 2), "--hosts host:99999 is no host or host:port"),
        ((":80", 0, 2), "--hosts :80 is no host or host:port"),
        (("", 1, 2), "--rank and --of need the first process's address: add --hosts"),
    ],
)
def test_places_that_cannot_be(words, told):
    with pytest.raises(UserError, match=re.escape(told)):
        join(*words)


@pytest.mark.parametrize(
    ("text", "address"),
    [("host", "host:8476"), ("host:80", "host:80"), ("::1", "[::1]:8476"), ("[::1]", "[::1]:8476"),
     ("[::1]:80", "[::1]:80")],
)  # fmt: skip
def test_the_port_of_the_first_process_may_be_left_away(text, address, monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **how: asked.append(how))
    join(text, 0, 2)
    assert asked[0]["coordinator_address"] == address


def test_a_rank_that_is_no_number_is_told():
    with pytest.raises(UserError, match="argument --rank: invalid int value: 'x'"):
        joined(["--rank", "x"])


@pytest.mark.parametrize(
    ("surroundings", "several"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_NTASKS": "4"}, False),  # the script of a job, which starts the step
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False),  # jax has no TPU here
    ],
)
def test_processes_that_something_else_started(monkeypatch, surroundings, several):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **how: asked.append(how))
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    join()
    assert [("coordinator_address" in how) for how in asked] == [False] * several


def test_whoever_has_devices_already_stays_alone(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    assert jax.devices()
    with pytest.raises(UserError, match=r"call jaxcl\.scale\.join before anything asks jax"):
        join()
    join_found()


def test_who_never_finds_the_others_says_so(monkeypatch, capfd):
    left = []
    monkeypatch.setattr(processes, "NOTICE", 0.0)
    monkeypatch.setattr(processes, "ARRIVAL", 0.05)
    monkeypatch.setattr(processes, "_exit", left.append)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **how: time.sleep(0.5))
    join("host", 1, 2)
    assert left == [2]
    notice, error = capfd.readouterr().err.splitlines()
    assert notice == "process 1 of 2 at host waits for the others"
    assert error.startswith("error: process 1 of 2 at host did not find the others within 0.05 s;")


class Store:
    """Keys and values in memory, as jax's client gives them."""

    def __init__(self):
        self.kept = {}

    def key_value_set(self, key, value, *, allow_overwrite=False):
        assert allow_overwrite or key not in self.kept
        self.kept[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in sorted(self.kept.items()) if key.startswith(folder)]


@pytest.fixture
def groups(monkeypatch):
    """Three members of a group, as if each were a process; an end is kept instead of made."""
    left = {}

    def leave(status):
        left[threading.get_ident()] = status

    monkeypatch.setattr(processes, "_exit", leave)
    monkeypatch.setattr(processes, "BEAT", 0.02)
    store = Store()
    made = [processes.ProcessGroup(rank, 3, store) for rank in range(3)]
    for group in made:
        group.left = left
    yield made
    for group in made:
        group._ending = True


def test_all_stop_at_the_same_look_however_far_each_is(groups):
    looks = [[], [], []]

    def train(rank):
        while not groups[rank].stops():
            looks[rank].append(0)
            time.sleep(0.001 * (rank + 1))
            if rank == 1 and len(looks[1]) == 20:
                groups[1].ask_stop()

    for _ in range(2):  # a second run of the same processes can be stopped too
        threads = [threading.Thread(target=train, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(looks[0]) == len(looks[1]) == len(looks[2]) >= 20
        looks = [[], [], []]


def test_one_that_fails_ends_all_though_its_words_are_lost(groups, monkeypatch, capfd):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            self.write("")

    def fail():
        monkeypatch.setattr(processes.sys, "stderr", Full())
        groups[1].fail("it broke", 2, text="error: it broke")

    failing = threading.Thread(target=fail, name="failing")
    failing.start()
    failing.join(30)
    until = time.monotonic() + 30
    while len(groups[0].left) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert sorted(groups[0].left.values()) == [2, 2, 2]


def test_agreement_names_what_differs(groups):
    told = [None] * 3

    def agree(rank):
        groups[rank].agree({"a": 1, "b": 2})
        try:
            groups[rank].agree({"a": 1, "b": 2 + (rank == 2)})
        except UserError as error:
            told[rank] = str(error)

    threads = [threading.Thread(target=agree, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(told) == {
        "process 2 has b=3, and process 0 has 2; all need the same command and data"
    }
