"""MoCo v2, ResNet-50, ImageNet, the paper's recipe for 200 epochs. Not run yet;
published: linear top-1 67.5.

    python train.py configs/moco_v2_imagenet.py --data folder-with-train-and-val
    python eval.py runs/moco_v2_imagenet --protocol moco  # the figure's protocol

After 800 epochs (`--optim.epochs 800`): 71.1. Batch norm in 8 groups, as on the authors' 8 GPUs.

Crops that are cut on the host shrink by means over areas, which lie between Pillow's bilinear and
bicubic kernels in sharpness; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import moco_v2
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import MoCo
from jaxcl.training import SGD

experiment = Experiment(
    method=MoCo(
        augment=moco_v2(224, inference_crop=0.875),
        encoder=ResNet(50, groups=8, zero_init=False, dtype="bfloat16"),
        projector=MLP((2048,), 128, norm="none", bias=True, out_bias=True, kernel_init="torch"),
        temperature=0.2,
        queue=65536,
        momentum=0.999,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=256),
    optim=SGD(
        lr=0.03,
        weight_decay=1e-4,
        decay_all=True,
        epochs=200,
        warmup_epochs=0,
        changes="epoch",
    ),
)
