"""SimSiam, ResNet-50, ImageNet, the paper's recipe for 100 epochs. Not run yet;
published: linear top-1 68.1.

    python train.py configs/simsiam_imagenet.py --data folder-with-train-and-val
    python eval.py runs/simsiam_imagenet --protocol simsiam  # the figure's protocol

At batch 256 (`--data.batch-size 256`) it is 68.3, after 800 epochs 71.3.

Crops that are cut on the host shrink by means over areas, which lie between Pillow's bilinear and
bicubic kernels in sharpness; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import moco_v2
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimSiam
from jaxcl.training import SGD

experiment = Experiment(
    method=SimSiam(
        augment=moco_v2(224, inference_crop=0.875),
        encoder=ResNet(50, dtype="bfloat16"),
        projector=MLP((2048, 2048), 2048, final_norm="plain", kernel_init="torch"),
        predictor=MLP((512,), 2048, out_bias=True, kernel_init="torch"),
    ),
    data=Data(TFDS("imagenet2012"), batch_size=512),
    optim=SGD(
        lr=0.05,
        weight_decay=1e-4,
        decay_all=True,
        epochs=100,
        warmup_epochs=0,
        changes="epoch",
        steady=("predictor",),
    ),
)
