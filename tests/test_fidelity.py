"""Configs that quote a published figure against the code that the figure came from.

Each number is from the place that is named beside it, as repository, commit, file and line; what
cannot be compared by a machine is in docs/fidelity.md.
"""

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl.augment import Blur, ColorJitter, Solarize
from jaxcl.data import Digits, order
from jaxcl.encoders import initialise
from jaxcl.experiment import read_config
from jaxcl.methods import byol, dino
from jaxcl.methods.progress import Progress
from jaxcl.protocols import PROTOCOLS, linear_experiment

CONFIGS = Path(__file__).parents[1] / "configs"
read = cache(lambda name: read_config(CONFIGS / f"{name}.py"))
CIFAR10, IMAGENET = 50_000, 1_281_167

SOLO = ("simclr", "swav", "byol", "dino", "moco_v2", "simsiam", "sup_con", "deepcluster_v2")
LIGHTLY = ("simclr", "swav", "byol", "dino", "moco_v2", "simsiam")


def per_epoch(name):
    images = IMAGENET if "imagenet" in name else CIFAR10
    return order.steps_per_epoch(images, read(name).data.batch_size)


# ----- views: sampler, area, kernel; jitter; blur and solarise of each view; standard deviations

TV, TF, BYOL = "torchvision", "tensorflow", "clamp"
STRONG, WEAK, SHY = (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.2, 0.1)
PIXELS, IMAGES, LARGE = 0.2470, 0.2023, 0.229
VIEWS = {
    # solo-learn fca55e3 utils/contrastive_dataloader.py:78,84,88, args/dataset.py:33
    "simclr_cifar10": (TV, (0.08, 1), "bicubic", STRONG, (0.5, 0.5), (0, 0), PIXELS),
    "swav_cifar10": (TV, (0.08, 1), "bicubic", STRONG, (0.5, 0.5), (0, 0), PIXELS),
    "moco_v2_cifar10": (TV, (0.08, 1), "bicubic", WEAK, (0.5, 0.5), (0, 0), PIXELS),
    "simsiam_cifar10": (TV, (0.08, 1), "bicubic", WEAK, (0.5, 0.5), (0, 0), PIXELS),
    # solo-learn fca55e3 args/utils.py:18
    "byol_cifar10": (TV, (0.08, 1), "bicubic", SHY, (0, 0), (0, 0.2), PIXELS),
    "dino_cifar10": (TV, (0.08, 1), "bicubic", SHY, (0, 0), (0, 0.2), PIXELS),
    # solo-learn e90d420 deepclusterv2.sh:25, de9b927 supcon.sh:24
    "deepcluster_v2_cifar10": (TV, (0.08, 1), "bicubic", STRONG, (0, 0), (0, 0), PIXELS),
    "sup_con_cifar10": (TV, (0.08, 1), "bicubic", STRONG, (0, 0), (0, 0), PIXELS),
    # lightly 42a6a924 simclr_transform.py:131, simsiam_transform.py:131,
    # multi_crop_transform.py:51, dino_transform.py:202, cifar10_benchmark.py:237
    "simclr_cifar10_lightly": (TV, (0.08, 1), "bilinear", WEAK, (0, 0), (0, 0), LARGE),
    "moco_v2_cifar10_lightly": (TV, (0.08, 1), "bilinear", WEAK, (0, 0), (0, 0), LARGE),
    "byol_cifar10_lightly": (TV, (0.08, 1), "bilinear", WEAK, (0, 0), (0, 0), LARGE),
    "simsiam_cifar10_lightly": (TV, (0.2, 1), "bilinear", WEAK, (0, 0), (0, 0), LARGE),
    "swav_cifar10_lightly": (TV, (0.14, 1), "bilinear", WEAK, (0, 0), (0, 0), LARGE),
    "dino_cifar10_lightly": (TV, (0.4, 1), "bicubic", SHY, (0, 0), (0, 0.2), LARGE),
    # moco f736491 moco_cifar10_demo.ipynb:264; SupContrast 66a8fe5 main_supcon.py:135,147
    "moco_v2_cifar10_demo": (TV, (0.08, 1), "bilinear", WEAK, (0, 0), (0, 0), IMAGES),
    "sup_con_cifar10_authors": (TV, (0.2, 1), "bilinear", WEAK, (0, 0), (0, 0), IMAGES),
    # moco 3631be0 main_moco.py:226,239; simsiam a7bc177 main_simsiam.py:230
    "moco_v1_imagenet": (TV, (0.2, 1), "bilinear", (0.4,) * 4, (0, 0), (0, 0), LARGE),
    "moco_v2_imagenet": (TV, (0.2, 1), "bilinear", WEAK, (0.5, 0.5), (0, 0), LARGE),
    "simsiam_imagenet": (TV, (0.2, 1), "bilinear", WEAK, (0.5, 0.5), (0, 0), LARGE),
    # swav 06b1b7c multicropdataset.py:37-42
    "swav_imagenet": (TV, (0.14, 1), "bilinear", STRONG, (0.5, 0.5), (0, 0), LARGE),
    "swav_imagenet_256": (TV, (0.14, 1), "bilinear", STRONG, (0.5, 0.5), (0, 0), LARGE),
    "deepcluster_v2_imagenet": (TV, (0.14, 1), "bilinear", STRONG, (0.5, 0.5), (0, 0), LARGE),
    # dino 7c446df main_dino.py:436-454, README.md:207 for the ResNet
    "dino_imagenet": (TV, (0.4, 1), "bicubic", SHY, (1, 0.1), (0, 0.2), LARGE),
    "dino_resnet_imagenet": (TV, (0.14, 1), "bicubic", SHY, (1, 0.1), (0, 0.2), LARGE),
    # deepmind-research byol utils/dataset.py, utils/augmentations.py
    "byol_imagenet": (BYOL, (0.08, 1), "tf_bicubic", SHY, (1, 0.1), (0, 0.2), LARGE),
    # simclr 383d414 data_util.py:88,217,290,295, tf2/data_util.py:33,241,314,409
    "simclr_imagenet": (TF, (0.08, 1), "tf_bicubic", STRONG, (0.5, 0.5), (0, 0), None),
    "simclr_v2_imagenet_pretrain": (TF, (0.08, 1), "tf_bicubic", STRONG, (0.5, 0.5), (0, 0), None),
}  # fmt: skip
SMALL_CROPS = {"swav_imagenet": (0.05, 0.14), "swav_imagenet_256": (0.05, 0.14),
               "deepcluster_v2_imagenet": (0.05, 0.14), "dino_imagenet": (0.05, 0.4),
               "dino_resnet_imagenet": (0.05, 0.14)}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    sampler, area, kernel, jitter, blurs, solarised, deviation = VIEWS[name]
    recipe = read(name).method.augment
    large = [view for view in recipe.views for _ in range(view.copies)][:2]
    chances = lambda kind: tuple(
        sum(op.p for op in view.ops if isinstance(op, kind)) for view in large
    )
    assert chances(Blur) == blurs and chances(Solarize) == solarised
    for view in large:
        crop = view.crop
        assert (crop.sampler, crop.scale, crop.interpolation) == (sampler, area, kernel)
        (found,) = (op for op in view.ops if isinstance(op, ColorJitter))
        assert (found.brightness, found.contrast, found.saturation, found.hue) == jitter
        assert found.impl == ("torchvision" if sampler == TV else "simclr")
        assert all(op.impl == ("pillow" if sampler == TV else "simclr")
                   for op in view.ops if isinstance(op, Blur))  # fmt: skip
    assert (recipe.std and recipe.std[0]) == deviation
    small = [view.crop.scale for view in recipe.views if view.crop.size < recipe.size]
    assert small == ([SMALL_CROPS[name]] if name in SMALL_CROPS else [])


