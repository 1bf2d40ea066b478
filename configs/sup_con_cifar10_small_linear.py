"""SupCon on CIFAR-10 for two CPU cores, second stage: a linear classifier on the frozen encoder,
5 epochs.

A minute of CPU time, after 5 epochs of 20,000 images in the first stage with the weaker views of
before 2026-11-28, three seeds: top-1 49.0 ± 1.1 %.

    python train.py configs/sup_con_cifar10_small_linear.py --data folder-or-zip-of-class-folders

Starts from runs/sup_con_cifar10_small; another run is `--method.start-from DIR`.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data
from jaxcl.encoders import ResNet
from jaxcl.methods import LinearClassifier
from jaxcl.training import SGD, ClassifierAccuracy

experiment = Experiment(
    method=LinearClassifier(
        augment=crop_and_flip(32, min_scale=0.2, normalize="cifar10"),
        encoder=ResNet(10, width=0.375, stem="half", stages=3),
        classes=10,
        start_from="runs/sup_con_cifar10_small",
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=SGD(lr=1.0, scaling="none", weight_decay=0.0, epochs=5, warmup_epochs=0),
    probe=ClassifierAccuracy(every=5),
)
