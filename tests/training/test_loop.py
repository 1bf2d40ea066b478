"""What a run tells, what it keeps, and how it ends when something is wrong."""

import errno
import importlib.machinery
import io
import json
import re
import shutil
import signal
import sys
import threading
import types
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import ClassVar

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxcl import UserError, fit, load
from jaxcl.data import Images
from jaxcl.experiment import differences
from jaxcl.methods import Aux, Method, Phase, SimCLR
from jaxcl.programs.answers import answered
from jaxcl.training import SGD, AdamW, Probe
from jaxcl.training.checkpoints import Checkpoints, not_finite
from jaxcl.training.directory import check_free, claim
from jaxcl.training.judge import Neighbours
from jaxcl.training.logs import Display, Log, duration, read_metrics
from jaxcl.training.ownership import owning
from jaxcl.training.probe import init_probe, probe_transform, train_probe
from jaxcl.training.step import Trainer

SHORT = tiny.with_("optim", epochs=1, warmup_epochs=0.2)


@dataclass(frozen=True)
class Broken(SimCLR):
    """Its loss is not a number from step `at` on."""

    at: int = 3

    def loss(self, params, memory, views, key, progress):
        value, aux = super().loss(params, memory, views, key, progress)
        return jnp.where(progress.step >= self.at, jnp.nan, value), aux


@dataclass(frozen=True)
class Attracting(SimCLR):
    """All embeddings are drawn to one point, by way of the head's last bias."""

    def loss(self, params, memory, views, key, progress):
        _, aux = super().loss(params, memory, views, key, progress)
        z = aux.embeddings
        return jnp.mean(jnp.sum((z - 1.0) ** 2, axis=-1)), aux


def changed(method, **fields):
    base = tiny.experiment.method
    return method(base.augment, 1, base.encoder, base.projector, base.temperature, **fields)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path):
    run = tmp_path / "run"
    experiment = replace(tiny.experiment, method=changed(Broken, at=4))
    with pytest.raises(UserError, match=r"not finite at step 4; the last good checkpoint, step 3"):
        fit(experiment, run)
    assert int(load(run, classes=[Broken]).state.step) == 3
    assert all(np.isfinite(row["loss"]) for row in read_metrics(run) if "loss" in row)


def test_collapse_is_told(tmp_path, capsys):
    optim = SGD(lr=0.05, scaling="none", epochs=6, warmup_epochs=1, weight_decay=0.0)
    told = run_and_read(
        replace(tiny.experiment, method=changed(Attracting), optim=optim), tmp_path / "run", capsys
    )
    assert "collapse: at step" in told
    assert "collapse: at step" not in run_and_read(SHORT, tmp_path / "well", capsys)


def run_and_read(experiment, run, capsys):
    fit(experiment, run)
    return capsys.readouterr().err


def test_what_is_told_before_and_while_it_trains(tmp_path, capsys):
    told = run_and_read(SHORT, tmp_path / "run", capsys)
    sizes = np.bincount(SHORT.data.source.train_labels)
    classes = f"10 classes of {sizes.min()} to {sizes.max()}"
    for line in (
        r"devices               1 x cpu",
        r"global batch          32 images, 32 per device",
        r"negatives per anchor  62",
        r"steps                 5 = 1 epochs x 5",
        r"learning rate         0.5 x 32 / 256 = 0.0625 after 0.2 epochs",
        f"data                  train: 160 images, {classes}, resident",
        r"test set              80 images, test_images",
    ):
        assert line in told
    assert "parameters            encoder 0.00127 M" in told
    assert "MiB of work space" in told
    assert "step 4/5  images/s" in told


def test_rows_hold_what_is_watched(tmp_path):
    fit(SHORT, tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    train = next(row for row in rows if row["kind"] == "train")
    judged = next(row for row in rows if row["kind"] == "eval")
    watched = "loss lr images_per_s contrastive_accuracy probe_accuracy gradient_norm"
    geometry = "alignment uniformity feature_std embedding_std"
    assert set(watched.split()) | set(geometry.split()) <= set(train)
    assert {"knn", "probe_accuracy", "effective_rank", "uniformity", "feature_std"} <= set(judged)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4, 5]


