"""SimCLR v2, ResNet-18, CIFAR-10, first run: pre-training, 1000 epochs. Not run yet.

    python train.py configs/simclr_v2_cifar10_pretrain.py
    python train.py configs/simclr_v2_cifar10_finetune.py
    python train.py configs/simclr_v2_cifar10_distil.py

The recipe of the authors' code for CIFAR-10 with a head of three layers. With two they come to
about 91: `python eval.py RUN --protocol simclr --epochs 100 --batch-size 512`, but for the weight
decay of 1e-6, which is 0 there. `--method.queue 65536` adds the memory of negatives.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimCLRv2
from jaxcl.training import LARS

experiment = Experiment(
    method=SimCLRv2(
        augment=simclr(32, strength=0.5, blur=0.0, interpolation="tf_bicubic", normalize=None),
        encoder=ResNet(18, stem="cifar", first_shortcut=True, kernel_init="lecun"),
        projector=MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01"),
        temperature=0.5,
        scale=2.0,
    ),
    data=Data(TFDS("cifar10"), batch_size=512),
    optim=LARS(lr=1.0, weight_decay=1e-4, epochs=1000, warmup_epochs=10),
)
