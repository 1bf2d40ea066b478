"""SimCLR v2, ResNet-50 with selective kernels, ImageNet, second run: fine-tuning on 1 % of the
labels. Not run yet; published: top-1 64.5 (72.1 with 10 %, 78.7 with all).

    python train.py configs/simclr_v2_imagenet_finetune.py --data folder-with-train-and-val
    python eval.py runs/simclr_v2_imagenet_finetune  # the figure is its "own classifier"

Starts from runs/simclr_v2_imagenet_pretrain. The published split is the authors' list
(imagenet_subsets/ in google-research/simclr): `--data.labels.file 1percent.txt`. 10 %:
`--data.labels.keep 0.1`, or `--data.labels.file 10percent.txt`, and `--optim.epochs 30`; all
labels: `--data.labels.keep 1 --method.keep-layers 0 --optim.epochs 30`. The
rate is that for wide networks and selective kernels; a plain ResNet-50 takes `--optim.lr 0.005`.

Crops that are cut on the host are resized by OpenCV's bicubic kernel, a little sharper than
TensorFlow's; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data, Labels
from jaxcl.encoders import MLP, simclr_v2_resnet
from jaxcl.methods import FineTune
from jaxcl.training import LARS, Probe

experiment = Experiment(
    method=FineTune(
        augment=crop_and_flip(
            224,
            sampler="tensorflow",
            interpolation="tf_bicubic",
            normalize=None,
            inference_crop=0.875,
        ),
        encoder=simclr_v2_resnet(50).clone(dtype="bfloat16"),
        projector=MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01", dtype="bfloat16"),
        keep_layers=1,
        classes=1000,
        start_from="runs/simclr_v2_imagenet_pretrain",
    ),
    data=Data(TFDS("imagenet2012"), batch_size=1024, labels=Labels(0.01)),
    optim=LARS(
        lr=0.002, scaling="sqrt", weight_decay=0.0, epochs=60, warmup_epochs=0, plain=("logits",)
    ),
    probe=Probe(every=10),
)
