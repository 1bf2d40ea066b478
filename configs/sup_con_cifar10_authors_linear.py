"""SupCon, ResNet-50, CIFAR-10, second stage: a linear classifier on the frozen encoder.
Not run yet; published: 96.0.

    python train.py configs/sup_con_cifar10_authors_linear.py

Starts from runs/sup_con_cifar10_authors. As in the authors' code, the learning rate falls to a
fifth after 60, 75 and 90 epochs.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data
from jaxcl.encoders import ResNet
from jaxcl.methods import LinearClassifier
from jaxcl.training import SGD, Probe

experiment = Experiment(
    method=LinearClassifier(
        augment=crop_and_flip(32, min_scale=0.2, normalize="cifar10"),
        encoder=ResNet(50, stem="cifar", zero_init=False),
        classes=10,
        start_from="runs/sup_con_cifar10_authors",
    ),
    data=Data(TFDS("cifar10"), batch_size=512),
    optim=SGD(
        lr=5.0,
        scaling="none",
        weight_decay=0.0,
        epochs=100,
        warmup_epochs=0,
        decay="steps",
        drop_at=(0.6, 0.75, 0.9),
        drop_by=0.2,
    ),
    probe=Probe(linear=False, every=10),
)
