"""SupCon on CIFAR-10 for two CPU cores: a narrow ResNet-10, 10 epochs.

7 minutes at 1,150 images/s, one seed: kNN 69.8 %, linear 71.5 %; untrained: 30.9 %, 33.9 %. 5
epochs of 20,000 images, three seeds: kNN 48.3 ± 0.9 %, linear 50.3 ± 0.5 %; untrained:
28.9 ± 0.4 %, 33.8 ± 0.3 %.

python train.py configs/sup_con_cifar10_small.py --data folder-or-zip-of-class-folders
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SupCon
from jaxcl.training import SGD, Probe

experiment = Experiment(
    method=SupCon(
        augment=simclr(32, strength=0.5, blur=0.0, normalize="cifar10"),
        encoder=ResNet(10, width=0.375, stem="half", stages=3),
        projector=MLP((0,), 128, final_norm="affine"),
        temperature=0.2,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=SGD(lr=0.48, weight_decay=5e-4, epochs=10, warmup_epochs=1),
    probe=Probe(bank=10_000, queries=2_000),
)
