"""SimCLR, ResNet-50, ImageNet, the paper's recipe for 100 epochs. Not run yet.

    python train.py configs/simclr_imagenet.py --data folder-with-train-and-val
    python eval.py runs/simclr_imagenet --protocol simclr  # the figure's protocol

Published by the authors for 100 epochs: linear top-1 64.5, with the views of their first version,
whose jitter adds to the brightness. Made for an accelerator or many; on few, `--method.chunks 8
--method.encoder.groups 8 --method.projector.groups 8` trains the same global batch in an eighth of
the memory.

Crops that are cut on the host are resized by OpenCV's bicubic kernel, a little sharper than
TensorFlow's; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimCLR
from jaxcl.training import LARS

experiment = Experiment(
    method=SimCLR(
        augment=simclr(
            224,
            interpolation="tf_bicubic",
            normalize=None,
            additive_brightness=True,
            inference_crop=0.875,
        ),
        encoder=ResNet(50, kernel_init="lecun", even_pool=False, dtype="bfloat16"),
        projector=MLP((0,), 128, final_norm="scale", kernel_init="normal_0.01", dtype="bfloat16"),
        temperature=0.1,
        scale=2.0,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=4096),
    optim=LARS(lr=0.3, weight_decay=1e-6, epochs=100, warmup_epochs=10),
)
