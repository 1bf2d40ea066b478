"""SimCLR v2, ResNet-50 with selective kernels, ImageNet, first run: pre-training. Not run yet.

    python train.py configs/simclr_v2_imagenet_pretrain.py --data folder-with-train-and-val
    python eval.py runs/simclr_v2_imagenet_pretrain --protocol simclr-v2  # the figure's protocol
    python train.py configs/simclr_v2_imagenet_finetune.py --data folder-with-train-and-val
    python train.py configs/simclr_v2_imagenet_distil.py --data folder-with-train-and-val

Published by the authors after 800 epochs: linear top-1 74.6, fine-tuned with 1 % / 10 % of the
labels 64.5 / 72.1. Their largest network is `--method.encoder.depth 152 --method.encoder.width 3`
(79.8; 74.9 / 80.1). Made for many accelerators; `--method.queue 65536` adds the memory of
negatives.

Crops that are cut on the host are resized by OpenCV's bicubic kernel, a little sharper than
TensorFlow's; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, simclr_v2_resnet
from jaxcl.methods import SimCLRv2
from jaxcl.training import LARS

experiment = Experiment(
    method=SimCLRv2(
        augment=simclr(224, interpolation="tf_bicubic", normalize=None, inference_crop=0.875),
        encoder=simclr_v2_resnet(50).clone(dtype="bfloat16"),
        projector=MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01", dtype="bfloat16"),
        temperature=0.1,
        scale=2.0,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=4096),
    optim=LARS(lr=0.1, scaling="sqrt", weight_decay=1e-4, epochs=800, warmup_epochs=40),
)
