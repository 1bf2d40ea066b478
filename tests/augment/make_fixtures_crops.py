"""Writes what tests/augment compares crops with: boxes drawn by torchvision and by TensorFlow, and
crops resized by TensorFlow.

    python tests/augment/make_fixtures_crops.py      # needs torchvision and tensorflow

Made with torchvision 0.29.1 of torch 2.14.1, tensorflow 2.21.0.

`boxes.npz` holds, for each case of `CASES`, `DRAWS` boxes (y, x, h, w) of
`RandomResizedCrop.get_params` and of `sample_distorted_bounding_box` as SimCLR calls it;
`resized.npz` a picture and what `tf.image.resize` makes of parts of it.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "fixtures"
DRAWS = 2500
RATIO = (3 / 4, 4 / 3)
CASES = {
    "cifar": (32, 32, 0.08, 1.0),
    "cifar_large": (32, 32, 0.2, 1.0),
    "imagenet": (375, 500, 0.08, 1.0),
    "imagenet_large": (375, 500, 0.2, 1.0),
    "imagenet_larger": (375, 500, 0.4, 1.0),
    "local": (375, 500, 0.05, 0.4),
    "upright": (500, 333, 0.14, 1.0),
    "wide": (100, 400, 0.08, 1.0),
}
"""Height and width of the image, least and greatest share of its area."""

PARTS = {
    "smaller": ((0, 0, 24, 30), 9),
    "larger": ((3, 5, 9, 13), 20),
    "squeezed": ((2, 1, 22, 6), 11),
}
"""Boxes (y, x, h, w) of the picture and the side they are resized to."""


def torchvision_boxes(height: int, width: int, low: float, high: float) -> np.ndarray:
    import torch
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    draw = RandomResizedCrop.get_params
    return np.array([draw(image, [low, high], list(RATIO)) for _ in range(DRAWS)], np.int16)


def tensorflow_boxes(height: int, width: int, low: float, high: float) -> np.ndarray:
    import tensorflow as tf

    tf.random.set_seed(0)

    @tf.function
    def draw():
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            [height, width, 3],
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=RATIO,
            area_range=(low, high),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], 0)

    return np.array([draw().numpy() for _ in range(DRAWS)], np.int16)


def tensorflow_resized(picture: np.ndarray) -> dict[str, np.ndarray]:
    import tensorflow as tf

    out = {}
    for name, ((y, x, h, w), size) in PARTS.items():
        part = picture[y : y + h, x : x + w].astype(np.float32)
        out[name] = tf.image.resize(part, (size, size), tf.image.ResizeMethod.BICUBIC).numpy()
    return out


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    boxes = {}
    for name, case in CASES.items():
        # One row per number of the box: they compress better so.
        boxes[f"torchvision_{name}"] = torchvision_boxes(*case).T
        boxes[f"tensorflow_{name}"] = tensorflow_boxes(*case).T
    np.savez_compressed(FOLDER / "boxes.npz", **boxes)
    picture = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    np.savez_compressed(FOLDER / "resized.npz", picture=picture, **tensorflow_resized(picture))


if __name__ == "__main__":
    main()
