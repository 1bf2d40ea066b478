"""Images per second of the views made on the device: each operation, whole recipes, peers.

    python benchmarks/augment.py                 # 32 pixels from 32, 224 from 256
    python benchmarks/augment.py --size 224 --source 224 --batch 64

Two figures a line: images/s by the clock (best of `repeats`), and images per second of processor
time times the number of processors, which on a machine with other work tells what a quiet one would
do. A recipe makes two views of each image. Pillow's line does the same operations, decoded images
in memory, one process; torchvision's likewise, where it is installed. stable-pretraining's views in
JAX, where it is installed, have no hue, saturation or blur and do not antialias.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxcl.augment import RandomResizedCrop, Recipe, View, simclr
from jaxcl.augment.geometry import _resample_by_products, _resample_by_taps, _Stretch


def main(size: int = 0, source: int = 0, batch: int = 0, repeats: int = 10) -> None:
    """Print the figures.

    Args:
      size: side of the views; 0 measures 32 and 224.
      source: side of the images; 0 is 32 for small views and 256 for others.
      batch: images in one call; 0 is 512 for small views and 64 for others.
      repeats: runs of each line, of which the best counts.
    """
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind} x {len(jax.devices())}, ", end="")
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    for side in (size,) if size else (32, 224):
        small = side <= 64
        measure(side, source or (side if small else 256), batch or (512 if small else 64), repeats)


def measure(size: int, source: int, batch: int, repeats: int) -> None:
    print(f"\n{size} pixels from {source}, batch {batch}")
    pixels = np.random.default_rng(0).integers(0, 256, (batch, source, source, 3), dtype=np.uint8)
    images = jnp.asarray(pixels)
    keys = jax.random.split(jax.random.key(0), batch)

    def line(name: str, run: Callable[..., Any], *args: Any) -> None:
        print(f"  {name:38s}{rates(jax.jit(run), args, batch, repeats)}")

    recipe = simclr(size)
    (view,) = recipe.views
    assert view.crop is not None
    crops = (images[:, :size, :size],) * 2
    line("simclr, two views", recipe, keys, images)
    line("  cropped already", recipe.finish, keys, crops)
    line("simclr without blur, two views", simclr(size, blur=0.0), keys, images)
    for op in (view.crop, *view.ops):
        cut = isinstance(op, RandomResizedCrop)
        alone = Recipe((View(op, ()) if cut else View(None, (op,)),), size)
        line(f"{type(op).__name__}, one view", alone, keys, images if cut else crops[0])

    print("  crop-and-resize, by body")
    boxes = jax.vmap(lambda key: crop_box(view.crop, key, source))(keys)
    unit = images / 255
    for name, body in (
        ("  taps (on CPU)", _resample_by_taps),
        ("  matrix products (on accelerators)", _resample_by_products),
    ):
        line(
            name,
            jax.vmap(lambda image, box, body=body: resample(body, image, box, size)),
            unit,
            boxes,
        )
    line(
        "  jax.image.scale_and_translate", jax.vmap(lambda i, b: translate(i, b, size)), unit, boxes
    )
    try:
        from stable_pretraining.jax.augment import two_crop
    except ImportError:
        print("  stable-pretraining is not installed")
    else:
        some = lambda key, images: two_crop(key, images / 255, size)
        line("stable-pretraining, some, two views", some, keys[0], images)
    peers(pixels, size, repeats)


def crop_box(crop: RandomResizedCrop, key: Any, source: int) -> Any:
    return crop.box(jax.random.uniform(key, (crop.draws,)), source, source)


def resample(body: Callable[..., Any], image: Any, box: Any, size: int) -> Any:
    y, x, h, w = box
    down = _Stretch(y, h, image.shape[0], size, "bilinear")
    return body(image, down, _Stretch(x, w, image.shape[1], size, "bilinear"))


def translate(image: Any, box: Any, size: int) -> Any:
    """jax's own, which takes pixels from outside the box at its border."""
    y, x, h, w = box.astype(jnp.float32)
    scale = size / jnp.stack([h, w])
    shape = (size, size, 3)
    return jax.image.scale_and_translate(
        image, shape, (0, 1), scale, -scale * jnp.stack([y, x]), "linear", antialias=True
    )


def rates(run: Callable[..., Any], args: tuple[Any, ...], count: int, repeats: int) -> str:
    """images/s by the clock and by processor time."""
    jax.block_until_ready(run(*args))
    clock = busy = float("inf")
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(*args))
        clock = min(clock, time.perf_counter() - start)
        busy = min(busy, time.process_time() - used)
    return f"{count / clock:10,.0f} {(os.cpu_count() or 1) * count / busy:10,.0f}"


def peers(pixels: np.ndarray, size: int, repeats: int) -> None:
    for name, make in (("Pillow", pillow_views), ("torchvision", torchvision_views)):
        try:
            view = make(size)
        except ImportError:
            print(f"  {name} is not installed")
            continue
        some = pixels[: 100 if size <= 64 else 10]
        best = float("inf")
        for _ in range(max(3, repeats // 3)):
            start = time.process_time()
            for image in some:
                view(image), view(image)
            best = min(best, time.process_time() - start)
        print(f"  {name + ', two views, one process':38s}{len(some) / best:10,.0f}")


def pillow_views(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """SimCLR's view with Pillow, as its PyTorch ports do it."""
    from PIL import Image, ImageEnhance, ImageFilter

    draw = np.random.default_rng(0)
    crop = RandomResizedCrop(size)
    factor = lambda: draw.uniform(0.2, 1.8)

    def hue(image: Any) -> Any:
        h, s, v = image.convert("HSV").split()
        turned = np.asarray(h) + np.uint8(round(draw.uniform(-0.2, 0.2) * 255) % 256)
        return Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")

    jitter = [
        lambda image: ImageEnhance.Brightness(image).enhance(factor()),
        lambda image: ImageEnhance.Contrast(image).enhance(factor()),
        lambda image: ImageEnhance.Color(image).enhance(factor()),
        hue,
    ]

    def view(pixels: np.ndarray) -> np.ndarray:
        height, width, _ = pixels.shape
        y, x, h, w = (int(side) for side in crop.box(draw.random(crop.draws), height, width, xp=np))
        image = Image.fromarray(pixels)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
        if draw.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if draw.random() < 0.8:
            for i in draw.permutation(4):
                image = jitter[i](image)
        if draw.random() < 0.2:
            image = image.convert("L").convert("RGB")
        if draw.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.1, 2.0)))
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        return (np.asarray(image, np.float32) / 255 - mean) / std

    return view


def torchvision_views(size: int) -> Callable[[np.ndarray], Any]:
    """SimCLR's view with torchvision's transforms on Pillow images."""
    from PIL import Image
    from torchvision import transforms as t

    view = t.Compose(
        [
            t.RandomResizedCrop(size, (0.08, 1.0)),
            t.RandomHorizontalFlip(),
            t.RandomApply([t.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            t.RandomGrayscale(p=0.2),
            t.RandomApply([t.GaussianBlur(2 * (size // 20) + 1, (0.1, 2.0))], p=0.5),
            t.ToTensor(),
            t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return lambda pixels: view(Image.fromarray(pixels))


if __name__ == "__main__":
    tyro.cli(main)
