"""MoCo, ResNet-18, CIFAR-10, as in the authors' demo notebook. Not run yet;
published: kNN 82.6 after 200 epochs, 86.3 after 400, 88.7 after 800.

    python train.py configs/moco_v2_cifar10_demo.py --optim.epochs 400
    python eval.py runs/moco_v2_cifar10_demo --protocol moco  # the figure's protocol

Their kNN is of the projections (k=200, T=0.1). Symmetric it is 85.3, 88.5, 89.7. They add the two
directions where ours are averaged; the same steps come from

    --method.symmetric --optim.lr 0.06 --optim.weight-decay 2.5e-4

Their directions share one queue, ours have one each.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import MoCo
from jaxcl.training import SGD

experiment = Experiment(
    method=MoCo(
        augment=simclr(32, strength=0.5, blur=0.0, impl="torchvision", normalize="cifar10"),
        encoder=ResNet(18, stem="cifar", stem_init="torch", groups=8, zero_init=False),
        projector=MLP((), 128, out_bias=True, kernel_init="torch"),
        temperature=0.1,
        queue=4096,
        momentum=0.99,
    ),
    data=Data(TFDS("cifar10"), batch_size=512),
    optim=SGD(
        lr=0.03,
        weight_decay=5e-4,
        decay_all=True,
        epochs=200,
        warmup_epochs=0,
        changes="epoch",
    ),
)
