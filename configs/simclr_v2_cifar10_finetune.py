"""SimCLR v2, ResNet-18, CIFAR-10, second run: fine-tuning on 1 % of the labels. Not run yet.

    python train.py configs/simclr_v2_cifar10_finetune.py

Starts from runs/simclr_v2_cifar10_pretrain. 10 % of the labels: `--data.labels.keep 0.1
--optim.epochs 30`; all of them: `--data.labels.keep 1 --method.keep-layers 0 --optim.epochs 30`.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data, Labels
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import FineTune
from jaxcl.training import LARS, Probe

experiment = Experiment(
    method=FineTune(
        augment=crop_and_flip(32, sampler="tensorflow", interpolation="tf_bicubic", normalize=None),
        encoder=ResNet(18, stem="cifar", first_shortcut=True, kernel_init="lecun"),
        projector=MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01"),
        keep_layers=1,
        classes=10,
        start_from="runs/simclr_v2_cifar10_pretrain",
    ),
    data=Data(TFDS("cifar10"), batch_size=250, labels=Labels(0.01)),
    optim=LARS(
        lr=0.005, scaling="sqrt", weight_decay=0.0, epochs=60, warmup_epochs=0, plain=("logits",)
    ),
    probe=Probe(every=10),
)