def test_a_log_line_is_the_mean_since_the_last(tmp_path):
    every = replace(SHORT, train=replace(SHORT.train, log_every=1))
    fit(every, tmp_path / "every")
    fit(SHORT, tmp_path / "second")
    single = [row["loss"] for row in read_metrics(tmp_path / "every") if "loss" in row]
    double = [row["loss"] for row in read_metrics(tmp_path / "second") if "loss" in row]
    means = [np.mean(single[0:2]), np.mean(single[2:4]), single[4]]
    np.testing.assert_allclose(double, means, rtol=1e-6)


def test_many_steps_in_one_call_give_the_same_numbers(tmp_path):
    """What a GPU does by default."""
    fit(tiny.experiment, tmp_path / "single")
    fit(tiny.with_("train", steps_per_call=2), tmp_path / "double")
    one, two = ([row["loss"] for row in read_metrics(tmp_path / name) if "loss" in row]
                for name in ("single", "double"))  # fmt: skip
    np.testing.assert_allclose(two, one, rtol=1e-3)


def test_tensorboard_events_are_written(tmp_path):
    fit(replace(SHORT, train=replace(SHORT.train, tensorboard=True)), tmp_path / "run")
    events = list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1
    assert b"train/loss" in events[0].read_bytes()


def test_another_experiment_in_the_same_directory_is_refused(tmp_path):
    fit(SHORT, tmp_path)
    other = replace(SHORT, method=replace(SHORT.method, temperature=0.1))
    with pytest.raises(UserError, match=r"method.temperature=0.5, not 0.1; use another --dir"):
        fit(other, tmp_path)


@dataclass(frozen=True)
class Interrupted(SimCLR):
    """Ctrl-C is pressed between epochs, where `presses` says so."""

    presses: ClassVar[list[bool]] = []
    times: ClassVar[list[int]] = [1]

    def on_epoch(self, embed, memory, key):
        if self.presses and self.presses.pop(0):
            for _ in range(self.times[0]):
                signal.raise_signal(signal.SIGINT)
        return memory


