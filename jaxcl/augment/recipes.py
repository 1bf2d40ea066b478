"""The papers' recipes by name: plain values, to take as they are or to edit.

                  crop from  jitter b/c/s/h at p     grey  blur     solarise
    moco_v1       .2         .4/.4/.4/.4 at 1        .2    -        -         grey before jitter
    moco_v2       .2         .4/.4/.4/.1 at .8       .2    .5       -         also SimSiam
    simclr        .08        .8/.8/.8/.2 at .8       .2    .5       -         times its strength
    byol          .08        .4/.4/.2/.1 at .8       .2    1 | .1   0 | .2    view 1 | view 2
    dino          .4         .4/.4/.2/.1 at .8       .2    1 | .1   0 | .2    8 local: .05-.4, .5
    swav          .14        .8/.8/.8/.2 at .8       .2    .5       -         6 local: .05-.14

    crop_and_flip  .08        -                      -     -        -         one view

Each follows the library that its authors used: SimCLR draws boxes and blurs as in TensorFlow, BYOL
as in its own code, the others as with torchvision and Pillow. Inference resizes by the kernel that
crops are resized by.

All flip with probability 1/2. The flip comes first because it commutes with all that follows.
Other recipes are these with arguments: solo-learn's symmetric one for CIFAR-10 is
`simclr(32, impl="torchvision", interpolation="bicubic", normalize="cifar10_pixels")`, lightly's is
`simclr(32, strength=0.5, blur=0.0, impl="torchvision")`.
"""

from dataclasses import replace
from typing import Literal

from jaxcl.augment.boxes import Sampler
from jaxcl.augment.color import ColorJitter, Grayscale, Impl, Solarize
from jaxcl.augment.filters import Blur, Noise
from jaxcl.augment.geometry import Flip, Interpolation, RandomAffine, RandomResizedCrop
from jaxcl.augment.op import Op
from jaxcl.augment.recipe import Recipe, View
from jaxcl.errors import UserError

Normalize = Literal["imagenet", "cifar10", "cifar10_pixels"]
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar10_pixels": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
"""Mean and standard deviation per channel on the scale 0 to 1.

For CIFAR-10 the second is the mean of the images' own standard deviations in "cifar10", as with
SupCon's and MoCo's authors, and that of all pixels in "cifar10_pixels", as in solo-learn.
"""


def simclr(
    size: int = 224,
    *,
    strength: float = 1.0,
    blur: float = 0.5,
    min_scale: float = 0.08,
    normalize: Normalize | None = "imagenet",
    impl: Impl = "simclr",
    additive_brightness: bool = False,
    interpolation: Interpolation = "bilinear",
    inference_crop: float = 1.0,
) -> Recipe:
    """Two views alike: crop, flip, colour jitter, grey, blur.

    Args:
      size: side of the views in pixels.
      strength: factor on the jitter; 1 for ImageNet, 0.5 for CIFAR-10.
      blur: probability of the blur; 0 for CIFAR-10.
      min_scale: least share of the image's area in a crop.
      normalize: statistics to normalise with at the end; None leaves [0, 1], as the paper's code.
      impl: "simclr" draws boxes and blurs as TensorFlow code does, with the jitter of that name
        (`ColorJitter`); "torchvision" is all that in ports to PyTorch, with Pillow's blur.
      additive_brightness: add to the brightness instead of multiplying it, as the first version of
        SimCLR did.
      interpolation: kernel of the resize; the paper's code uses "tf_bicubic".
      inference_crop: share of the shorter side that inference sees; 0.875 is usual at 224.

    Reference: Chen et al. 2020, arXiv:2002.05709, appendix A.
    """
    tensorflow = impl == "simclr"
    jitter = _jitter(0.8 * strength, 0.8 * strength, 0.2 * strength, impl)
    jitter = replace(jitter, additive_brightness=additive_brightness)
    crop = RandomResizedCrop(
        size,
        (min_scale, 1.0),
        interpolation=interpolation,
        sampler="tensorflow" if tensorflow else "torchvision",
    )
    blurred = _blur(blur, "simclr" if tensorflow else "pillow")
    view = View(crop, (Flip(), jitter, Grayscale(), *blurred), copies=2)
    return _recipe((view,), size, normalize, inference_crop)


def crop_and_flip(
    size: int = 224,
    *,
    min_scale: float = 0.08,
    normalize: Normalize | None = "imagenet",
    interpolation: Interpolation = "bilinear",
    sampler: Sampler = "torchvision",
    inference_crop: float = 1.0,
) -> Recipe:
    """One view, cropped and flipped: how classifiers are trained.

    Args:
      size: side of the views in pixels.
      min_scale: least share of the image's area in a crop.
      normalize: statistics to normalise with at the end; None leaves [0, 1].
      interpolation: kernel of the resize; SimCLR's code uses "tf_bicubic".
      sampler: whose way of drawing boxes is followed; SimCLR's is "tensorflow".
      inference_crop: share of the shorter side that inference sees; 0.875 is usual at 224.
    """
    crop = RandomResizedCrop(size, (min_scale, 1.0), interpolation=interpolation, sampler=sampler)
    return _recipe((View(crop, (Flip(),)),), size, normalize, inference_crop)


def moco_v1(
    size: int = 224,
    *,
    normalize: Normalize | None = "imagenet",
    inference_crop: float = 1.0,
) -> Recipe:
    """Two views alike, grey before a jitter that is always on; no blur. Also InstDisc's.

    Reference: He et al. 2020, arXiv:1911.05722.
    """
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.4, p=1.0, impl="torchvision")
    view = View(RandomResizedCrop(size, (0.2, 1.0)), (Flip(), Grayscale(), jitter), copies=2)
    return _recipe((view,), size, normalize, inference_crop)


