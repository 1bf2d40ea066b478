"""Views made on the device, from (key, example).

Pure functions on one float32 image [h, w, c] in [0, 1]; operations (`Op`) that draw their strengths
from a key and call them; a `Recipe`, which makes all views of a batch; the papers' recipes by name.
"""

from jaxcl.augment.color import (
    ColorJitter,
    Grayscale,
    Solarize,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    grayscale,
    hsv_to_rgb,
    luma,
    rgb_to_hsv,
    solarize,
)
from jaxcl.augment.filters import (
    Blur,
    Cutout,
    Noise,
    Sobel,
    cutout,
    gaussian_blur,
    pillow_blur,
    sobel,
)
from jaxcl.augment.geometry import (
    CenterCrop,
    Flip,
    RandomAffine,
    RandomResizedCrop,
    Resize,
    Rotate90,
    affine,
    center_crop,
    crop_and_resize,
)
from jaxcl.augment.op import Op
from jaxcl.augment.recipe import Recipe, View
from jaxcl.augment.recipes import (
    byol,
    crop_and_flip,
    digits,
    dino,
    moco_v1,
    moco_v2,
    simclr,
    swav,
)

__all__ = [
    "Blur",
    "CenterCrop",
    "ColorJitter",
    "Cutout",
    "Flip",
    "Grayscale",
    "Noise",
    "Op",
    "RandomAffine",
    "RandomResizedCrop",
    "Recipe",
    "Resize",
    "Rotate90",
    "Sobel",
    "Solarize",
    "View",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "affine",
    "byol",
    "center_crop",
    "crop_and_flip",
    "crop_and_resize",
    "cutout",
    "digits",
    "dino",
    "gaussian_blur",
    "grayscale",
    "hsv_to_rgb",
    "luma",
    "moco_v1",
    "moco_v2",
    "pillow_blur",
    "rgb_to_hsv",
    "simclr",
    "sobel",
    "solarize",
    "swav",
]
