"""Evaluation protocols: how the authors of each method score a frozen encoder.

    python eval.py RUN --protocol moco

A published accuracy belongs to its protocol: the crops and rates that its linear classifier was
trained with, the neighbours that voted, which of two networks was looked at. `PROTOCOLS` has them
by name. The linear classifier is a run of its own, which `linear_experiment` makes:

    experiment = linear_experiment("supcon", encoder=..., recipe=..., source=TFDS("cifar10"),
                                   classes=10, start_from="runs/sup_con_cifar10_authors")
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from flax import linen as nn

from jaxcl.augment import Flip, RandomResizedCrop, Recipe, View
from jaxcl.augment.boxes import Sampler
from jaxcl.augment.geometry import Interpolation
from jaxcl.data import Data, Source
from jaxcl.encoders import ViT
from jaxcl.experiment import Experiment
from jaxcl.methods import LinearClassifier
from jaxcl.training import LARC, SGD, ClassifierAccuracy, Optim

Name: TypeAlias = Literal[
    "moco", "simclr", "simclr-v2", "byol", "swav", "simsiam", "dino", "supcon", "solo-learn",
    "lightly",
]  # fmt: skip


@dataclass(frozen=True)
class LinearProtocol:
    """Settings of the training of a linear classifier on a frozen encoder."""

    optim: Optim
    """Optimiser and schedule."""
    batch_size: int
    """Images of a batch on all devices together; the rates of `optim` scale with it."""
    init: Literal["zeros", "normal_0.01", "lecun", "torch"] = "normal_0.01"
    """Distribution of the classifier's kernel at the start."""
    min_scale: float = 0.08
    """Least share of the image's area in a training crop; every crop is flipped half of the time.
    Inference sees what the run's own recipe says."""
    sampler: Sampler = "torchvision"
    """Library whose way of drawing a crop's box is followed."""
    interpolation: Interpolation = "bilinear"
    """Kernel by which a training crop is resized."""
    joins_tokens: bool = False
    """Whether a vision transformer gives several tokens as features: the class tokens of its last
    four blocks or, from a width of 768 on, the last class token and the mean of the patches."""


@dataclass(frozen=True)
class KNNProtocol:
    """Settings of weighted kNN among the features of all training images."""

    neighbours: tuple[int, ...]
    """Numbers of voters that are tried."""
    temperature: float
    """Scale of the votes' weights exp(similarity / temperature)."""
    output: Literal["features", "projection"] = "features"
    """What is compared: the encoder's features, or the projector's output for them."""
    network: Literal["kept", "trained"] = "kept"
    """Which encoder is compared: the one that the method keeps, which is the teacher of DINO, or
    the one that gradients train, which the projector belongs to."""


@dataclass(frozen=True)
class Protocol:
    """How one group of authors scores a frozen encoder."""

    source: str
    """Where it is written: repository, commit and file."""
    linear: LinearProtocol | None = None
    """A linear classifier trained on crops after the run; None: there is none."""
    knn: KNNProtocol | None = None
    """Votes of nearest neighbours; None: there are none."""
    online: bool = False
    """Whether the score is that of the linear classifier that was trained beside the method."""
    best: bool = False
    """Whether the authors score the checkpoint whose kNN accuracy on the test images is highest,
    not the last one."""


def _steps(lr: float, *drops: float, by: float = 0.1) -> SGD:
    return SGD(lr, 100, warmup_epochs=0, weight_decay=0.0, decay="steps", drop_at=drops, drop_by=by)


_SIMCLR = LinearProtocol(
    SGD(0.1, 90, warmup_epochs=0, nesterov=True, weight_decay=1e-6, decay_all=True),
    4096, "zeros", 0.08, "tensorflow", "tf_bicubic",
)  # fmt: skip
_BYOL = SGD(0.2, 80, warmup_epochs=0, nesterov=True, weight_decay=0.0)
_SWAV = SGD(0.3, 100, warmup_epochs=0, changes="epoch", weight_decay=1e-6, decay_all=True)
_SIMSIAM = LARC(
    0.1, 90, warmup_epochs=0, changes="epoch", weight_decay=0.0, trust=0.001, clip_rate=False,
    adapt_all=True,
)  # fmt: skip
_DINO = SGD(0.001, 100, warmup_epochs=0, changes="epoch", weight_decay=0.0)

WIDE = 768
"""Width of ViT-B, from which on DINO's linear protocol takes other features."""

