"""DeepCluster v2, ResNet-50, ImageNet, the paper's recipe for 800 epochs. Not run yet; published:
linear 75.2.

    python train.py configs/deepcluster_v2_imagenet.py --data folder-with-train-and-val
    python eval.py runs/deepcluster_v2_imagenet --protocol swav  # the figure's protocol

Made for accelerators, 64 of them in the paper, whose batch norm sees groups of 512 images. Rows of
all images, 1.3 GB, lie on every device and in every checkpoint. On few devices, `--method.chunks 8`
trains the same in an eighth of the memory.

Crops that are cut on the host shrink by means over areas, which lie between Pillow's bilinear and
bicubic kernels in sharpness; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import swav
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import DeepClusterV2
from jaxcl.training import LARC

experiment = Experiment(
    method=DeepClusterV2(
        augment=swav(224, inference_crop=0.875),
        encoder=ResNet(50, groups=8, zero_init=False, dtype="bfloat16"),
        projector=MLP(
            (2048,), 128, bias=True, out_bias=True, kernel_init="torch", groups=8, dtype="bfloat16"
        ),
        clusters=(3000, 3000, 3000),
    ),
    data=Data(TFDS("imagenet2012"), batch_size=4096),
    optim=LARC(
        lr=0.3, weight_decay=1e-6, epochs=800, warmup_epochs=10, warmup_from=0.0625,
        warmup_end="last", final=1e-3, trust=0.001, clip_rate=False, adapt_all=True,
    ),
)  # fmt: skip
