"""Part 6: training by lightly's 200-epoch recipes for as long as the call lasts."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from card import programs
from card.pack import read_pack
from card.session import Absent, Item, Session, Unfinished
from card.sizes import Sizes
from jaxcl import fit
from jaxcl.data import Arrays, Data
from jaxcl.experiment import Experiment, read_config
from jaxcl.methods import SupCon
from jaxcl.training.logs import read_metrics

ACCURACY = "CIFAR-10, ResNet-18, lightly's 200 epochs, kNN"
LEAST, SAVING = 90.0, 20.0
"""Seconds under which a run is not begun any more, and that are left for saving."""
PUBLISHED = {"SimCLR": 84.8, "BYOL": 86.8, "SupCon": None, "MoCo v2+": 84.7}
"""kNN of lightly's benchmark, batch 512, its best epoch, 10,000 test images. It has no SupCon."""


def accuracy(sizes: Sizes) -> list[Item]:
    """A run of each method; one that the call did not end goes on in the next one."""
    return [Item(ACCURACY, name, lambda s, name=name: trained(s, name), 3600) for name in PUBLISHED]


def recipe(name: str) -> Experiment:
    """lightly's recipe of a method; of SupCon, which it lacks, SimCLR's."""
    configs = {"SimCLR": "simclr", "SupCon": "simclr", "BYOL": "byol", "MoCo v2+": "moco_v2"}
    experiment = read_config(programs.CONFIGS / f"{configs[name]}_cifar10_lightly.py")
    if name == "SupCon":
        old = experiment.method
        method = SupCon(augment=old.augment, encoder=old.encoder, projector=old.projector)
        return replace(experiment, method=method)
    return experiment


def asked(name: str, data: Arrays, session: Session) -> Experiment:
    """The recipe on these images, in bfloat16."""
    experiment = recipe(name)
    method = in_bfloat16(experiment.method)
    optim, batch = experiment.optim, experiment.data.batch_size
    train = replace(experiment.train, tensorboard=False, log_every=100)
    probe = replace(experiment.probe, every=session.sizes.knn_every)
    if session.rehearse:
        method, batch, optim = narrow(method), 32, replace(optim, epochs=1, warmup_epochs=0)
        train, probe = replace(train, log_every=2), replace(probe, neighbours=20)
    section = Data(data, batch_size=batch, road="resident")
    return replace(experiment, method=method, data=section, train=train, probe=probe, optim=optim)


def in_bfloat16(method: Any) -> Any:
    """The same method whose networks compute in bfloat16."""
    parts = {name: getattr(method, name, None) for name in ("encoder", "projector", "predictor")}
    halves = {name: part.clone(dtype="bfloat16") for name, part in parts.items() if part}
    return replace(method, **halves)


def narrow(method: Any) -> Any:
    """The same with a network for rehearsals."""
    encoder = method.encoder.clone(depth=10, width=0.0625, stages=1, groups=1)
    fields: dict[str, Any] = {"encoder": encoder}
    if hasattr(method, "queue"):
        fields["queue"] = 64
    return replace(method, **fields)


def trained(session: Session, name: str) -> dict[str, Any]:
    """Epochs so far, kNN accuracy now and at best, beside the published one."""
    if session.data is None:
        raise Absent("give --data PACK, as benchmarks/card/pack.py makes it")
    data = session.known.get("images")
    if data is None:
        most = session.sizes.images if session.rehearse else None
        data = session.known["images"] = read_pack(session.data, most)
    experiment = asked(name, data, session)
    run = session.record.folder / "runs" / name.replace(" ", "_")
    if session.left < LEAST and not session.rehearse:
        raise Absent("no time is left")
    with session.own_log(), stopped_after(session.left - SAVING):
        outcome = fit(experiment, run)
    rows = read_metrics(run)
    scores = [row["knn"] for row in rows if "knn" in row]
    speeds = [row["images_per_s"] for row in rows if "images_per_s" in row]
    per_epoch = len(data.train_images) // experiment.data.batch_size
    figures: dict[str, Any] = {
        "epochs": int(outcome.state.step) // per_epoch,
        "kNN %": scores[-1] if scores else "",
        "best %": max(scores, default=""),
        "published %": PUBLISHED[name] or "",
        "images/s": max(speeds, default=""),
    }
    if not outcome.finished:
        raise Unfinished(figures)
    return figures


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Asks the run to stop, as Ctrl-C does, when so much time has passed.

    It is asked again and again: before its first step it does not listen.
    """
    over = threading.Event()

    def ask() -> None:
        pause = seconds
        while not over.wait(pause):
            os.kill(os.getpid(), signal.SIGTERM)
            pause = 2.0

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=ask, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGTERM, before)
