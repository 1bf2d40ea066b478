"""SupCon, ResNet-50, CIFAR-10, second stage: a linear classifier on the frozen encoder.
Not run yet; published: 96.0, the best epoch.

    python train.py configs/sup_con_cifar10_authors_linear.py

Starts from runs/sup_con_cifar10_authors. The settings are those of the protocol supcon: SGD at 5
for batches of 512, the learning rate falls to a fifth after 60, 75 and 90 of 100 epochs.
"""

from jaxcl.augment import moco_v2
from jaxcl.data import TFDS
from jaxcl.encoders import ResNet
from jaxcl.protocols import linear_experiment

experiment = linear_experiment(
    "supcon",
    encoder=ResNet(50, stem="cifar", zero_init=False),
    recipe=moco_v2(32, blur=0.0, normalize="cifar10"),
    source=TFDS("cifar10"),
    classes=10,
    start_from="runs/sup_con_cifar10_authors",
)
