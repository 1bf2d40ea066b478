"""What every method must show. A test class derives from `Contract` and names its experiment."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny

from jaxcl import Experiment, Train, fit, load
from jaxcl.augment import Flip, Noise, Recipe, View
from jaxcl.data import Arrays, Data
from jaxcl.encoders import ResNet
from jaxcl.training import SGD, Optim, Probe
from jaxcl.training.logs import read_metrics

SIZE, BATCH, IMAGES, CLASSES = 8, 16, 40, 4
"""Two whole batches an epoch; the eight images left over are never shown in it."""


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random pictures and labels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 3, 3, 3)).astype(np.float32)
    images = jax.image.resize(coarse, (count, SIZE, SIZE, 3), "bicubic")
    return np.clip(images, 0, 255).astype(np.uint8), np.arange(count) % CLASSES


VIEWS = View(None, (Flip(), Noise(p=1.0, sigma=0.1)))
RECIPE = Recipe((replace(VIEWS, copies=2),), SIZE)
"""Two views that compile in a moment; the recipes have tests of their own."""

ENCODER = ResNet(10, width=0.125, stem="cifar", stages=1, zero_init=False)
"""Eight channels, two blocks' worth of batch norm."""

SOURCE = Arrays(*pictures(IMAGES, 0), *pictures(16, 1))


def experiment(method, optim: Optim | None = None, **data) -> Experiment:
    """Six steps of a method on forty pictures, on one device, a checkpoint after each."""
    optim = optim or SGD(lr=0.02, scaling="none", warmup_epochs=0)
    return Experiment(
        method=method,
        data=Data(SOURCE, batch_size=BATCH, **data),
        optim=replace(optim, epochs=3),
        train=Train(log_every=1, save_every=1, keep=9, tensorboard=False, devices=1),
        probe=Probe(linear=False, every=0),
    )


class Contract:
    """Laws 1 and 2 for one method."""

    experiment: Experiment
    resume_at = 3
    """Steps after which the run is taken up again: in the middle of the second epoch."""
    tolerance = 1e-4
    """Between one device and eight, relative to the loss, and of parameters."""
    absolute = 0.0
    """Added to it for losses that pass through zero."""

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, tmp_path_factory):
        """The run on one device."""
        run = tmp_path_factory.mktemp("alone") / "run"
        assert fit(cls.experiment, run).finished
        return run

    # Eight threads that wait for each other on two cores slow down all other tests.
    @pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.extended)])
    def test_one_device_equals_many(self, alone, tmp_path, devices):
        train = replace(self.experiment.train, devices=devices, save_every=0)
        state = fit(replace(self.experiment, train=train), tmp_path / "run").state
        losses = [
            [row["loss"] for row in read_metrics(run) if "loss" in row]
            for run in (alone, tmp_path / "run")
        ]
        assert len(losses[0]) == 6
        np.testing.assert_allclose(losses[1], losses[0], rtol=self.tolerance, atol=self.absolute)
        one = load(alone).state
        for name in ("params", "memory"):
            same = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=self.tolerance)
            jax.tree.map(same, getattr(state, name), getattr(one, name))

    def test_stopped_and_resumed_equals_going_on(self, alone, tmp_path):
        """Every later metric and the whole state, queues and centres with it, bit for bit."""
        run = tmp_path / "run"
        shutil.copytree(alone, run)
        for step in range(self.resume_at + 1, 7):
            shutil.rmtree(run / "checkpoints" / str(step))
        assert fit(self.experiment, run).finished
        assert tiny.untimed(read_metrics(run)) == tiny.untimed(read_metrics(alone))
        assert tiny.same_bits(load(run).state, load(alone).state)

    def test_something_is_learnt_by_every_part(self, alone):
        """No parameter of the trained network stays where it was."""
        run = load(alone)
        moved = jax.tree.map(
            lambda x, y: bool((np.asarray(x) != np.asarray(y)).any()),
            run.state.params, run.untrained().state.params,
        )  # fmt: skip
        paths = {jax.tree_util.keystr(path): m for path, m in jax.tree.leaves_with_path(moved)}
        still = {path for path, changed in paths.items() if not changed}
        expected = {path for path in paths if path.startswith(self.unmoved)}
        assert still == expected

    @pytest.mark.extended
    def test_trains_where_numbers_have_64_bits(self, alone, tmp_path, x64):
        """Two epochs, and no number that training carries becomes one of 64 bits by oversight."""
        optim = replace(self.experiment.optim, epochs=2)
        run = fit(replace(self.experiment, optim=optim), tmp_path / "run")
        assert run.finished
        kinds = {leaf.dtype.name for leaf in jax.tree.leaves(run.state)}
        assert "float64" not in kinds

    unmoved: tuple[str, ...] = ()
    """Where the paths of the parameters begin that no step moves."""
