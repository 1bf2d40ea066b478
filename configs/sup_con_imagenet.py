"""SupCon, ResNet-50, ImageNet, the authors' released settings. Not run yet; published: 78.7 with
AutoAugment and 700 epochs.

    python train.py configs/sup_con_imagenet.py --data folder-with-train-and-val

Batch, optimiser, temperature and the 350 epochs are those of the authors' script for TPUs, whose
loss is multiplied by the temperature. It makes views by AutoAugment; here they are SimCLR's. Made
for an accelerator or many; on few, `--method.chunks 8 --method.encoder.groups 8` trains the same
global batch in an eighth of the memory.
"""

from jaxcl import Experiment
from jaxcl.augment import simclr
from jaxcl.data import TFDS, Data
from jaxcl.encoders import MLP, ResNet
from jaxcl.methods import SupCon
from jaxcl.training import LARS

experiment = Experiment(
    method=SupCon(
        augment=simclr(224, interpolation="tf_bicubic", inference_crop=0.875),
        encoder=ResNet(50, dtype="bfloat16"),
        projector=MLP((0,), 128, norm="none", bias=True, out_bias=True, dtype="bfloat16"),
        temperature=0.1,
        scale=0.1,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=6144),
    optim=LARS(lr=0.4, weight_decay=1e-3, epochs=350, warmup_epochs=12),
)
