"""BYOL, ResNet-18, CIFAR-10, lightly's 200-epoch recipe. Not run yet; published: kNN 86.8.

    python train.py configs/byol_cifar10_lightly.py
    python eval.py runs/byol_cifar10_lightly --protocol lightly  # the figure's protocol

Their best-epoch kNN (k=200, T=0.1) at batch 512; at batch 128 it is 86.9. Their loss is half the
sum of two negative cosines, and the momentum stays at 0.99. The views are SimCLR's, as in the code
that made their figures; their code since then has BYOL's.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import BYOL
from jaxcl.training import SGD

HEAD = MLP((1024,), 256, out_bias=True, kernel_init="torch")

experiment = Experiment(
    method=BYOL(
        augment=simclr(32, strength=0.5, blur=0.0, impl="torchvision"),
        encoder=ResNet(18, stem="cifar", stem_relu=False, kernel_init="torch", zero_init=False),
        projector=HEAD,
        predictor=HEAD,
        momentum=0.99,
        final_momentum=0.99,
        scale=0.25,
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
