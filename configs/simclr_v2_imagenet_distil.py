"""SimCLR v2, ImageNet, third run: a plain ResNet-50 taught by the fine-tuned one. Not run yet;
published with the largest teacher: top-1 73.9 (1 % of the labels), 77.5 (10 %).

    python train.py configs/simclr_v2_imagenet_distil.py --data folder-with-train-and-val
    python eval.py runs/simclr_v2_imagenet_distil  # the figure is its "own classifier"

The teacher is runs/simclr_v2_imagenet_finetune, whose network is `method.teacher`. All images are
seen, without labels; `--data.labels.keep 0.01 --method.alpha 0.9` lets a part of them count. The
authors let a teacher first teach a network like itself, at `--method.temperature 0.1`.

Crops that are cut on the host are resized by OpenCV's bicubic kernel, a little sharper than
TensorFlow's; `--data.crop device` has the authors' kernel, for images of one size.
"""

from jaxcl import Experiment
from jaxcl.augment import crop_and_flip
from jaxcl.data import TFDS, Data, Labels
from jaxcl.encoders import MLP, ResNet, simclr_v2_resnet
from jaxcl.methods import Distil
from jaxcl.methods.classifier import Classifier
from jaxcl.training import LARS

HEAD = MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01", dtype="bfloat16")

experiment = Experiment(
    method=Distil(
        augment=crop_and_flip(
            224,
            sampler="tensorflow",
            interpolation="tf_bicubic",
            normalize=None,
            inference_crop=0.875,
        ),
        encoder=ResNet(50, kernel_init="lecun", even_pool=False, dtype="bfloat16"),
        projector=HEAD,
        keep_layers=0,
        classes=1000,
        teacher=Classifier(
            simclr_v2_resnet(50).clone(dtype="bfloat16"), HEAD, keep_layers=1, classes=1000
        ),
        teacher_run="runs/simclr_v2_imagenet_finetune",
        temperature=1.0,
    ),
    data=Data(TFDS("imagenet2012"), batch_size=4096, labels=Labels(0.0, "hide")),
    optim=LARS(
        lr=0.1,
        scaling="sqrt",
        weight_decay=1e-4,
        epochs=400,
        warmup_epochs=20,
        plain=("logits",),
    ),
)
