"""SimCLR v2 on CIFAR-10 for two CPU cores, first run: pre-training, 10 epochs.

15 minutes of CPU time, one seed, weaker views of before 2026-11-28: kNN 49.0 % of 2,000 test images
among 10,000.

    python train.py configs/simclr_v2_cifar10_small_pretrain.py
    python train.py configs/simclr_v2_cifar10_small_finetune.py
    python train.py configs/simclr_v2_cifar10_small_distil.py

Each of the three starts from the one before it. As simclr_cifar10_small, with a head of three
layers; `--method.queue 4096` adds the memory of negatives.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimCLRv2
from jaxcl.training import SGD, Probe

experiment = Experiment(
    method=SimCLRv2(
        augment=simclr(32, strength=0.5, blur=0.0, normalize="cifar10"),
        encoder=ResNet(10, width=0.375, stem="half", stages=3),
        projector=MLP((0, 0), 128, final_norm="scale"),
        temperature=0.2,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=SGD(lr=0.12, weight_decay=5e-4, epochs=10, warmup_epochs=1),
    probe=Probe(bank=10_000, queries=2_000),
)
