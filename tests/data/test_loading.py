"""Splits loaded for evaluation, with and without damage and differing sizes."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxcl.data import Examples, Images, batches_of, load_split
from jaxcl.errors import UserError

Files = dict[str, bytes]
Write = Callable[..., Path]


def whole(path: Path) -> Examples:
    return Images(str(path), holdout=0.0).split("train")


def test_all_images_in_order(files: Files, write_zip: Write) -> None:
    examples = whole(write_zip(files))
    images, labels = load_split(examples)
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(labels, examples.labels)
    np.testing.assert_array_equal(images, [examples.image(i) for i in range(24)])
    parts = list(batches_of(examples, 7))
    assert [len(part[0]) for part in parts] == [7, 7, 7, 3]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)


def test_sizes_are_made_alike(files: Files, picture: Callable, write_zip: Write) -> None:
    examples = whole(write_zip(files | {"owl/09.jpg": picture(0, 30, 40)}))
    images, _ = load_split(examples, 20)
    assert images.shape == (25, 20, 20, 3)
    parts = np.concatenate([part[0] for part in batches_of(examples, 10, 20)])
    np.testing.assert_array_equal(parts, images)
    with pytest.raises(UserError, match=re.escape("owl/09.jpg is 30x40 where others are 24x24")):
        load_split(examples)
    message = "holds images of 30x40 and 24x24; give image_size=24 to make them alike"
    with pytest.raises(UserError, match=message):
        list(batches_of(examples, 10))


def test_damaged_images_are_left_out_up_to_a_share(files: Files, write_zip: Write) -> None:
    broken = ("cat/00.jpg", "dog/07.jpg", "owl/01.jpg")
    examples = whole(write_zip(files | dict.fromkeys(broken, b"no")))
    kept = [i for i, name in enumerate(sorted(files)) if name not in broken]
    images, labels = load_split(examples, max_bad=0.2)
    np.testing.assert_array_equal(labels, examples.labels[kept])
    np.testing.assert_array_equal(images, [examples.image(i) for i in kept])
    parts = list(batches_of(examples, 5, max_bad=0.2))
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
    placed = list(batches_of(examples, 5, max_bad=0.2, leave_out=False))
    assert [len(part[1]) for part in placed] == [5, 5, 5, 5, 4]
    black, labels = (np.concatenate(parts) for parts in zip(*placed, strict=True))
    np.testing.assert_array_equal(black[kept], images)
    gone = np.setdiff1d(np.arange(24), kept)
    assert not black[gone].any()
    np.testing.assert_array_equal(labels[gone], -1)
    message = "3 of 24 images cannot be decoded (first: cat/00.jpg), 12 % > data.max_bad=11 %"
    with pytest.raises(UserError, match=re.escape(message)):
        load_split(examples, max_bad=0.11)
    with pytest.raises(UserError, match=re.escape(message)):
        list(batches_of(examples, 5, max_bad=0.11))
