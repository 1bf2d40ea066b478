"""BYOL, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet;
published: linear 92.58.

    python train.py configs/byol_cifar10.py
    python train.py configs/byol_cifar10.py --data folder-or-zip-of-class-folders
    python eval.py runs/byol_cifar10 --protocol solo-learn  # the figure's protocol

The views are BYOL's without blur: the second is sometimes solarised.
"""

from jaxcl import Experiment
from jaxcl.augment import (
    ColorJitter,
    Flip,
    Grayscale,
    RandomResizedCrop,
    Recipe,
    Solarize,
    View,
)
from jaxcl.augment.recipes import STATISTICS
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import BYOL
from jaxcl.training import LARC, Probe

CROP = RandomResizedCrop(32, (0.08, 1.0), interpolation="bicubic")
OPS = (Flip(), ColorJitter(0.4, 0.4, 0.2, 0.1, impl="torchvision"), Grayscale())
HEAD = MLP((4096,), 256, bias=True, out_bias=True, kernel_init="torch")

experiment = Experiment(
    method=BYOL(
        augment=Recipe(
            (View(CROP, OPS), View(CROP, (*OPS, Solarize(0.2)))), 32, *STATISTICS["cifar10_pixels"]
        ),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch", zero_init=False),
        projector=HEAD,
        predictor=HEAD,
        momentum=0.99,
        scale=0.5,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=LARC(
        lr=1.0,
        weight_decay=1e-5,
        epochs=1000,
        warmup_epochs=10,
        warmup_from=0.003,
        warmup_end="last",
        changes="epoch",
    ),
    probe=Probe(lr=0.1, optimiser="run"),
)
