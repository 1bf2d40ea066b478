"""SimSiam, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet;
published: linear 90.51.

    python train.py configs/simsiam_cifar10.py
    python train.py configs/simsiam_cifar10.py --data folder-or-zip-of-class-folders
    python eval.py runs/simsiam_cifar10 --protocol solo-learn  # the figure's protocol

Blocks start as the identity. Half of the views are blurred, as in the code of July 2021, when the
figure appeared. From August 2021 to 2022 their scripts have no blur (`blur=0.0`) beside the same
figure. The jitter is SimCLR's at half strength, 0.4/0.4/0.4/0.1. In the first
epoch their predictor has the encoder's learning rate, 0.003, and 0.5 from then on; here it is 0.5.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimSiam
from jaxcl.training import SGD, Probe

experiment = Experiment(
    method=SimSiam(
        augment=simclr(
            32,
            strength=0.5,
            impl="torchvision",
            interpolation="bicubic",
            normalize="cifar10_pixels",
        ),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch"),
        projector=MLP((2048, 2048), 2048, final_norm="plain", kernel_init="torch"),
        predictor=MLP((512,), 2048, out_bias=True, kernel_init="torch"),
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=SGD(
        lr=0.5,
        weight_decay=1e-5,
        decay_all=True,
        epochs=1000,
        warmup_epochs=10,
        warmup_from=0.006,
        warmup_end="last",
        changes="epoch",
        steady=("predictor",),
    ),
    probe=Probe(lr=0.1, optimiser="run"),
)
