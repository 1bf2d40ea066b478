"""MoCo v2+, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet;
published: linear 92.94.

    python train.py configs/moco_v2_cifar10.py
    python train.py configs/moco_v2_cifar10.py --data folder-or-zip-of-class-folders
    python eval.py runs/moco_v2_cifar10 --protocol solo-learn  # the figure's protocol

Half of the views are blurred, as in the code of July 2021, when the figure appeared. From August
2021 to 2022 their scripts have no blur (`blur=0.0`) beside the same figure. Batch norm over the
whole batch. The jitter is SimCLR's at half strength, 0.4/0.4/0.4/0.1. Rows of 128, which that
code's script leaves at the default; the public configuration of 2024 has 256.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import MoCo
from jaxcl.training import SGD, Probe

experiment = Experiment(
    method=MoCo(
        augment=simclr(
            32,
            strength=0.5,
            impl="torchvision",
            interpolation="bicubic",
            normalize="cifar10_pixels",
        ),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch", zero_init=False),
        projector=MLP((2048,), 128, norm="none", bias=True, out_bias=True, kernel_init="torch"),
        temperature=0.2,
        queue=32768,
        momentum=0.99,
        final_momentum=0.999,
        shuffle=False,
        symmetric=True,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=SGD(
        lr=0.3,
        weight_decay=1e-4,
        decay_all=True,
        epochs=1000,
        warmup_epochs=10,
        warmup_from=0.01,
        warmup_end="last",
        changes="epoch",
    ),
    probe=Probe(lr=0.3, optimiser="run"),
)
