"""BYOL without batch statistics, ResNet-50, ImageNet, 1000 epochs. Not run yet;
published: linear top-1 73.9, against 74.3 with batch norm.

    python train.py configs/byol_nobn_imagenet.py --data folder-with-train-and-val
    python eval.py runs/byol_nobn_imagenet --protocol byol  # the figure's protocol

Group norm of 16 groups and standardised kernels in encoder and heads (Richemond et al. 2020,
arXiv:2010.10241); all else is BYOL's own recipe for this length.

Crops that are cut on the host are resized by OpenCV's bicubic kernel, a little sharper than
TensorFlow's; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import byol
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import BYOL
from jaxcl.training import LARS

HEAD = MLP((4096,), 256, norm="group", bias=True, dtype="bfloat16")

experiment = Experiment(
    method=BYOL(
        augment=byol(224, inference_crop=0.875),
        encoder=ResNet(50, norm="group", zero_init=False, dtype="bfloat16"),
        projector=HEAD,
        predictor=HEAD,
        momentum=0.996,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=4096),
    optim=LARS(lr=0.2, weight_decay=1.5e-6, lr_inside=False, epochs=1000, warmup_epochs=10),
)