@pytest.mark.parametrize(
    ("mistaken", "words"),
    [
        (tiny.with_("data", source=Images("nowhere")), "nowhere does not exist"),
        (tiny.with_("train", start="nowhere.pth"), "train.start=nowhere.pth"),
        (tiny.with_("train", wandb="mine"), "needs wandb, which is not installed"),
    ],
)
def test_a_mistaken_command_leaves_nothing_behind(tmp_path, monkeypatch, mistaken, words):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=words):
        fit(mistaken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_test_image_is_enough_and_none_is_told_before_the_first_step(tmp_path):
    source = tiny.source()
    one = replace(source, test_images=source.test_images[:1], test_labels=source.test_labels[:1])
    fit(replace(SHORT, data=replace(SHORT.data, source=one)), tmp_path / "one")
    judged = [row for row in read_metrics(tmp_path / "one") if row["kind"] == "eval"]
    assert judged and {"knn", "effective_rank"} <= set(judged[0])
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pictures" / name / "1.png"), np.zeros((8, 8, 3), np.uint8))
    data = replace(SHORT.data, source=Images(str(tmp_path / "pictures")), batch_size=2)
    with pytest.raises(UserError, match="has no test images, and the run measures on them"):
        fit(replace(SHORT, data=data), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_stopped_before_its_first_step_leaves_nothing_behind(tmp_path, capsys):
    Interrupted.presses[:] = [True]
    outcome = fit(replace(SHORT, method=changed(Interrupted)), tmp_path / "run")
    assert not outcome.finished and not outcome.run.exists()
    assert "stopped before the first step" in capsys.readouterr().err


def test_a_run_stopped_between_epochs_goes_on_with_the_same_rows(tmp_path):
    twice = tiny.with_("optim", epochs=2)
    twice = replace(twice, method=changed(Interrupted))
    fit(twice, tmp_path / "whole")
    Interrupted.presses[:] = [False, True]
    assert int(fit(twice, tmp_path / "run").state.step) == tiny.PER_EPOCH
    assert fit(twice, tmp_path / "run").finished
    whole, run = (tiny.untimed(read_metrics(tmp_path / name)) for name in ("whole", "run"))
    assert run == whole


def test_a_directory_where_nothing_was_trained_is_free(tmp_path):
    """Such as one that was killed while its first step was compiled."""
    claim(tmp_path, SHORT, "")
    other = replace(SHORT, method=replace(SHORT.method, temperature=0.1))
    log = Log(tmp_path, tensorboard=False)
    log.open(0)
    check_free(tmp_path, other)
    claim(tmp_path, other, "")
    assert differences(tmp_path, other) == {}
    log.write("train", 1, {"loss": 1.0})
    log.close()
    with pytest.raises(UserError, match=r"method.temperature=0.1, not 0.5; use another --dir"):
        check_free(tmp_path, SHORT)


def test_what_a_killed_start_leaves_is_no_hindrance(tmp_path):
    """Killed between making the directory and writing its config."""
    (tmp_path / ".lock").write_text("")
    (tmp_path / "config.json.part").write_text('{"class": ')
    (tmp_path / ".copies").mkdir()
    (tmp_path / ".copies" / "config.json.part").write_text("")
    check_free(tmp_path, SHORT)
    claim(tmp_path, SHORT, "")
    (tmp_path / "config.json").unlink()
    check_free(tmp_path, SHORT)
    (tmp_path / "notes.txt").write_text("mine")
    shutil.rmtree(tmp_path / ".copies")
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="exists and holds no run"):
        check_free(tmp_path, SHORT)


def test_how_a_run_runs_may_change(tmp_path):
    fit(SHORT, tmp_path)
    assert fit(
        replace(SHORT, train=replace(SHORT.train, log_every=9, devices=1)), tmp_path
    ).finished


def test_a_directory_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="exists and holds no run"):
        fit(SHORT, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_more_devices_than_there_are(tmp_path):
    with pytest.raises(UserError, match=r"train.devices=99, but there are 8; use 0 for all"):
        fit(tiny.with_("train", devices=99), tmp_path / "run")


def test_runs_outside_the_main_thread(tmp_path):
    """Where signal handlers cannot be set."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(fit(SHORT, tmp_path / "run")))
    thread.start()
    thread.join()
    assert outcomes[0].finished


def test_a_cut_last_line_of_the_log_is_dropped(tmp_path):
    fit(SHORT, tmp_path)
    path = tmp_path / "metrics.jsonl"
    whole = read_metrics(tmp_path)
    path.write_text(path.read_text() + '{"kind": "train", "st')
    assert read_metrics(tmp_path) == whole


def test_a_damaged_row_of_the_log_costs_itself_alone(tmp_path, capsys):
    """A bad byte, no text, no step, another number: told, left out, kept beside on going on."""
    log = Log(tmp_path, tensorboard=False)
    log.open(0)
    for step in range(1, 8):
        log.write("train", step, {"loss": step / 10})
    log.close()
    whole, path = read_metrics(tmp_path), tmp_path / "metrics.jsonl"
    assert [row["loss"] for row in whole] == [step / 10 for step in range(1, 8)]
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:9] + b"\xff" + lines[1][10:]
    lines[2] = b'{"kind": "train", "loss": 1.0}'
    lines[3] = lines[3].replace(b"0.4", b"0.9")
    lines[4] = b"[1, 2]"
    path.write_bytes(b"\n".join(lines))
    told = []
    kept = [whole[0], *whole[5:]]
    assert read_metrics(tmp_path, told.append) == kept
    assert told == [f"{path}: 4 rows are damaged and left out (first: line 2)"]
    damaged = path.read_bytes()
    log = Log(tmp_path, tensorboard=False)
    log.open(6, told.append)
    log.close()
    assert "4 rows are damaged" in told[1] and "kept as metrics.jsonl.damaged" in told[1]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == damaged
    assert read_metrics(tmp_path, told.append) == kept[:2] and len(told) == 2


def test_rows_of_an_earlier_version_are_read(tmp_path):
    row = {"kind": "train", "step": 3, "loss": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert read_metrics(tmp_path) == [row]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_log_is_one_line_and_no_thread_waits(tmp_path):
    log = Log(tmp_path, tensorboard=False)
    log.open(0)
    log._file.close()
    log._file = FileIO("/dev/full", "a")
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl \(No space left on device"):
        log.write("train", 1, {"loss": 1.0})
    log.close()


def test_a_full_disk_under_tensorboard_is_one_line_and_no_thread_waits(tmp_path, monkeypatch):
    log, threads = Log(tmp_path, tensorboard=True), threading.active_count()
    log.open(0)
    assert threading.active_count() == threads
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_):
        raise full

    monkeypatch.setattr(log._events._file, "flush", refuse)
    with pytest.raises(UserError, match=r"cannot write .*tensorboard \(No space left on device"):
        log.write("train", 1, {"loss": 1.0})
    monkeypatch.undo()
    log.close()


FAILING = "test: 9 of 80 images cannot be decoded, 11 % > data.max_bad=1 %"


@pytest.mark.parametrize("save_every", [pytest.param(3, marks=pytest.mark.extended), 5])
def test_an_evaluation_that_fails_costs_nothing(tmp_path, monkeypatch, save_every):
    """Whether a checkpoint was due then or not; the next start makes up for the evaluation."""
    experiment = tiny.with_("optim", epochs=2)
    experiment = replace(experiment, train=replace(experiment.train, save_every=save_every))
    fit(experiment, tmp_path / "whole")
    judge = Neighbours.__call__
    with monkeypatch.context() as patch:

        def fail(self, state):
            raise UserError(FAILING)

        patch.setattr(Neighbours, "__call__", fail)
        words = "max_bad=1 %; the evaluation failed, and step 5 is saved: mend that, or go on"
        with pytest.raises(UserError, match=words):
            fit(experiment, tmp_path / "run")
        off = replace(experiment, probe=replace(experiment.probe, every=0))
        assert differences(tmp_path / "run", off) == {}  # so what the message advises is accepted
        assert Checkpoints(tmp_path / "run").steps[-1] == 5

        def leave(self, state):  # as if it was killed there
            raise KeyboardInterrupt

        patch.setattr(Neighbours, "__call__", leave)
        with pytest.raises(KeyboardInterrupt):
            fit(experiment, tmp_path / "run")
    assert Neighbours.__call__ is judge
    assert fit(experiment, tmp_path / "run").finished
    whole, run = (tiny.untimed(read_metrics(tmp_path / name)) for name in ("whole", "run"))
    assert run == whole
    assert tiny.same_bits(*(load(tmp_path / name).state for name in ("whole", "run")))
    assert tiny.same_bits(*(load(tmp_path / name, best=True).state for name in ("whole", "run")))


@dataclass(frozen=True)
class Removing(SimCLR):
    """Someone removes the run directory after the first epoch."""

    runs: ClassVar[list[Path]] = []

    def on_epoch(self, embed, memory, key):
        if self.runs and (self.runs[0] / "checkpoints" / "5").exists():
            shutil.rmtree(self.runs.pop())
        return memory


def test_a_directory_that_is_removed_while_it_trains_is_an_error(tmp_path):
    Removing.runs[:] = [tmp_path / "run"]
    experiment = replace(tiny.with_("train", save_every=5), method=changed(Removing))
    with pytest.raises(UserError, match="run was removed while it was trained in"):
        fit(experiment, tmp_path / "run")
    assert not Removing.runs


def test_a_directory_that_another_one_trains_in_is_refused(tmp_path):
    with owning(tmp_path), pytest.raises(UserError, match="is in use by process"):
        fit(SHORT, tmp_path)


def test_what_a_huge_step_leaves_is_not_kept_as_good(tmp_path):
    """Its loss is that of the parameters before it."""
    optim = SGD(lr=3e38, scaling="none", epochs=1, warmup_epochs=0.2, weight_decay=0.0)
    experiment = replace(tiny.with_("train", save_every=1, log_every=1), optim=optim)
    words = r"params\.\S+ is not finite at step [01]; (none was saved|the last good checkpoint)"
    with pytest.raises(UserError, match=words):
        fit(experiment, tmp_path / "run")
    for step in Checkpoints(tmp_path / "run").steps:
        assert not_finite(load(tmp_path / "run", at=step).state) is None


def test_a_second_ctrl_c_is_one_line(tmp_path, capsys, ctrl_c):
    Interrupted.presses[:] = [True]
    Interrupted.times[:] = [2]
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as left:
            answered(lambda: fit(replace(SHORT, method=changed(Interrupted)), tmp_path / "run"))
    finally:
        signal.signal(signal.SIGINT, before)
        Interrupted.times[:] = [1]
    assert left.value.code == 130
    assert capsys.readouterr().err.endswith("\nstopped\n")
    assert not (tmp_path / "run").exists()


@dataclass(frozen=True)
class Duel(Method):
    """Two phases: `critic` climbs where `player` descends, on one number each."""

    def init(self, key, views):
        return {"player": jnp.array(1.0), "critic": jnp.array(0.0)}, {"calls": jnp.zeros([])}

    def game(self, sign, params, memory, views, key, progress):
        value = sign * (params["player"] * (params["critic"] - 2.0))
        return value, Aux({"calls": memory["calls"] + 1}, {})

    @property
    def phases(self):
        from functools import partial

        return (
            Phase("critic", partial(self.game, -1.0), ("critic",), repeat=2),
            Phase("player", partial(self.game, 1.0), ("player",)),
        )

    def after_step(self, params, memory, progress):
        return memory | {"ended": params["player"]} if "ended" in memory else memory


def test_phases_train_their_own_groups_in_turn():
    trainer = Trainer(
        Duel(tiny.experiment.method.augment), SGD(lr=0.1, scaling="none", momentum=0.0,
        weight_decay=0.0, epochs=10, warmup_epochs=0, final=1.0), Probe(), 4, 5, 0,
    )  # fmt: skip
    batch = {"image": jnp.zeros((4, 8, 8, 1), jnp.uint8), "label": jnp.full(4, -1)}
    state = jax.jit(trainer.step)(trainer.init(0, batch), batch)
    critic = 0.0 + 2 * 0.1 * 1.0  # two ascents along player = 1
    player = 1.0 - 0.1 * (critic - 2.0)
    np.testing.assert_allclose(state.params["critic"], critic, rtol=1e-6)
    np.testing.assert_allclose(state.params["player"], player, rtol=1e-6)
    assert int(state.memory["calls"]) == 3
    assert {"loss", "loss_critic", "loss_player"} <= set(state.totals)


def test_average_follows_the_weights():
    optim = replace(tiny.experiment.optim, average=0.9)
    trainer = Trainer(tiny.experiment.method, optim, Probe(), 8, 5, 10)
    batch = {"image": jnp.zeros((8, 8, 8, 1), jnp.uint8).at[::2].set(200),
             "label": jnp.arange(8), "index": jnp.arange(8)}  # fmt: skip
    state = jax.jit(trainer.init, static_argnums=0)(0, batch)
    step = jax.jit(trainer.step)
    kernel = lambda tree: tree["projector"]["linear_out"]["kernel"]
    expected = kernel(state.params)
    for _ in range(3):
        state = step(state, batch)
        expected = 0.9 * expected + 0.1 * kernel(state.params)
    np.testing.assert_allclose(kernel(state.average), expected, rtol=1e-5, atol=1e-7)


def test_the_probe_learns_and_skips_rows_without_label():
    adam, key = optax.adam(0.1), jax.random.key(0)
    features = jnp.array(np.random.default_rng(0).normal(size=(32, 1, 4)), jnp.float32)
    labels = (features[:, 0, 0] > 0).astype(jnp.int32)
    probe = start = init_probe(Probe(lr=0.1), adam, 4, 2, key)
    for _ in range(100):
        probe, metrics = train_probe(adam, probe, features, labels)
    assert 95 < metrics["probe_accuracy"] <= 100
    still, nothing = train_probe(adam, start, features, jnp.full(32, -1))
    assert float(nothing["probe_loss"]) == 0.0
    assert (still.params["kernel"] == 0).all()


def test_a_probe_by_the_runs_optimiser_follows_its_schedule_without_decay():
    """As in solo-learn: from torch's weights, and between the very rates that the run warms up from
    and ends at, which are no shares of the peak there."""
    run = SGD(lr=0.4, epochs=4, warmup_epochs=1, warmup_from=0.01, final=0.25, weight_decay=0.1)
    config, key = Probe(lr=0.1, optimiser="run"), jax.random.key(0)
    transform = probe_transform(config, replace(run, momentum=0.0), 512, 5)
    probe = init_probe(config, transform, 16, 3, key)
    kernel = np.asarray(probe.params["kernel"])
    assert 0.2 < np.abs(kernel).max() <= 0.25 and np.abs(kernel).min() < 0.02
    assert 0 < np.abs(probe.params["bias"]).max() <= 0.25
    rates, state = [], probe.optim
    slope = jax.tree.map(jnp.ones_like, probe.params)
    for _ in range(20):
        updates, state = transform.update(slope, state, probe.params)
        rates.append(-float(updates["kernel"][0, 0]))
    theirs = run.schedule(512, 5)
    np.testing.assert_allclose(rates[0], theirs(0), rtol=1e-5)
    np.testing.assert_allclose(rates[5], 0.1, rtol=1e-6)
    with pytest.raises(UserError, match=r"probe.lr=0 trains nothing"):
        probe_transform(replace(config, lr=0.0), run, 512, 5)
    decayed = AdamW(lr=0.1, weight_decay=0.04, final_weight_decay=0.4, warmup_epochs=0)
    still = probe_transform(config, decayed, 256, 5)
    zero = jax.tree.map(jnp.zeros_like, slope)
    updates, _ = still.update(zero, still.init(probe.params), probe.params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    own = 0.2 + (0.1 - 0.2) * (1 + np.cos(np.pi * np.arange(15) / 15)) / 2
    np.testing.assert_allclose(rates[5:], own, rtol=1e-5)


def test_the_probe_leaves_the_encoder_alone(tmp_path):
    """With and without it the parameters are the same bits."""
    fit(SHORT, tmp_path / "with")
    fit(replace(SHORT, probe=Probe(linear=False, neighbours=5)), tmp_path / "without")
    one, two = (load(tmp_path / name).state.params for name in ("with", "without"))
    assert tiny.same_bits(one, two)


def test_plain_lines_tell_the_time_left(capsys):
    display = Display(total=100, step=0)
    display.show(50, {"loss": 1.5, "images_per_s": 1234.0})
    display.close()
    assert "step 50/100  images/s 1234  loss 1.5  left 0:00" in capsys.readouterr().err
    assert [duration(s) for s in (5, 65, 3605)] == ["0:05", "1:05", "1:00:05"]


def test_at_80_columns_the_bar_keeps_step_time_and_loss(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    display = Display(total=100_000, step=0)
    row = {"images_per_s": 1234.0, "loss": 1.5, "lr": 0.123, "contrastive_accuracy": 12.345}
    display.show(50_000, row | {"probe_accuracy": 45.67, "knn": 56.78})
    display.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sys.stderr.getvalue()).strip().splitlines()[-1]
    assert re.search(r"50,000/100,000 \S+ .*images/s 1234  loss 1.5  lr 0.123$", shown.strip())
    assert len(shown) <= 80


def test_wandb_gets_the_settings_and_one_name_for_all_starts(tmp_path, monkeypatch):
    calls = []
    fake = types.SimpleNamespace(
        init=lambda **given: calls.append(given) or types.SimpleNamespace(finish=lambda: None),
        __spec__=importlib.machinery.ModuleSpec("wandb", None),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        log = Log(tmp_path, tensorboard=False, wandb="mine", config={"optim.lr": 0.1})
        log.open(0)
        log.close()
    first, second = calls
    assert first["id"] == second["id"] and len(first["id"]) == 16 and first["resume"] == "allow"
    assert first["config"] == {"optim.lr": 0.1}


def test_config_and_versions_are_kept(tmp_path):
    fit(SHORT, tmp_path)
    assert json.loads((tmp_path / "versions.json").read_text())["jax"] == jax.__version__
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["method"]["class"] == "jaxcl.methods.simclr.SimCLR"
