"""MoCo, ResNet-18, CIFAR-10, lightly's 200-epoch recipe. Not run yet; published: kNN 84.7.

    python train.py configs/moco_v2_cifar10_lightly.py
    python eval.py runs/moco_v2_cifar10_lightly --protocol lightly  # the figure's protocol

Their best-epoch kNN (k=200, T=0.1) at batch 512; at batch 128 with a queue of 4096 it is 83.8.
Symmetric, batch norm in 8 groups. Their two directions share one queue, and the second one sees the
keys that the first has just put there; here each direction has a queue of that length.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import MoCo
from jaxcl.training import SGD

experiment = Experiment(
    method=MoCo(
        augment=simclr(32, strength=0.5, blur=0.0, impl="torchvision"),
        encoder=ResNet(
            18, stem="cifar", stem_relu=False, kernel_init="torch", groups=8, zero_init=False
        ),
        projector=MLP((512,), 128, norm="none", bias=True, out_bias=True, kernel_init="torch"),
        temperature=0.1,
        queue=8192,
        momentum=0.99,
        symmetric=True,
    ),
    data=Data(TFDS("cifar10"), batch_size=512),
    optim=SGD(
        lr=0.12,
        weight_decay=5e-4,
        decay_all=True,
        epochs=200,
        warmup_epochs=0,
        changes="epoch",
    ),
)
