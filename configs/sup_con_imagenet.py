"""SupCon, ResNet-50, ImageNet, the authors' released settings. Not run yet; published: 78.7 with
AutoAugment and 700 epochs.

    python train.py configs/sup_con_imagenet.py --data folder-with-train-and-val

Batch, optimiser, temperature, head and the 350 epochs are those of the authors' script for TPUs:
one linear layer on features of length 1, where the paper has two, and a loss that is multiplied by
the temperature. The script makes views by AutoAugment; here they are SimCLR's. Made for an
accelerator or many; on few, `--method.chunks 8 --method.encoder.groups 8` trains the same global
batch in an eighth of the memory.
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
        encoder=ResNet(50, kernel_init="lecun", even_pool=False, dtype="bfloat16"),
        projector=MLP((), 128, unit_inputs=True, kernel_init="normal_0.01", dtype="bfloat16"),
        temperature=0.1,
        scale=0.1,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=6144),
    optim=LARS(lr=0.4, weight_decay=1e-3, epochs=350, warmup_epochs=12),
)
