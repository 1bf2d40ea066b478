"""SwAV, ResNet-18, CIFAR-10, lightly's 200-epoch recipe. Not run yet; published: kNN 84.2.

    python train.py configs/swav_cifar10_lightly.py
    python eval.py runs/swav_cifar10_lightly --protocol lightly  # the figure's protocol

Their best-epoch kNN (k=200, T=0.1) at batch 512; at batch 128 it is 81.2. Their prototypes have
biases and never stand still, and their views go through the network one by one.
"""

from jaxcl import Experiment
from jaxcl.augment import swav
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, ResNet
from jaxcl.methods import SwAV
from jaxcl.training import Adam

experiment = Experiment(
    method=SwAV(
        augment=swav(32, local=0, strength=0.5, blur=0.0),
        encoder=ResNet(18, stem="cifar", stem_relu=False, kernel_init="torch", zero_init=False),
        projector=MLP((512,), 128, out_bias=True, kernel_init="torch"),
        prototypes=Prototypes(512, bias=True),
        freeze_epochs=0,
        views_apart=True,
    ),
    data=Data(TFDS("cifar10"), batch_size=512),
    optim=Adam(
        lr=2e-3,
        weight_decay=1e-6,
        decay_all=True,
        epochs=200,
        warmup_epochs=0,
        changes="epoch",
    ),
)
