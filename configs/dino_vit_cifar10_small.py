"""DINO on CIFAR-10 for two CPU cores: a small transformer with local crops, 10 epochs.

5 epochs of 20,000 images are too few for it, one seed, with weaker views of before 2026-11-28:
kNN 28.1 %, linear 36.5 %; untrained: 29.2 %, 31.9 %. The whole 10 epochs: not run yet.

python train.py configs/dino_vit_cifar10_small.py --data folder-or-zip-of-class-folders
"""

from jaxcl import Experiment
from jaxcl.augment import dino
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, ViT
from jaxcl.methods import DINO
from jaxcl.training import AdamW, Probe

experiment = Experiment(
    method=DINO(
        augment=dino(32, local_size=16, local=4, blur=False, normalize="cifar10"),
        encoder=ViT(width=96, depth=4, heads=3, patch=8, image=32, drop_path=0.1),
        projector=MLP(
            (512,),
            128,
            norm="none",
            bias=True,
            out_bias=True,
            activation="gelu",
            kernel_init="trunc_normal_0.02",
        ),
        prototypes=Prototypes(1024, unit=True, unit_inputs=True),
        momentum=0.99,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=AdamW(
        lr=1e-3,
        weight_decay=0.04,
        final_weight_decay=0.4,
        clip_each=3.0,
        epochs=10,
        warmup_epochs=1,
    ),
    probe=Probe(bank=10_000, queries=2_000),
)
