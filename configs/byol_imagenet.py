"""BYOL, ResNet-50, ImageNet, the paper's recipe for 300 epochs. Not run yet.

    python train.py configs/byol_imagenet.py --data folder-with-train-and-val
    python eval.py runs/byol_imagenet --protocol byol  # the figure's protocol

Published: linear top-1 72.5 after 300 epochs, 74.3 after 1000. The authors' settings by length:

    --optim.epochs           40     100    300    1000
    --optim.lr               0.45   0.45   0.3    0.2
    --optim.weight-decay     1e-6   1e-6   1e-6   1.5e-6
    --method.momentum        0.97   0.99   0.99   0.996

Made for an accelerator or many; on few, `--method.chunks 8 --method.encoder.groups 8
--method.projector.groups 8 --method.predictor.groups 8` trains the same global batch in an eighth
of the memory.

Crops that are cut on the host are resized by OpenCV's bicubic kernel, a little sharper than
TensorFlow's; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import byol
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import BYOL
from jaxcl.training import LARS

HEAD = MLP((4096,), 256, bias=True, dtype="bfloat16")

experiment = Experiment(
    method=BYOL(
        augment=byol(224, inference_crop=0.875),
        encoder=ResNet(50, zero_init=False, kernel_init="lecun", even_pool=False, dtype="bfloat16"),
        projector=HEAD,
        predictor=HEAD,
        momentum=0.99,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=4096),
    optim=LARS(lr=0.3, weight_decay=1e-6, lr_inside=False, epochs=300, warmup_epochs=10),
)
