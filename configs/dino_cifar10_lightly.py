"""DINO, ResNet-18, CIFAR-10, lightly's 200-epoch recipe. Not run yet; published: kNN 81.3.

    python train.py configs/dino_cifar10_lightly.py
    python eval.py runs/dino_cifar10_lightly --protocol lightly  # the figure's protocol

Their best-epoch kNN (k=200, T=0.1) at batch 512; at batch 128 it is 84.0. Two layers under the
prototypes, which are never frozen, and a teacher that follows at one pace; there its head starts
with other weights than the student's. What else differs is in docs/fidelity.md.
"""

from jaxcl import Experiment
from jaxcl.augment import dino
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, ResNet
from jaxcl.methods import DINO
from jaxcl.training import SGD

experiment = Experiment(
    method=DINO(
        augment=dino(32, local=0, blur=False),
        encoder=ResNet(18, stem="cifar", stem_relu=False, kernel_init="torch", zero_init=False),
        projector=MLP((2048,), 256, out_bias=True, activation="gelu", kernel_init="torch"),
        prototypes=Prototypes(2048, unit=True, unit_inputs=True),
        momentum=0.99,
        final_momentum=0.99,
        frozen_epochs=0,
        keep="student",
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
