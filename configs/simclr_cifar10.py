"""SimCLR, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet;
published: linear 90.74.

    python train.py configs/simclr_cifar10.py
    python train.py configs/simclr_cifar10.py --data folder-or-zip-of-class-folders
    python eval.py runs/simclr_cifar10 --protocol solo-learn  # the figure's protocol

The settings of the code of July 2021, when the figure appeared: as the public configuration of
2024, with half of the views blurred, but weight decay 1e-5 instead of 1e-4. Their scripts between
the two have no blur (`blur=0.0`) beside the same figure.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimCLR
from jaxcl.training import LARC, Probe

experiment = Experiment(
    method=SimCLR(
        augment=simclr(32, impl="torchvision", interpolation="bicubic", normalize="cifar10_pixels"),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch", zero_init=False),
        projector=MLP((2048,), 256, norm="none", bias=True, out_bias=True, kernel_init="torch"),
        temperature=0.2,
        views_apart=True,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=LARC(
        lr=0.4,
        weight_decay=1e-5,
        epochs=1000,
        warmup_epochs=10,
        warmup_from=0.0075,
        warmup_end="last",
        changes="epoch",
    ),
    probe=Probe(lr=0.1, optimiser="run"),
)
