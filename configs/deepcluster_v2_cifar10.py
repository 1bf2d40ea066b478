"""DeepCluster v2, ResNet-18, CIFAR-10, solo-learn's 1000-epoch recipe. Not run yet; published:
linear 88.85.

    python train.py configs/deepcluster_v2_cifar10.py
    python train.py configs/deepcluster_v2_cifar10.py --data folder-or-zip-of-class-folders
    python eval.py runs/deepcluster_v2_cifar10 --protocol solo-learn  # the figure's protocol

The settings of the runs behind the published figure: two views without blur, biases and norms
adapted like kernels, a learning rate that ends at 6e-4. The first of their 11 epochs of warm-up
only fills the memory; here a pass without training does. Lightly publishes no figure of it.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import DeepClusterV2
from jaxcl.training import LARC, Probe

experiment = Experiment(
    method=DeepClusterV2(
        augment=simclr(
            32, blur=0.0, impl="torchvision", interpolation="bicubic", normalize="cifar10_pixels"
        ),
        encoder=ResNet(18, stem="cifar", stem_padding=2, stem_init="torch", zero_init=False),
        projector=MLP((2048,), 128, bias=True, out_bias=True, kernel_init="torch"),
        clusters=(3000, 3000, 3000),
        views_apart=True,
    ),
    data=Data(TFDS("cifar10"), batch_size=256),
    optim=LARC(
        lr=0.6,
        weight_decay=1e-6,
        epochs=1000,
        warmup_epochs=11,
        warmup_end="last",
        changes="epoch",
        final=1e-3,
        adapt_all=True,
    ),
    probe=Probe(lr=0.1, optimiser="run"),
)
