"""SwAV, ResNet-50, ImageNet, batches of 256 with a queue, 200 epochs. Not run yet; published:
linear 72.7, and 74.3 after 400 epochs.

    python train.py configs/swav_imagenet_256.py --data folder-with-train-and-val
    python eval.py runs/swav_imagenet_256 --protocol swav  # the figure's protocol

Four GPUs in the paper.

Crops that are cut on the host shrink by means over areas, which lie between Pillow's bilinear and
bicubic kernels in sharpness; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import swav
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, ResNet
from jaxcl.methods import SwAV
from jaxcl.training import LARC

experiment = Experiment(
    method=SwAV(
        augment=swav(224, inference_crop=0.875),
        encoder=ResNet(50, zero_init=False, dtype="bfloat16"),
        projector=MLP(
            (2048,), 128, bias=True, out_bias=True, kernel_init="torch", dtype="bfloat16"
        ),
        prototypes=Prototypes(3000),
        freeze_epochs=1.0002,  # 5005 steps
        queue=3840,
        queue_epoch=15,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=256),
    optim=LARC(
        lr=0.6, weight_decay=1e-6, epochs=200, warmup_epochs=0, final=1e-3,
        trust=0.001, clip_rate=False, adapt_all=True,
    ),
)  # fmt: skip
