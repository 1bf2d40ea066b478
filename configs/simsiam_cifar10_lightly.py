"""SimSiam, ResNet-18, CIFAR-10, lightly's 200-epoch recipe. Not run yet; published: kNN 81.9.

    python train.py configs/simsiam_cifar10_lightly.py
    python eval.py runs/simsiam_cifar10_lightly --protocol lightly  # the figure's protocol

Their best-epoch kNN (k=200, T=0.1) at batch 128; at batch 512, with the same learning rate, it is
76.4. Their predictor's rate falls like the others'.
"""

from jaxcl import Experiment
from jaxcl.augment import moco_v2
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SimSiam
from jaxcl.training import SGD

experiment = Experiment(
    method=SimSiam(
        augment=moco_v2(32, blur=0.0),
        encoder=ResNet(18, stem="cifar", stem_relu=False, kernel_init="torch", zero_init=False),
        projector=MLP((2048,), 2048, final_norm="affine", kernel_init="torch"),
        predictor=MLP((512,), 2048, out_bias=True, kernel_init="torch"),
    ),
    data=Data(TFDS("cifar10"), batch_size=128),
    optim=SGD(
        lr=0.06,
        scaling="none",
        weight_decay=5e-4,
        decay_all=True,
        epochs=200,
        warmup_epochs=0,
        changes="epoch",
    ),
)
