"""SimCLR v2 on CIFAR-10 for two CPU cores, second run: fine-tuning on 1 % of the labels.

A minute of CPU time, three draws of the labels, all test images, pre-trained with the weaker views
of before 2026-11-28: top-1 46.4 ± 0.3 %. With
`--method.keep-layers 0`, which discards the head, 45.8 ± 0.4; with `--method.start-from ""`, from
nothing, 28.6 ± 0.7.

    python train.py configs/simclr_v2_cifar10_small_finetune.py

Starts from runs/simclr_v2_cifar10_small_pretrain. 500 labelled images, two steps an epoch.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data, Labels
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import FineTune
from jaxcl.training import LARS, Probe

experiment = Experiment(
    method=FineTune(
        augment=crop_and_flip(32, normalize="cifar10"),
        encoder=ResNet(10, width=0.375, stem="half", stages=3),
        projector=MLP((0, 0), 128, final_norm="scale"),
        keep_layers=1,
        classes=10,
        start_from="runs/simclr_v2_cifar10_small_pretrain",
    ),
    data=Data(TFDS("cifar10"), batch_size=250, labels=Labels(0.01)),
    optim=LARS(
        lr=0.005, scaling="sqrt", weight_decay=0.0, epochs=60, warmup_epochs=0, plain=("logits",)
    ),
    probe=Probe(every=10, bank=10_000, queries=2_000),
)
