"""SupCon, ResNet-50, ImageNet, second stage: a linear classifier on the frozen encoder. Not run
yet; published with AutoAugment and 700 epochs of the first: 78.7.

    python train.py configs/sup_con_imagenet_linear.py --data folder-with-train-and-val

Starts from runs/sup_con_imagenet. By SimCLR's linear protocol, 90 epochs of Nesterov SGD; the
authors' script has RMSProp for as long, on features of length 1, with smoothed labels.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data
from jaxcl.encoders import ResNet
from jaxcl.methods import LinearClassifier
from jaxcl.training import SGD, Probe

experiment = Experiment(
    method=LinearClassifier(
        augment=crop_and_flip(
            224, sampler="tensorflow", interpolation="tf_bicubic", inference_crop=0.875
        ),
        encoder=ResNet(50, kernel_init="lecun", even_pool=False, dtype="bfloat16"),
        classes=1000,
        start_from="runs/sup_con_imagenet",
    ),
    data=Data(TFDS("imagenet2012"), batch_size=4096),
    optim=SGD(lr=0.1, nesterov=True, weight_decay=1e-6, epochs=90, warmup_epochs=0),
    probe=Probe(linear=False, every=10),
)
