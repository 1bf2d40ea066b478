"""SupCon, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet;
published: linear 93.82.

    python train.py configs/sup_con_cifar10.py
    python eval.py runs/sup_con_cifar10 --protocol solo-learn  # the figure's protocol

The settings of the run behind the published figure: LARS where the public configuration of 2024
has SGD, no blur, and the mean over the positives inside the logarithm (their code has the sum,
which has the same gradient). `--method.form out` is the paper's. lightly publishes no figure.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SupCon
from jaxcl.training import LARC, Probe

experiment = Experiment(
    method=SupCon(
        augment=simclr(
            32, blur=0.0, impl="torchvision", interpolation="bicubic", normalize="cifar10_pixels"
        ),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch", zero_init=False),
        projector=MLP((2048,), 256, norm="none", bias=True, out_bias=True, kernel_init="torch"),
        temperature=0.2,
        form="in",
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
