"""One device equals eight: the same numbers, and nothing but embeddings and gradients moves."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny

from jaxcl import fit
from jaxcl.augment import simclr
from jaxcl.data import Arrays, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimCLR
from jaxcl.training import LARS, Probe, loop
from jaxcl.training.logs import read_metrics


def photos(n=64, size=16):
    """Smooth random colour pictures, so that crops of one resemble each other."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 4, 4, 3)).astype(np.float32)
    images = jax.image.resize(coarse, (n, size, size, 3), "bicubic")
    return Arrays(np.clip(images, 0, 255).astype(np.uint8), rng.integers(0, 4, n))


# All of SimCLR's operations, batch norm, LARS, 20 steps.
EXPERIMENT = replace(
    tiny.experiment,
    method=SimCLR(
        augment=simclr(16, normalize="cifar10"),
        encoder=ResNet(10, width=0.25, stem="cifar", stages=1),
        projector=MLP((0,), 32, final_norm="scale"),
        temperature=0.5,
    ),
    data=Data(photos(), batch_size=32),
    # At a rate of 0.5 differences in the last bits grow a thousandfold in 20 steps.
    optim=LARS(lr=0.1, epochs=20, warmup_epochs=2),
    train=replace(tiny.experiment.train, log_every=1, save_every=20),
    probe=Probe(every=0),
)


def trained(run, devices):
    experiment = replace(EXPERIMENT, train=replace(EXPERIMENT.train, devices=devices))
    return fit(experiment, run).state, [row["loss"] for row in read_metrics(run)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("one") / "run", 1)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.extended), 8])
def test_one_device_equals_many(alone, tmp_path, devices):
    state, losses = trained(tmp_path / "run", devices)
    np.testing.assert_allclose(losses, alone[1], rtol=1e-5)
    assert len(losses) == 20
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(alone[0].params), strict=True)
    for many, one in pairs:
        # One ReLU that switches on one side moves a bias of its channel by 3e-5.
        np.testing.assert_allclose(many, one, rtol=0, atol=1e-4)


def test_no_image_moves_between_devices(monkeypatch, tmp_path):
    """Read from the compiled program: what its collectives carry is far smaller than a view."""
    texts = []

    class Recording(loop._Run):
        def _compiled(self, state, inputs, count):
            program = super()._compiled(state, inputs, count)
            texts.append(program.as_text())
            return program

    monkeypatch.setattr(loop, "_Run", Recording)
    # Batch 256: a device's share of one view is 32 x 16 x 16 x 3 numbers, the largest kernel less.
    data = Data(photos(300), batch_size=256)
    experiment = replace(
        EXPERIMENT,
        data=data,
        optim=replace(EXPERIMENT.optim, epochs=3),
        train=replace(EXPERIMENT.train, devices=8),
    )
    state = fit(experiment, tmp_path / "run").state
    sizes = collective_sizes(texts[0])
    gathered = [size for kind, size in sizes if kind == "all-gather"]
    assert max(gathered) == 2 * 256 * 32  # both views' embeddings, whole batch
    gradients = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert all(size <= max(gradients, 2 * 256 * 32) for _, size in sizes)
    pictures = {32 * 16 * 16 * 3, 256 * 16 * 16 * 3, 2 * 32 * 16 * 16 * 3, 2 * 256 * 16 * 16 * 3}
    assert not {size for _, size in sizes} & pictures
    assert not {kind for kind, _ in sizes} & {"all-to-all", "collective-permute"}


def collective_sizes(text):
    """(kind, numbers carried) of each collective in a compiled program."""
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    found = []
    for line in text.splitlines():
        match = re.search(rf"= (.*?) ({kinds})(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"[a-z]+\d+\[([\d,]*)\]", match[1])
            sizes = [int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes]
            found += [(match[2], size) for size in sizes]
    return found
