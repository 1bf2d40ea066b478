"""How many images a second the streamed road decodes and crops, beside a plain Pillow loop.

    python benchmarks/decode.py --images photo.zip

The images (a folder or zip of class folders) are scaled up to about ImageNet's sizes, saved as JPEG
of quality 90 in a temporary folder, and read from there; two random resized crops of 224 px each.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import jax
import numpy as np
import tyro

from jaxcl.augment import RandomResizedCrop, Recipe, View
from jaxcl.data import Data, Images, open_feed
from jaxcl.data.order import crop_uniforms
from jaxcl.data.streamed import StreamedFeed
from jaxcl.scale.mesh import data_mesh

SIZE = 224
SIDES = ((400, 400), (375, 500), (500, 375), (333, 500), (425, 480))
"""Heights and widths that the images are scaled to, in turn."""


@dataclass(frozen=True)
class Options:
    images: str
    """Folder or zip of class folders."""
    count: int = 1000
    """Images to prepare."""
    seconds: float = 10.0
    """Least time for each figure."""
    batch_size: int = 128
    """Images in a batch of the whole feed."""
    rounds: int = 3
    """Times each figure is taken; the best is shown last."""


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bytes_each, pixels_each = prepare(options, folder)
        print(
            f"{options.count} JPEG files, {pixels_each / 1e6:.3f} megapixels and "
            f"{bytes_each / 1e3:.0f} kB each; two crops of {SIZE} px; {os.cpu_count()} cores"
        )
        examples = Images(str(folder), holdout=0.0).split("train")
        crop = RandomResizedCrop(SIZE)
        recipe = Recipe((View(crop, copies=2),), SIZE)
        data = Data(batch_size=options.batch_size, road="streamed", crop="host")
        feed = open_feed(data, examples, recipe, seed=0, mesh=data_mesh(1))
        assert isinstance(feed, StreamedFeed)
        rows = feed.rows(first_step=0)
        paths = sorted(folder.rglob("*.jpg"))
        cv2.setNumThreads(1)
        report("the feed's function", options, lambda i: rows.pixels(0, i, i % len(paths)))
        report("decoding alone", options, lambda i: examples.image(i % len(paths)))
        try:
            from PIL import Image
        except ImportError:
            print("Pillow is not installed: its loop is left out")
        else:
            report("Pillow", options, lambda i: pillow(Image, crop, paths, i))
        whole_feed(feed, options)
        feed.close()


def prepare(options: Options, folder: Path) -> tuple[float, float]:
    """Writes the large JPEG files; returns their mean bytes and pixels."""
    source = Images(options.images, holdout=0.0).split("train")
    written = pixels = 0
    for i in range(options.count):
        height, width = SIDES[i % len(SIDES)]
        image = cv2.resize(
            source.image(i % len(source)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        path = folder / f"{i % 2}" / f"{i:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        written += path.stat().st_size
        pixels += height * width
    return written / options.count, pixels / options.count


def report(name: str, options: Options, one: Callable[[int], object]) -> None:
    """Prints how many calls of `one` a second, and a second of processor time, hold."""
    rounds = []
    for _ in range(options.rounds):
        start, busy, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < options.seconds:
            one(done)
            done += 1
        rounds.append((done, time.perf_counter() - start, time.process_time() - busy))
    show(name, rounds)


def whole_feed(feed: StreamedFeed, options: Options) -> None:
    """Prints images a second that arrive on the device, decoded by all threads."""
    rounds, step = [], 0
    feed.inputs(step, 1)
    for _ in range(options.rounds):
        start, busy, first = time.perf_counter(), time.process_time(), step
        while time.perf_counter() - start < options.seconds:
            step += 1
            jax.block_until_ready(feed.inputs(step, 1))
        done = (step - first) * options.batch_size
        rounds.append((done, time.perf_counter() - start, time.process_time() - busy))
    show(f"whole feed, {os.cpu_count()} cores", rounds)


def pillow(image_class, crop, paths, i):  # type: ignore[no-untyped-def]
    """The same work with Pillow: decode, then two crops resized with antialias."""
    with image_class.open(paths[i % len(paths)]) as file:
        image = file.convert("RGB")
    views = []
    for u in crop_uniforms(0, 0, i, 2, crop.draws):
        y, x, h, w = (int(side) for side in crop.box(u, image.height, image.width, xp=np))
        box = (x, y, x + w, y + h)
        view = image.resize((SIZE, SIZE), image_class.Resampling.BILINEAR, box=box)
        views.append(np.asarray(view))
    return views


def show(name: str, rounds: list[tuple[int, float, float]]) -> None:
    """Prints the best of some rounds of (images, seconds, seconds of processor time)."""
    wall = sorted(done / seconds for done, seconds, _ in rounds)
    core = sorted(done / busy for done, _, busy in rounds)
    print(
        f"{name:24} {wall[-1]:6.0f} images/s (least {wall[0]:.0f})"
        f"   {core[-1]:6.0f} per second of one core (least {core[0]:.0f})"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