PROTOCOLS: dict[Name, Protocol] = {
    "moco": Protocol(
        "facebookresearch/moco 3631be0, main_lincls.py; kNN of the notebook for CIFAR-10, f736491",
        linear=LinearProtocol(_steps(30.0, 0.6, 0.8), 256),
        knn=KNNProtocol((200,), 0.1, "projection", "trained"),
    ),
    "simclr": Protocol(
        "google-research/simclr 383d414, README.md, model.py and model_util.py",
        linear=_SIMCLR,
    ),
    "simclr-v2": Protocol(
        "google-research/simclr 383d414, README.md: as simclr; the other figures are fine-tuned",
        linear=_SIMCLR,
    ),
    "byol": Protocol(
        "google-deepmind/deepmind-research 500ffd8, byol/configs/eval.py and eval_experiment.py",
        linear=LinearProtocol(_BYOL, 1024, "lecun", 0.08, "clamp", "tf_bicubic"),
    ),
    "swav": Protocol(
        "facebookresearch/swav 06b1b7c, eval_linear.py", linear=LinearProtocol(_SWAV, 256)
    ),
    "simsiam": Protocol(
        "facebookresearch/simsiam a7bc177, main_lincls.py with --lars, README.md",
        linear=LinearProtocol(_SIMSIAM, 4096),
    ),
    "dino": Protocol(
        "facebookresearch/dino 7c446df, eval_linear.py and eval_knn.py",
        linear=LinearProtocol(_DINO, 1024, joins_tokens=True),
        knn=KNNProtocol((10, 20, 100, 200), 0.07),
    ),
    "supcon": Protocol(
        "HobbitLong/SupContrast 66a8fe5, main_linear.py, README.md",
        linear=LinearProtocol(_steps(2.5, 0.6, 0.75, 0.9, by=0.2), 512, "torch", min_scale=0.2),
    ),
    "solo-learn": Protocol(
        "vturrisi/solo-learn fca55e3, solo/methods/base.py", online=True
    ),
    "lightly": Protocol(
        "lightly-ai/lightly 42a6a924, docs/.../benchmarks/cifar10_benchmark.py",
        knn=KNNProtocol((200,), 0.1, network="trained"),
        best=True,
    ),
}  # fmt: skip
"""By the name that `eval.py --protocol` takes."""


def linear_experiment(
    protocol: Name | LinearProtocol,
    *,
    encoder: nn.Module,
    recipe: Recipe,
    source: Source,
    classes: int,
    start_from: str,
    start_step: int = 0,
    epochs: int = 0,
    batch_size: int = 0,
) -> Experiment:
    """The training of a protocol's linear classifier, as a run of its own.

    Args:
      protocol: a name among `PROTOCOLS`, or the settings themselves.
      encoder: the encoder of the run, as it was configured there.
      recipe: recipe of that run, for the size and statistics of its images and how inference sees
        them.
      source: data with labels.
      classes: number of classes in the data.
      start_from: run directory that the encoder's weights are taken from.
      start_step: take its checkpoint after so many steps; 0: its newest one.
      epochs: length of the training; 0: as long as the authors'.
      batch_size: images of a batch; 0: as many as the authors'. The rates scale with it.

    Raises:
      KeyError: the protocol has another name, or no linear classifier that is trained afterwards.
    """
    if isinstance(protocol, str):
        found = PROTOCOLS[protocol].linear
        if found is None:
            raise KeyError(f"the protocol {protocol} trains no linear classifier after the run")
        protocol = found
    crop = RandomResizedCrop(
        recipe.size,
        (protocol.min_scale, 1.0),
        interpolation=protocol.interpolation,
        sampler=protocol.sampler,
    )
    optim = replace(protocol.optim, epochs=epochs or protocol.optim.epochs)
    return Experiment(
        method=LinearClassifier(
            augment=replace(recipe, views=(View(crop, (Flip(),)),)),
            encoder=joined(encoder) if protocol.joins_tokens else encoder,
            classes=classes,
            logits_init=protocol.init,
            start_from=start_from,
            start_step=start_step,
        ),
        data=Data(source, batch_size=batch_size or protocol.batch_size),
        optim=optim,
        probe=ClassifierAccuracy(),
    )


def joined(encoder: nn.Module) -> nn.Module:
    """An encoder with the features of DINO's linear protocol, where it is a vision transformer."""
    if not isinstance(encoder, ViT) or encoder.pool != "token" or encoder.projection:
        return encoder
    if encoder.width >= WIDE:
        return encoder.clone(feature_blocks=1, feature_mean=True)
    return encoder.clone(feature_blocks=min(4, encoder.depth))
