"""DINO, ViT-S/16, ImageNet, the authors' plain recipe for 100 epochs. Not run yet;
published: kNN 69.3, linear 74.0.

    python train.py configs/dino_imagenet.py --data folder-with-train-and-val
    python eval.py runs/dino_imagenet --protocol dino  # the figure's protocol

Made for an accelerator or many; on few, `--method.chunks 8` trains the same global batch in an
eighth of the memory. Better, and their 300-epoch recipe at batch 1024 (kNN 73.3, linear 76.0,
76.1 in the paper): `--optim.epochs 300 --data.batch-size 1024 --method.teacher-temperature 0.07
--method.temperature-epochs 30 --method.prototypes.train-gain`.

Crops that are cut on the host shrink by means over areas, which lie between Pillow's bilinear and
bicubic kernels in sharpness; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import dino
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, Prototypes, vit
from jaxcl.methods import DINO
from jaxcl.training import AdamW, Probe

experiment = Experiment(
    method=DINO(
        augment=dino(224, inference_crop=0.875),
        encoder=vit("S/16", drop_path=0.1, resize_offset=0.1, kernel_init="dino", dtype="bfloat16"),
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
    optim=AdamW(
        lr=5e-4,
        final=1e-3,
        weight_decay=0.04,
        final_weight_decay=0.4,
        clip_each=3.0,
        epochs=100,
        warmup_epochs=10,
        warmup_end="last",
    ),
    probe=Probe(neighbours=20, temperature=0.07),
)
