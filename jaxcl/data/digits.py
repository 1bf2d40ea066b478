"""scikit-learn's handwritten digits: real images that need no download."""

from dataclasses import dataclass

import cv2
import numpy as np

from jaxcl.data.examples import Examples, Pixels, Source, SplitName, hold_out
from jaxcl.errors import UserError

TEST_PER_CLASS = 50


@dataclass(frozen=True)
class Digits(Source):
    """1,797 handwritten digits, 8x8 greys scaled up: 1,297 to train on, 50 per digit to test on.

    Source: the test part of "Optical Recognition of Handwritten Digits", UCI, as in scikit-learn.
    """

    size: int = 32
    """Side in pixels that the 8x8 originals are scaled up to."""

    def split(self, name: SplitName) -> Examples:
        """[n, size, size, 1] uint8 images with labels 0 .. 9."""
        from sklearn.datasets import load_digits  # slow to import

        if self.size < 8:
            raise UserError(f"Digits({self.size}) is below the digits' 8 pixels; use 8 up")
        greys, labels = load_digits(return_X_y=True)
        greys = greys.reshape(-1, 8, 8) * (255 / 16)  # 17 levels of grey
        side = (self.size, self.size)
        large = np.stack([cv2.resize(grey, side, interpolation=cv2.INTER_CUBIC) for grey in greys])
        images = np.clip(np.rint(large), 0, 255).astype(np.uint8)[..., None]
        parts = hold_out(labels, (TEST_PER_CLASS,) * 10)
        rows = parts.train if name == "train" else parts.test
        classes = tuple(str(digit) for digit in range(10))
        digits = Pixels(f"digits/{name}", images[rows], labels[rows], classes)
        digits.about = {"test set": f"{TEST_PER_CLASS} images of every class, held out"}
        return digits
