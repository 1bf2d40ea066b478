"""SimCLR v2, ResNet-18, CIFAR-10, third run: self-distillation on all images. Not run yet.

    python train.py configs/simclr_v2_cifar10_distil.py

The teacher is runs/simclr_v2_cifar10_finetune. All images are seen, without labels; a part of them,
`--data.labels.keep 0.01 --method.alpha 0.9`, may count beside the teacher. A smaller student:
`--method.encoder.width 0.5 --method.keep-layers 0 --method.temperature 1`.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data, Labels
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import Distil
from jaxcl.methods.classifier import Classifier
from jaxcl.training import LARS

ENCODER = ResNet(18, stem="cifar", first_shortcut=True, kernel_init="lecun")
HEAD = MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01")

experiment = Experiment(
    method=Distil(
        augment=crop_and_flip(32, sampler="tensorflow", interpolation="tf_bicubic", normalize=None),
        encoder=ENCODER,
        projector=HEAD,
        keep_layers=1,
        classes=10,
        teacher=Classifier(ENCODER, HEAD, keep_layers=1, classes=10),
        teacher_run="runs/simclr_v2_cifar10_finetune",
        temperature=0.1,
    ),
    data=Data(TFDS("cifar10"), batch_size=512, labels=Labels(0.0, "hide")),
    optim=LARS(lr=1.0, weight_decay=1e-4, epochs=400, warmup_epochs=10, plain=("logits",)),
)
