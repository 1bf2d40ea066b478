"""Six unlike runs of seconds, each in a process of its own that can be killed.

Nothing here may ask jax for a device: the processes are forked from one that has imported this.
"""

import multiprocessing
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import tiny
import tiny_lines

from jaxcl import fit
from jaxcl.augment import RandomResizedCrop, Recipe, View
from jaxcl.encoders import MLP
from jaxcl.methods import BYOL, DeepClusterV2, MoCo
from jaxcl.programs.answers import answered
from jaxcl.training import SGD, Probe

ENCODER, RECIPE = tiny.experiment.method.encoder, tiny.experiment.method.augment
SMALL = View(RandomResizedCrop(tiny.SIZE), copies=2)
CROPS = Recipe((SMALL, replace(SMALL, crop=RandomResizedCrop(4))), tiny.SIZE)
HEAD = MLP((16,), 8)


def _of(method, **data):
    """Twenty steps of a method on digits, a line at each, a checkpoint at every other."""
    return replace(
        tiny.experiment,
        method=method,
        data=replace(tiny.experiment.data, **data),
        optim=SGD(lr=0.05, epochs=4, warmup_epochs=1),
        train=replace(tiny.experiment.train, log_every=1, save_every=2, keep=3),
        probe=Probe(neighbours=5, every=2),
    )


EXPERIMENTS = {
    "simclr": _of(tiny.experiment.method),
    "streamed": _of(tiny.experiment.method, road="streamed"),
    "moco": _of(MoCo(augment=RECIPE, encoder=ENCODER, projector=HEAD, queue=64)),
    "byol": _of(BYOL(augment=RECIPE, encoder=ENCODER, projector=HEAD, predictor=HEAD)),
    "deepcluster_v2": _of(
        DeepClusterV2(augment=CROPS, encoder=ENCODER, projector=HEAD, clusters=(6, 4))
    ),
    "simcse": replace(
        tiny_lines.experiment,
        optim=replace(tiny_lines.experiment.optim, epochs=10),
        train=replace(tiny_lines.experiment.train, save_every=2, keep=3),
    ),
}


def begun(name, run):
    """A process that trains one of them there, and the file with what it prints."""
    multiprocessing.set_forkserver_preload(["six_runs"])
    told = Path(tempfile.mkstemp(suffix=".txt")[1])
    process = multiprocessing.get_context("forkserver").Process(
        target=_train, args=(name, str(run), str(told))
    )
    process.start()
    return process, told


def _train(name, run, told):
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(told, os.O_WRONLY | os.O_APPEND), stream.fileno())
    answered(lambda: fit(EXPERIMENTS[name], run))
