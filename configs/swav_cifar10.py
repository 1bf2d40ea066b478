"""SwAV, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet; published: linear 89.17.

    python train.py configs/swav_cifar10.py
    python train.py configs/swav_cifar10.py --data folder-or-zip-of-class-folders
    python eval.py runs/swav_cifar10 --protocol solo-learn  # the figure's protocol

The settings of the code of July 2021, when the figure appeared: two views, half of them blurred,
biases and norms adapted like kernels, a learning rate that ends at 6e-4, prototypes with trained
lengths, a queue that fills from the first step. From August 2021 to 2022 their scripts have no blur
(`blur=0.0`) beside the same figure.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, ResNet
from jaxcl.methods import SwAV
from jaxcl.training import LARC, Probe

experiment = Experiment(
    method=SwAV(
        augment=simclr(32, impl="torchvision", interpolation="bicubic", normalize="cifar10_pixels"),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch", zero_init=False),
        projector=MLP((2048,), 128, bias=True, out_bias=True, kernel_init="torch"),
        prototypes=Prototypes(3000, unit=True, train_gain=True, gain_init="lengths"),
        freeze_epochs=2,
        queue=3840,
        queue_epoch=50,
        queue_from_start=True,
        views_apart=True,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=LARC(
        lr=0.6,
        weight_decay=1e-6,
        epochs=1000,
        warmup_epochs=10,
        warmup_from=0.005,
        warmup_end="last",
        changes="epoch",
        final=1e-3,
        adapt_all=True,
    ),
    probe=Probe(lr=0.1, optimiser="run"),
)
