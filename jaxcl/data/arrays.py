"""Images that a notebook already holds as NumPy arrays."""

from dataclasses import dataclass

import numpy as np

from jaxcl.data.examples import Examples, Pixels, Source, SplitName, hold_out
from jaxcl.errors import UserError
from jaxcl.typing import Int, NumpyArray, UInt8


@dataclass(frozen=True, eq=False)
class Arrays(Source):
    """Arrays as a data set, for notebooks.

    config.json cannot keep the pixels: a run started with this source needs them given again.
    Without test images a share of every class is set aside, the same at every call.
    """

    train_images: UInt8[NumpyArray, "n h w c"]
    """[n, h, w, c] uint8, c of 1 or 3; [n, h, w] for grey."""
    train_labels: Int[NumpyArray, "n"] | None = None
    """[n] class indices; left out where there are none."""
    test_images: UInt8[NumpyArray, "m h w c"] | None = None
    """[m, h, w, c] uint8, like the training images."""
    test_labels: Int[NumpyArray, "m"] | None = None
    """[m] class indices of the test images."""
    classes: tuple[str, ...] = ()
    """Class names in label order; numbers where left out."""
    holdout: float = 0.1
    """Share of every class set aside for testing where no test images are given."""

    def split(self, name: SplitName) -> Examples:
        """The training or test images; raises `UserError` for another shape or type."""
        if self.test_images is not None:
            if name == "test":
                return self._pixels("test", self.test_images, self.test_labels)
            train = self._pixels("train", self.train_images, self.train_labels)
            train.about = {"test set": f"{len(self.test_images):,} images, test_images"}
            return train
        whole = self._pixels("train", self.train_images, self.train_labels)
        parts = hold_out(whole.labels, self.holdout)
        rows = parts.train if name == "train" else parts.test
        part = self._pixels(name, whole.images[rows], whole.labels[rows])
        held = f"{self.holdout:g} of every class, held out since there are no test_images"
        part.about = {"test set": f"{len(parts.test):,} images, {held}"}
        return part

    def _pixels(self, name: SplitName, images: NumpyArray, labels: NumpyArray | None) -> Pixels:
        images = np.asarray(images)
        if images.ndim == 3:
            images = images[..., None]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise UserError(
                f"{name}_images is {images.dtype}{list(images.shape)}; "
                "give uint8 [n, h, w, c] with c of 1 or 3"
            )
        if len(images) == 0:
            raise UserError(f"{name}_images is empty; give at least one image")
        labels = np.full(len(images), -1) if labels is None else np.asarray(labels)
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(
                f"{name}_labels is {labels.dtype}{list(labels.shape)}; "
                f"give whole numbers, one for each of the {len(images)} images"
            )
        given = [part.max() for part in (self.train_labels, self.test_labels) if part is not None]
        classes = self.classes or tuple(str(i) for i in range(int(max(given, default=-1)) + 1))
        if labels.max() >= len(classes) or labels.min() < -1:
            raise UserError(
                f"{name}_labels holds {labels.min()} to {labels.max()} where there are "
                f"{len(classes)} classes; count classes from 0, -1 for none, and name them all"
            )
        return Pixels(name, images, labels, classes)
