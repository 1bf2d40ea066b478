"""SupCon, ResNet-50, ImageNet, second stage: a linear classifier on the frozen encoder. Not run
yet; published with AutoAugment and 700 epochs of the first: 78.7.

    python train.py configs/sup_con_imagenet_linear.py --data folder-with-train-and-val

Starts from runs/sup_con_imagenet. The settings are those of the protocol simclr, 90 epochs of
Nesterov SGD; the authors' script has RMSProp for as long, on features of length 1, with smoothed
labels.
"""

from jaxcl.augment import simclr
from jaxcl.data import TFDS
from jaxcl.encoders import ResNet
from jaxcl.protocols import linear_experiment

experiment = linear_experiment(
    "simclr",
    encoder=ResNet(50, kernel_init="lecun", even_pool=False, dtype="bfloat16"),
    recipe=simclr(224, interpolation="tf_bicubic", inference_crop=0.875),
    source=TFDS("imagenet2012"),
    classes=1000,
    start_from="runs/sup_con_imagenet",
)
