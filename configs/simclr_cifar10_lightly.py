"""SimCLR, ResNet-18, CIFAR-10, lightly's 200-epoch recipe. Not run yet; published: kNN 84.8.

    python train.py configs/simclr_cifar10_lightly.py
    python eval.py runs/simclr_cifar10_lightly --protocol lightly  # the figure's protocol

Their best-epoch kNN (k=200, T=0.1) at batch 512; at batch 128 it is 84.7.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimCLR
from jaxcl.training import SGD

experiment = Experiment(
    method=SimCLR(
        augment=simclr(32, strength=0.5, blur=0.0, impl="torchvision"),
        encoder=ResNet(18, stem="cifar", stem_relu=False, kernel_init="torch", zero_init=False),
        projector=MLP((512,), 128, final_norm="affine", kernel_init="torch"),
        temperature=0.5,
        views_apart=True,
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