def moco_v2(
    size: int = 224,
    *,
    blur: float = 0.5,
    normalize: Normalize | None = "imagenet",
    inference_crop: float = 1.0,
) -> Recipe:
    """Two views alike, weaker in hue than SimCLR's. Also SimSiam's, and SupCon's without blur.

    Reference: Chen, Fan et al. 2020, arXiv:2003.04297.
    """
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1, impl="torchvision")
    ops = (Flip(), jitter, Grayscale(), *_blur(blur, "pillow"))
    view = View(RandomResizedCrop(size, (0.2, 1.0)), ops, copies=2)
    return _recipe((view,), size, normalize, inference_crop)


def byol(
    size: int = 224,
    *,
    min_scale: float = 0.08,
    normalize: Normalize | None = "imagenet",
    inference_crop: float = 1.0,
) -> Recipe:
    """Two views that differ: one always blurred, one seldom blurred and sometimes solarised.

    As in BYOL's code: boxes clamped to the image, TensorFlow's bicubic resize, brightness added,
    contrast per channel, saturation by HSV. Barlow Twins, VICReg and MoCo v3 took over the
    strengths, with torchvision's meanings.

    Reference: Grill et al. 2020, arXiv:2006.07733, appendix B.
    """
    crop = RandomResizedCrop(size, (min_scale, 1.0), interpolation="tf_bicubic", sampler="clamp")
    jitter = ColorJitter(0.4, 0.4, 0.2, 0.1, additive_brightness=True)
    views = tuple(View(crop, ops) for ops in _uneven(jitter, "simclr"))
    return _recipe(views, size, normalize, inference_crop)


def dino(
    size: int = 224,
    *,
    local_size: int = 96,
    local: int = 8,
    global_scale: float = 0.4,
    local_scale: float = 0.05,
    blur: bool = True,
    normalize: Normalize | None = "imagenet",
    inference_crop: float = 1.0,
) -> Recipe:
    """Two uneven global views of area over `global_scale`, then `local` small ones below it.

    For CIFAR-10 without `blur`.

    Reference: Caron et al. 2021, arXiv:2104.14294, and its code.
    """
    wide = RandomResizedCrop(size, (global_scale, 1.0), interpolation="bicubic")
    narrow = RandomResizedCrop(local_size, (local_scale, global_scale), interpolation="bicubic")
    jitter = ColorJitter(0.4, 0.4, 0.2, 0.1, impl="torchvision")
    views = [View(wide, ops) for ops in _uneven(jitter, "pillow")]
    if local:
        ops = (Flip(), jitter, Grayscale(), *_blur(0.5, "pillow"))
        views.append(View(narrow, ops, copies=local))
    if not blur:
        views = [replace(v, ops=tuple(o for o in v.ops if not isinstance(o, Blur))) for v in views]
    return _recipe(tuple(views), size, normalize, inference_crop)


def swav(
    size: int = 224,
    *,
    local_size: int = 96,
    local: int = 6,
    strength: float = 1.0,
    blur: float = 0.5,
    normalize: Normalize | None = "imagenet",
    inference_crop: float = 1.0,
) -> Recipe:
    """Two views of area over 0.14, then `local` small ones below it, all alike in colour.

    Also DeepCluster v2's. (The paper's code divides red by 0.228 where ImageNet's is 0.229.)

    Reference: Caron et al. 2020, arXiv:2006.09882, and its code.
    """
    jitter = _jitter(0.8 * strength, 0.8 * strength, 0.2 * strength, "torchvision")
    ops = (Flip(), jitter, Grayscale(), *_blur(blur, "pillow"))
    views = [View(RandomResizedCrop(size, (0.14, 1.0)), ops, copies=2)]
    if local:
        views.append(View(RandomResizedCrop(local_size, (0.05, 0.14)), ops, copies=local))
    return _recipe(tuple(views), size, normalize, inference_crop)


def digits(size: int = 16) -> Recipe:
    """Two views of grey handwriting: a slight affine map and strong noise; never flipped."""
    ops = (RandomAffine(10.0, 0.08, (0.9, 1.1), 10.0), Noise(p=1.0, sigma=0.3))
    return Recipe((View(None, ops, copies=2),), size)


def _jitter(level: float, saturation: float, hue: float, impl: Impl) -> ColorJitter:
    if not 0 <= hue <= 0.5:
        raise UserError(f"strength={5 * hue:g} turns hues too far; give a number from 0 to 2.5")
    return ColorJitter(level, level, saturation, hue, impl=impl)


def _blur(p: float, impl: Literal["simclr", "pillow"]) -> tuple[Op, ...]:
    return (Blur(p, impl=impl),) if p > 0 else ()


def _uneven(
    jitter: ColorJitter, blur: Literal["simclr", "pillow"]
) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """BYOL's pair: always blurred; seldom blurred, sometimes solarised."""
    shared = (Flip(), jitter, Grayscale())
    return (*shared, Blur(1.0, impl=blur)), (*shared, Blur(0.1, impl=blur), Solarize(0.2))


def _recipe(
    views: tuple[View, ...], size: int, normalize: Normalize | None, inference_crop: float
) -> Recipe:
    """Inference resizes by the kernel of the first view."""
    mean, std = (None, None) if normalize is None else STATISTICS[normalize]
    crop = views[0].crop
    kernel = crop.interpolation if crop else "bilinear"
    return Recipe(views, size, mean, std, inference_crop, kernel)
