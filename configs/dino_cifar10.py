"""DINO, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet;
published: linear 89.52.

    python train.py configs/dino_cifar10.py
    python eval.py runs/dino_cifar10 --protocol solo-learn  # the figure's protocol

The settings of the run behind the published figure, from the code of its day: batch norm in the
head, each view with its own batch statistics, and a teacher's temperature that rises from 0.04 to
0.07 within 50 epochs. What differs from that code is in docs/fidelity.md.
"""

from jaxcl import Experiment
from jaxcl.augment import dino
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, ResNet
from jaxcl.methods import DINO
from jaxcl.training import LARC, Probe

experiment = Experiment(
    method=DINO(
        augment=dino(32, local=0, global_scale=0.08, blur=False, normalize="cifar10_pixels"),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch", zero_init=False),
        projector=MLP(
            (2048, 2048),
            256,
            bias=True,
            out_bias=True,
            activation="gelu",
            kernel_init="normal_0.02",
        ),
        prototypes=Prototypes(4096, unit=True, unit_inputs=True),
        teacher_temperature=0.07,
        temperature_epochs=50,
        momentum=0.9995,
        keep="student",
        views_apart=True,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=LARC(
        lr=0.3,
        weight_decay=1e-6,
        epochs=1000,
        warmup_epochs=10,
        warmup_from=0.01,
        warmup_end="last",
        changes="epoch",
    ),
    probe=Probe(lr=0.1, optimiser="run"),
)
