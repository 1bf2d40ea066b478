"""A SimCLR run that takes seconds: digits, 8x8, a network of 2,000 parameters."""

from dataclasses import replace

import numpy as np

from jaxcl import Experiment, Train
from jaxcl.augment import Noise, Recipe, View
from jaxcl.data import Arrays, Data, Digits
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimCLR
from jaxcl.training import LARS, Probe

SIZE, BATCH, PER_EPOCH = 8, 32, 5


def source() -> Arrays:
    """160 training and 80 test digits."""
    train, test = (Digits(SIZE).split(name) for name in ("train", "test"))
    images = [np.stack([part.image(i) for i in range(n)]) for part, n in ((train, 160), (test, 80))]
    labels = [part.labels[:n] for part, n in ((train, 160), (test, 80))]
    return Arrays(images[0], labels[0], images[1], labels[1])


experiment = Experiment(
    method=SimCLR(
        augment=Recipe((View(None, (Noise(p=1.0, sigma=0.3),), copies=2),), SIZE),
        encoder=ResNet(10, width=0.125, stem="cifar", stages=1, zero_init=False),
        projector=MLP((0,), 16, final_norm="affine"),
        temperature=0.5,
    ),
    data=Data(source(), batch_size=BATCH),
    optim=LARS(lr=0.5, epochs=3, warmup_epochs=1),
    train=Train(log_every=2, save_every=3, tensorboard=False, devices=1),
    probe=Probe(neighbours=5),
)


def with_(section: str, **changes):
    """The experiment with fields of one section changed."""
    return replace(experiment, **{section: replace(getattr(experiment, section), **changes)})


def untimed(rows):
    """Rows of the log without what depends on the clock."""
    from jaxcl.training.logs import TIMES

    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def same_bits(one, two):
    """Whether two trees hold the same bits."""
    import jax

    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


__all__ = ["BATCH", "PER_EPOCH", "SIZE", "experiment", "same_bits", "untimed", "with_"]
