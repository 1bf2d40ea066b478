"""SupCon, ResNet-50, CIFAR-10, the authors' 1000-epoch recipe. Not run yet; published: 96.0 after
the second stage, which is also configs/sup_con_cifar10_authors_linear.py.

    python train.py configs/sup_con_cifar10_authors.py
    python eval.py runs/sup_con_cifar10_authors --protocol supcon  # the figure's protocol

Their code multiplies the loss by temperature / 0.07, and the learning rate is meant for that.
"""

from jaxcl import Experiment
from jaxcl.augment import moco_v2
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SupCon
from jaxcl.training import SGD

experiment = Experiment(
    method=SupCon(
        augment=moco_v2(32, blur=0.0, normalize="cifar10"),
        encoder=ResNet(50, stem="cifar", zero_init=False),
        projector=MLP((0,), 128, norm="none", bias=True, out_bias=True, kernel_init="torch"),
        temperature=0.1,
        scale=0.1 / 0.07,
    ),
    data=Data(TFDS("cifar10"), batch_size=1024),
    optim=SGD(
        lr=0.5,
        scaling="none",
        weight_decay=1e-4,
        decay_all=True,
        epochs=1000,
        warmup_epochs=10,
        warmup_from=0.02,
        fall_from="start",
        final=1e-3,
    ),
)