# ----- networks: parameters of the encoder and of the heads, layer by layer


@cache
def shapes(module, width=0):
    """Parameters of a module for images, or for rows of so many features."""
    side = getattr(module, "image", 32)
    x = jax.ShapeDtypeStruct((1, width) if width else (1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: initialise(module, jax.random.key(0), x)[0], x)


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


R18 = 11_168_832  # torchvision's resnet18 without fc, conv1 of 3x3
R50, R50_CIFAR = 23_508_032, 23_500_352  # resnet50 without fc; with conv1 of 3x3
ENCODERS = {"simclr_cifar10": R18, "simclr_cifar10_lightly": R18, "moco_v2_imagenet": R50,
            "sup_con_cifar10_authors": R50_CIFAR, "dino_imagenet": 21_665_664}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_of_the_encoder(name):
    """The last one is timm's and DINO's vit_small with patches of 16."""
    assert count(shapes(read(name).method.encoder)) == ENCODERS[name]


def test_encoders_that_are_alike():
    """Where each library's stem, batch norm and initial weights differ from the others'."""
    fields = lambda names, *keys: {tuple(getattr(read(n).method.encoder, k) for k in keys)
                                   for n in names}  # fmt: skip
    keys = ("depth", "stem", "stem_padding", "stem_relu", "kernel_init", "stem_init")
    # solo-learn fca55e3 solo/methods/base.py:101, e90d420 :143, de9b927 :227: torch's default init
    solo = fields((f"{n}_cifar10" for n in SOLO), *keys)
    assert solo == {(18, "cifar", 2, True, "he", "torch")}
    # lightly 42a6a924 cifar10_benchmark.py:295: the children, so no ReLU after bn1; resnet.py:193
    lightly = fields((f"{n}_cifar10_lightly" for n in LIGHTLY), *keys)
    assert lightly == {(18, "cifar", None, False, "torch", None)}
    # moco f736491 moco_cifar10_demo.ipynb:348; SupContrast 66a8fe5 networks/resnet_big.py:80,91
    assert fields(["moco_v2_cifar10_demo"], *keys) == {(18, "cifar", None, True, "he", "torch")}
    assert fields(["sup_con_cifar10_authors"], *keys) == {(50, "cifar", None, True, "he", None)}
    # swav 06b1b7c main_swav.py:80,116,162: groups of 8 GPUs with 64 images; moco: of 32 images
    assert fields(("swav_imagenet", "deepcluster_v2_imagenet"), "groups") == {(8,)}
    assert fields(("moco_v1_imagenet", "moco_v2_imagenet"), "groups") == {(8,)}
    assert fields(["swav_imagenet_256"], "groups") == {(1,)}  # :158, all together
    apart = {n: getattr(read(n).method, "views_apart", True) for n in VIEWS}  # the others always
    shared = {n for n in VIEWS if not apart[n]}
    # solo-learn base.py:249 and lightly :373,580,694 go view by view; Google, SwAV, DINO together
    assert not [n for n in shared if n.endswith("_cifar10") or n.endswith("_lightly")]


def linear(*widths, bias=True):
    """Parameters of linear layers from the first width to the last."""
    return sum((i + bias) * o for i, o in pairwise(widths))


HEADS = {
    # solo-learn fca55e3 solo/methods/simclr.py:15, swav.py:34,42, byol.py:20,37, dino.py:81,
    # mocov2plus.py:17,43, simsiam.py:18,31; simclr.sh:27, byol.sh:28 and so on; 2 for a norm
    "simclr_cifar10": (linear(512, 2048, 256),),
    "swav_cifar10": (linear(512, 2048, 128) + 2 * 2048, linear(128, 3000, bias=False) + 3000),
    "byol_cifar10": (linear(512, 4096, 256) + 2 * 4096, linear(256, 4096, 256) + 2 * 4096),
    "dino_cifar10": (linear(512, 2048, 2048, 256) + 4 * 2048, linear(256, 4096, bias=False)),
    "moco_v2_cifar10": (linear(512, 2048, 128),),
    "simsiam_cifar10": (linear(512, 2048, 2048, 2048, bias=False) + 4 * 2048,
                        linear(2048, 512, bias=False) + 2 * 512 + linear(512, 2048)),
    "deepcluster_v2_cifar10": (linear(512, 2048, 128) + 2 * 2048,),
    "sup_con_cifar10": (linear(512, 2048, 256),),
    # lightly 42a6a924 cifar10_benchmark.py:299,363,395,499,561,667 and heads.py:42: no bias
    # under a norm; the prototypes' bias is heads.py:482's
    "simclr_cifar10_lightly": (linear(512, 512, 128, bias=False) + 2 * 512 + 2 * 128,),
    "moco_v2_cifar10_lightly": (linear(512, 512, 128),),
    "byol_cifar10_lightly": (
        linear(512, 1024, bias=False) + 2 * 1024 + linear(1024, 256),
        linear(256, 1024, bias=False) + 2 * 1024 + linear(1024, 256),
    ),
    "simsiam_cifar10_lightly": (
        linear(512, 2048, 2048, bias=False) + 4 * 2048,
        linear(2048, 512, bias=False) + 2 * 512 + linear(512, 2048),
    ),
    "swav_cifar10_lightly": (
        linear(512, 512, bias=False) + 2 * 512 + linear(512, 128), linear(128, 512)
    ),
    "dino_cifar10_lightly": (
        linear(512, 2048, bias=False) + 2 * 2048 + linear(2048, 256),
        linear(256, 2048, bias=False),
    ),
    # moco 3631be0 moco/builder.py:26-31; SupContrast 66a8fe5 networks/resnet_big.py:174
    "moco_v1_imagenet": (linear(2048, 128),),
    "moco_v2_imagenet": (linear(2048, 2048, 128),),
    "sup_con_cifar10_authors": (linear(2048, 2048, 128),),
    # simsiam a7bc177 simsiam/builder.py:28-42
    "simsiam_imagenet": (linear(2048, 2048, 2048, 2048, bias=False) + 4 * 2048,
                         linear(2048, 512, bias=False) + 2 * 512 + linear(512, 2048)),
    # swav 06b1b7c src/resnet50.py:205,217
    "swav_imagenet": (linear(2048, 2048, 128) + 2 * 2048, linear(128, 3000, bias=False)),
    # dino 7c446df vision_transformer.py:264-276
    "dino_imagenet": (linear(384, 2048, 2048, 256), linear(256, 65536, bias=False)),
    # simclr 383d414 tf2/model.py: scale and offset within, scale alone at the end
    "simclr_imagenet": (linear(2048, 2048, 128, bias=False) + 2 * 2048 + 128,),
    "simclr_v2_imagenet_pretrain": (
        linear(2048, 2048, 2048, 128, bias=False) + 4 * 2048 + 128,
    ),
    # deepmind-research byol/utils/networks.py, MLP: bias in the first layer alone
    "byol_imagenet": (
        linear(2048, 4096) + 2 * 4096 + linear(4096, 256, bias=False),
        linear(256, 4096) + 2 * 4096 + linear(4096, 256, bias=False),
    ),
    # google-research 0c1bbe5 supcon/scripts/configs.sh (projection_head_layers), projection_head.py
    "sup_con_imagenet": (linear(2048, 128, bias=False),),
}  # fmt: skip
WIDTHS = {"simclr_v2_imagenet_pretrain": 2048, "dino_imagenet": 384}


@pytest.mark.parametrize("name", HEADS)
def test_parameters_of_the_heads(name):
    method = read(name).method
    width = WIDTHS.get(name, 512 if method.encoder.depth == 18 else 2048)
    sizes = [count(shapes(method.projector, width))]
    for part in ("predictor", "prototypes"):
        if hasattr(method, part):
            sizes.append(count(shapes(getattr(method, part), method.projector.out)))
    assert tuple(sizes) == HEADS[name]


# ----- optimiser: which tensors are decayed

ALL = {f"{part} {leaf}" for part in ("encoder", "head") for leaf in ("kernel", "bias", "scale")}
KERNELS = {"encoder kernel", "head kernel"}
DECAYED = {
    # solo-learn lars.py:80 (p.ndim != 1 or not exclude_bias_n_norm), with and without the option
    "simclr_cifar10": KERNELS, "byol_cifar10": KERNELS, "sup_con_cifar10": KERNELS,
    "dino_cifar10": {*KERNELS, "prototypes kernel"},
    "swav_cifar10": {*ALL, "prototypes kernel", "prototypes gain"},
    "deepcluster_v2_cifar10": ALL,
    # plain torch.optim.SGD or Adam over all parameters
    "moco_v2_cifar10": ALL, "simsiam_cifar10": ALL, "moco_v2_imagenet": ALL,
    "simsiam_imagenet": ALL, "sup_con_cifar10_authors": ALL, "moco_v2_cifar10_demo": ALL,
    "simclr_cifar10_lightly": ALL,
    "swav_cifar10_lightly": {*ALL, "prototypes kernel", "prototypes bias"},
    # swav 06b1b7c main_swav.py:171-177; dino 7c446df utils.py:639, weight_g is [count, 1]
    "swav_imagenet": {*ALL, "prototypes kernel"}, "deepcluster_v2_imagenet": ALL,
    "dino_imagenet": {*KERNELS, "prototypes kernel", "prototypes gain"},
    # simclr 383d414 tf2/model.py:40; deepmind-research byol/utils/optimizers.py
    "simclr_imagenet": KERNELS, "byol_imagenet": KERNELS, "sup_con_imagenet": KERNELS,
}  # fmt: skip


def stand_in(name):
    """Small arrays by the names and axes of the parameters."""
    method = read(name).method
    one = lambda axes: jnp.full((2,) * axes, 0.5)
    part = {"kernel": one(2), "bias": one(1), "scale": one(1)}
    params = {"encoder": {**part, "kernel": one(4)}, "head": part}
    if hasattr(method, "prototypes"):
        gain = {"train_gain": True} if name == "dino_imagenet" else {}  # their longer run's
        kept = shapes(method.prototypes.clone(**gain), method.projector.out)
        params["prototypes"] = {leaf: one(shape.ndim) for leaf, shape in kept.items()}
    return params


@pytest.mark.parametrize("name", DECAYED)
def test_which_tensors_are_decayed(name):
    """Those whose step is another one without the decay; the names are leaf by leaf."""
    optim = replace(read(name).optim, steady=(), warmup_epochs=0, warmup_end="after")
    params = stand_in(name)
    grads = jax.tree.map(lambda p: jnp.linspace(-0.1, 0.2, p.size).reshape(p.shape), params)
    steps = []
    for decay in (0.0, 0.5):
        optim = replace(optim, weight_decay=decay)
        if hasattr(optim, "final_weight_decay"):
            optim = replace(optim, final_weight_decay=None)
        transform = optim.transform(optax.constant_schedule(0.1), 10)
        steps.append(transform.update(grads, transform.init(params), params)[0])
    decayed = {
        f"{part} {leaf}"
        for part in params
        for leaf in params[part]
        if (np.asarray(steps[0][part][leaf]) != np.asarray(steps[1][part][leaf])).any()
    }
    assert decayed == DECAYED[name]


# ----- learning rates at the first ten steps, the first fifty epochs' starts and the last step


def bolts(base, start, warmup, least=0.0, epochs=1000):
    """lightning-bolts 031adc2, lr_scheduler.py:69-104, once an epoch (solo-learn base.py:219)."""
    rates = []
    for e in range(epochs):
        if e == 0:
            rate = start
        elif e < warmup:
            rate = rate + (base - start) / (warmup - 1)
        elif e == warmup:
            rate = base
        else:
            share = lambda e: 1 + np.cos(np.pi * (e - warmup) / (epochs - warmup))
            rate = share(e) / share(e - 1) * (rate - least) + least
        rates.append(rate)
    return lambda step, per: rates[step // per]


def once_an_epoch(base, epochs):
    """lr * 0.5 * (1 + cos(pi * epoch / epochs))."""
    return lambda step, per: base * 0.5 * (1 + np.cos(np.pi * (step // per) / epochs))


def joined(base, start, warmup, least, epochs):
    """swav 06b1b7c main_swav.py:178-182, dino 7c446df utils.py:187-198."""

    def rate(step, per):
        up = np.linspace(start, base, warmup * per)
        t, length = step - len(up), (epochs - warmup) * per
        return (
            up[step] if t < 0 else least + 0.5 * (base - least) * (1 + np.cos(np.pi * t / length))
        )

    return rate


def tensorflow(base, warmup, epochs, images, batch, extra):
    """simclr 383d414 tf2/model.py:72-110, byol/utils/schedules.py: steps of all images."""
    first, total = warmup * images // batch, images * epochs // batch + extra

    def rate(step, per):
        if step < first:
            return step / first * base
        return base * 0.5 * (1 + np.cos(np.pi * min(step - first, total - first) / (total - first)))

    return rate


def sup_con(step, per):
    """SupContrast 66a8fe5 util.py:53-72, main_supcon.py:113: epochs count from 1."""
    epoch, batch = step // per + 1, step % per
    least = 0.5 * 0.1**3
    fall = lambda e: least + (0.5 - least) * (1 + np.cos(np.pi * e / 1000)) / 2
    if epoch > 10:
        return fall(epoch)
    return 0.01 + (batch + (epoch - 1) * per) / (10 * per) * (fall(10) - 0.01)


RATES = {
    # solo-learn fca55e3 bash_files/pretrain/cifar/*.sh, base.py:150; e90d420 deepclusterv2.sh
    "simclr_cifar10": bolts(0.4, 0.003, 10), "sup_con_cifar10": bolts(0.4, 0.003, 10),
    "byol_cifar10": bolts(1.0, 0.003, 10), "dino_cifar10": bolts(0.3, 0.003, 10),
    "moco_v2_cifar10": bolts(0.3, 0.003, 10), "simsiam_cifar10": bolts(0.5, 0.003, 10),
    "swav_cifar10": bolts(0.6, 0.003, 10, 6e-4),
    "deepcluster_v2_cifar10": bolts(0.6, 0.0, 11, 6e-4),
    # lightly 42a6a924 cifar10_benchmark.py:345-351,380,421,542,593,701 at batch 512 (128 SimSiam)
    "simclr_cifar10_lightly": once_an_epoch(0.24, 200),
    "moco_v2_cifar10_lightly": once_an_epoch(0.24, 200),
    "byol_cifar10_lightly": once_an_epoch(0.24, 200),
    "dino_cifar10_lightly": once_an_epoch(0.24, 200),
    "simsiam_cifar10_lightly": once_an_epoch(0.06, 200),
    "swav_cifar10_lightly": once_an_epoch(0.004, 200),
    # moco f736491 moco_cifar10_demo.ipynb:668; 3631be0 main_moco.py:376-379
    "moco_v2_cifar10_demo": once_an_epoch(0.06, 200),
    "moco_v2_imagenet": once_an_epoch(0.03, 200),
    "moco_v1_imagenet": lambda step, per: 0.03 * 0.1 ** sum(step // per >= e for e in (120, 160)),
    # simsiam a7bc177 main_simsiam.py:361
    "simsiam_imagenet": once_an_epoch(0.1, 100),
    # swav 06b1b7c scripts/*.sh; dino 7c446df main_dino.py:90-102, README.md:207
    "swav_imagenet": joined(4.8, 0.3, 10, 0.0048, 800),
    "deepcluster_v2_imagenet": joined(4.8, 0.3, 10, 0.0048, 800),
    "swav_imagenet_256": joined(0.6, 0.0, 0, 0.0006, 200),
    "dino_imagenet": joined(0.001, 0.0, 10, 1e-6, 100),
    "dino_resnet_imagenet": joined(0.06, 0.0, 10, 1e-6, 100),
    "sup_con_cifar10_authors": sup_con,
    "byol_imagenet": tensorflow(4.8, 10, 300, IMAGENET, 4096, 0),
    "simclr_imagenet": tensorflow(4.8, 10, 100, IMAGENET, 4096, 1),
    "simclr_v2_imagenet_pretrain": tensorflow(6.4, 40, 800, IMAGENET, 4096, 1),
    "simclr_v2_cifar10_pretrain": tensorflow(2.0, 10, 1000, CIFAR10, 512, 1),
    # google-research 0c1bbe5 supcon/hparams.py:95 (12 epochs), launcher's base of 256
    "sup_con_imagenet": tensorflow(9.6, 12, 350, IMAGENET, 6144, 0),
}  # fmt: skip
LOOSE = {
    "byol_imagenet", "simclr_imagenet", "simclr_v2_imagenet_pretrain", "sup_con_imagenet",
    "simclr_v2_cifar10_pretrain",
}  # fmt: skip
"""Their epochs have the steps of all images, 312.8 or 97.7, ours those of whole batches."""


@pytest.mark.parametrize("name", RATES)
def test_learning_rates(name):
    optim, per = read(name).optim, per_epoch(name)
    ours = optim.schedule(read(name).data.batch_size, per)
    first, epochs = np.arange(10), per * np.arange(10, min(50, optim.epochs), 13)
    # float32; steps of an epoch, as above; SupCon's cosine changes by epoch, ours by step.
    limits = {"first": 2e-6, "later": 2e-6}
    if name in LOOSE:
        limits = {"first": 8e-3, "later": 2e-2}
    if name == "sup_con_cifar10_authors":
        limits = {"first": 2e-6, "later": 3e-4}
    for part, steps in (("first", first), ("later", epochs)):
        got = [float(ours(int(step))) for step in steps]
        wanted = [RATES[name](int(step), per) for step in steps]
        peak = optim.peak(read(name).data.batch_size)
        np.testing.assert_allclose(got, wanted, rtol=limits[part], atol=2e-7 * peak)


# ----- momenta of slow networks; kNN


def shares(name):
    """What the method keeps of its slow network at the first ten steps."""
    method, per = read(name).method, per_epoch(name)
    total = read(name).optim.epochs * per
    zero, one = ({"encoder": {"w": jnp.full((), v)}} for v in (0.0, 1.0))
    kept = []
    for step in range(10):
        progress = Progress(step, total, per)
        if hasattr(method, "_momentum"):
            kept.append(float(method._momentum(progress)))
        elif isinstance(method, dino.DINO):
            memory = dino.Memory(zero, {}, {}, jnp.zeros(1))
            kept.append(1 - float(method.after_step(one, memory, progress).teacher["encoder"]["w"]))
        else:
            memory = byol.Memory({}, zero, {})
            kept.append(1 - float(method.after_step(one, memory, progress).slow["encoder"]["w"]))
    return kept, total


MOMENTA = {
    # solo-learn fca55e3 solo/utils/momentum.py:27-31 with the values of mocov2plus.sh, byol.sh,
    # dino.sh; deepmind-research byol/utils/schedules.py; dino 7c446df main_dino.py:250
    "moco_v2_cifar10": (0.99, 0.999), "byol_cifar10": (0.99, 1.0), "dino_cifar10": (0.9995, 1.0),
    "byol_imagenet": (0.99, 1.0), "dino_imagenet": (0.996, 1.0),
    "dino_resnet_imagenet": (0.996, 1.0),
    # lightly 42a6a924 cifar10_benchmark.py:319,523,688; moco 3631be0 main_moco.py, the notebook
    "moco_v2_cifar10_lightly": (0.99, 0.99), "byol_cifar10_lightly": (0.99, 0.99),
    "dino_cifar10_lightly": (0.99, 0.99), "moco_v2_cifar10_demo": (0.99, 0.99),
    "moco_v1_imagenet": (0.999, 0.999), "moco_v2_imagenet": (0.999, 0.999),
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTA)
def test_first_momenta(name):
    start, end = MOMENTA[name]
    kept, total = shares(name)
    steps = np.arange(10)
    expected = end - (end - start) * (np.cos(np.pi * steps / total) + 1) / 2
    np.testing.assert_allclose(kept, expected, atol=3e-7)


def test_steps_in_which_swavs_prototypes_stand_still():
    """swav 06b1b7c main_swav.py:83 and scripts/swav_200ep_bs256_pretrain.sh; solo-learn swav.sh."""
    for name, steps in (("swav_imagenet", 313), ("swav_imagenet_256", 5005),
                        ("swav_cifar10", 2 * 195), ("swav_cifar10_lightly", 0)):  # fmt: skip
        method, per = read(name).method, per_epoch(name)
        still = method.frozen(Progress(jnp.arange(6000), 10**6, per)).get(
            "prototypes", jnp.zeros(1)
        )
        assert int(still.sum()) == steps


def test_neighbours():
    """lightly 42a6a924 cifar10_benchmark.py:103; the notebook:172; dino 7c446df eval_knn.py:194."""
    for name in (*(f"{n}_cifar10_lightly" for n in LIGHTLY), "moco_v2_cifar10_demo"):
        assert (read(name).probe.neighbours, read(name).probe.temperature) == (200, 0.1)
    for name in ("dino_imagenet", "dino_resnet_imagenet"):
        assert (read(name).probe.neighbours, read(name).probe.temperature) == (20, 0.07)


# ----- evaluation: what `eval.py --protocol` does

# batch; peak and shares of it at starts of epochs; Nesterov; decay of kernel, bias; kernel; crop
DROPS = {0: 1, 59: 1, 60: 0.1, 79: 0.1, 80: 0.01, 99: 0.01}
FIFTHS = {0: 1, 59: 1, 60: 0.2, 74: 0.2, 75: 0.04, 89: 0.04, 90: 0.008, 99: 0.008}
CIRCLE = lambda epochs: {e: (1 + np.cos(np.pi * e / epochs)) / 2 for e in (0, 1, 30, epochs - 1)}
NORMAL, WHOLE = "normal_0.01", 0.08
LINEAR = {
    # moco 3631be0 main_lincls.py:38-49,160,245,347
    "moco": (256, 30.0, DROPS, False, (0, 0), NORMAL, (TV, WHOLE, "bilinear")),
    # simclr 383d414 README.md:136-142, model_util.py:29-50,84, data_util.py
    "simclr": (4096, 1.6, CIRCLE(90), True, (1e-6, 1e-6), "zeros", (TF, WHOLE, "tf_bicubic")),
    "simclr-v2": (4096, 1.6, CIRCLE(90), True, (1e-6, 1e-6), "zeros", (TF, WHOLE, "tf_bicubic")),
    # deepmind-research 500ffd8 byol/configs/eval.py, byol/eval_experiment.py
    "byol": (1024, 0.8, CIRCLE(80), True, (0, 0), "lecun", (BYOL, WHOLE, "tf_bicubic")),
    # swav 06b1b7c eval_linear.py:62-75, README.md:114 (8 GPUs of 32 images)
    "swav": (256, 0.3, CIRCLE(100), False, (1e-6, 1e-6), NORMAL, (TV, WHOLE, "bilinear")),
    # simsiam a7bc177 main_lincls.py:188,231,493, README.md:43
    "simsiam": (4096, 1.6, CIRCLE(90), False, (0, 0), NORMAL, (TV, WHOLE, "bilinear")),
    # dino 7c446df eval_linear.py (8 GPUs of 128 images)
    "dino": (1024, 0.004, CIRCLE(100), False, (0, 0), NORMAL, (TV, WHOLE, "bilinear")),
    # SupContrast 66a8fe5 main_linear.py:35-47, README.md:85, torch's nn.Linear
    "supcon": (512, 5.0, FIFTHS, False, (0, 0), "torch", (TV, 0.2, "bilinear")),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_linear_protocols(name):
    batch, peak, rates, nesterov, decays, init, crop = LINEAR[name]
    made = linear_experiment(
        name, encoder=read("moco_v2_imagenet").method.encoder, source=Digits(), classes=10,
        recipe=read("moco_v2_imagenet").method.augment, start_from="run",
    )  # fmt: skip
    assert made.data.batch_size == batch and made.method.logits_init == init
    view = made.method.augment.views[0]
    assert (view.crop.sampler, view.crop.scale, view.crop.interpolation) == (
        crop[0], (crop[1], 1.0), crop[2],
    )  # fmt: skip
    assert [type(op).__name__ for op in view.ops] == ["Flip"]
    assert made.method.augment.inference_crop == 0.875  # Resize(256), CenterCrop(224)
    optim, per = made.optim, 10
    schedule = optim.schedule(batch, per)
    assert optim.epochs == max(rates) + 1
    got = [float(schedule(per * epoch)) for epoch in rates]
    np.testing.assert_allclose(
        got, [peak * share for share in rates.values()], rtol=2e-6, atol=2e-7 * peak
    )
    assert getattr(optim, "nesterov", False) == nesterov and optim.momentum == 0.9
    if name == "simsiam":  # apex's LARC, trust_coefficient=.001, clip=False
        assert (optim.trust, optim.clip_rate, optim.adapt_all) == (0.001, False, True)
        return
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    transform = optim.transform(optax.constant_schedule(1.0), 10)
    steps = transform.update(zero, transform.init(params), params)[0]
    by = 1.9 if nesterov else 1.0
    got = [-float(steps[leaf].ravel()[0]) / by for leaf in ("kernel", "bias")]
    np.testing.assert_allclose(got, decays, rtol=1e-5)


def test_neighbours_of_protocols():
    """moco's notebook:172; dino 7c446df eval_knn.py; lightly 42a6a924 cifar10_benchmark.py:103."""
    found = {name: p.knn for name, p in PROTOCOLS.items() if p.knn is not None}
    assert {name: (knn.neighbours, knn.temperature, knn.output) for name, knn in found.items()} == {
        "moco": ((200,), 0.1, "projection"), "lightly": ((200,), 0.1, "features"),
        "dino": ((10, 20, 100, 200), 0.07, "features"),
    }  # fmt: skip


def test_online_classifiers_are_solo_learns():
    """solo-learn fca55e3 solo/methods/base.py:155-165, classifier_lr of the scripts, unscaled."""
    for name in SOLO:
        probe = read(f"{name}_cifar10").probe
        assert probe.optimiser == "run" and probe.lr == (0.3 if name == "moco_v2" else 0.1)


def test_students_are_scored_where_they_are_published():
    """solo-learn base.py:249 and lightly cifar10_benchmark.py:656 look at the student alone."""
    kept = [read(f"dino_{data}").method.keep for data in ("cifar10", "cifar10_lightly", "imagenet")]
    assert kept == ["student", "student", "teacher"]
    knn = {name: p.knn.network for name, p in PROTOCOLS.items() if p.knn is not None}
    assert knn == {"moco": "trained", "lightly": "trained", "dino": "kept"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_headers_name_the_protocol_of_their_figure(path):
    """Or are the classifier's own run, whose figure any `eval.py RUN` prints."""
    said = path.read_text().split('"""')[1]
    named = re.search(rf"python eval.py runs/{path.stem} --protocol (\S+)", said)
    if named:
        assert named[1] in PROTOCOLS
    elif "ublished" in said:
        assert path.stem.endswith(("_linear", "_finetune", "_distil")) or path.stem in OTHERS


OTHERS = ("sup_con_imagenet", "simcse_bert")
"""Whose protocol is not there (RMSProp, unit features), or that are on text."""


def test_loss_factors():
    """simclr 383d414 tf2/objective.py:87; solo-learn fca55e3 byol.py:94; lightly :532; SupCon."""
    scale = lambda name: read(name).method.scale
    assert scale("simclr_imagenet") == scale("simclr_v2_imagenet_pretrain") == 2
    assert scale("simclr_cifar10") == scale("simclr_cifar10_lightly") == 1
    assert (scale("byol_imagenet"), scale("byol_cifar10"), scale("byol_cifar10_lightly")) == (
        1, 0.5, 0.25
    )  # fmt: skip
    assert scale("sup_con_imagenet") == 0.1  # google-research supcon, scale_by_temperature
    assert scale("sup_con_cifar10_authors") == pytest.approx(0.1 / 0.07)  # losses.py
