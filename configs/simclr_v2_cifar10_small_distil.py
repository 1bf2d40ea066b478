"""SimCLR v2 on CIFAR-10 for two CPU cores, third run: self-distillation on all images.

8 minutes of CPU time, one seed, all test images, the weaker views of before 2026-11-28: top-1
47.6 % of a teacher with 46.5.

    python train.py configs/simclr_v2_cifar10_small_distil.py

The teacher is runs/simclr_v2_cifar10_small_finetune, and the student a network like it that starts
from the same pre-training. The 1 % of labels that the teacher saw are told (their images are the
same for the same share and seed), all others hidden; `--method.alpha 0.9` lets them count. A
smaller student that starts from nothing, of two thirds the width, comes to 46.8 %:
`--method.start-from "" --method.encoder.width 0.25 --method.keep-layers 0 --method.temperature 1
--optim.lr 0.12`. Gradients grow with the temperature, so a lower one wants a higher rate.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data, Labels
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import Distil
from jaxcl.methods.classifier import Classifier
from jaxcl.training import SGD, Probe

ENCODER = ResNet(10, width=0.375, stem="half", stages=3)
HEAD = MLP((0, 0), 128, final_norm="scale")

experiment = Experiment(
    method=Distil(
        augment=crop_and_flip(32, normalize="cifar10"),
        encoder=ENCODER,
        projector=HEAD,
        keep_layers=1,
        classes=10,
        start_from="runs/simclr_v2_cifar10_small_pretrain",
        teacher=Classifier(ENCODER, HEAD, keep_layers=1, classes=10),
        teacher_run="runs/simclr_v2_cifar10_small_finetune",
        temperature=0.1,
    ),
    data=Data(TFDS("cifar10"), batch_size=256, labels=Labels(0.01, "hide")),
    optim=SGD(lr=1.2, weight_decay=5e-4, epochs=10, warmup_epochs=1),
    probe=Probe(bank=10_000, queries=2_000),
)
