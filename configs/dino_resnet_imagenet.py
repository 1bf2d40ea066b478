"""DINO, ResNet-50, ImageNet, the authors' recipe for 100 epochs. Not run yet;
published only for their longer run (kNN 67.5, linear 75.3).

    python train.py configs/dino_resnet_imagenet.py --data folder-with-train-and-val
    python eval.py runs/dino_resnet_imagenet --protocol dino  # the figure's protocol

Crops that are cut on the host shrink by means over areas, which lie between Pillow's bilinear and
bicubic kernels in sharpness; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import dino
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, ResNet
from jaxcl.methods import DINO
from jaxcl.training import SGD, Probe

experiment = Experiment(
    method=DINO(
        augment=dino(224, global_scale=0.14, inference_crop=0.875),
        encoder=ResNet(50, zero_init=False, dtype="bfloat16"),
        projector=MLP(
            (2048, 2048),
            256,
            norm="none",
            bias=True,
            out_bias=True,
            activation="gelu",
            kernel_init="normal_0.02",
            dtype="bfloat16",
        ),
        prototypes=Prototypes(65536, unit=True, unit_inputs=True, dtype="bfloat16"),
    ),
    data=Data(TFDS("imagenet2012"), batch_size=512),
    optim=SGD(
        lr=0.03,
        final=1.7e-5,
        weight_decay=1e-4,
        clip_each=3.0,
        epochs=100,
        warmup_epochs=10,
        warmup_end="last",
    ),
    probe=Probe(neighbours=20, temperature=0.07),
)
