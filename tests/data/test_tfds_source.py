"""Sets of tensorflow-datasets: one is built here, prepared and read without TensorFlow."""

import io
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcl.data import TFDS
from jaxcl.errors import UserError


def drawing(i: int, channels: int) -> np.ndarray:
    """A picture whose first pixel says which it is."""
    pixels = np.full((8, 10, channels), 100, np.uint8)
    pixels[0, 0] = i
    return pixels


class Builder(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """Writes `drawing`s."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 20, "validation": 6}  # noqa: RUF012
    CHANNELS = 3

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 10, self.CHANNELS)),
                    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                    "depth": tfds.features.Image(shape=(None, None, 3)),
                    "number": np.int64,
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {name: self._generate_examples(count) for name, count in self.SPLITS.items()}

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(count):
            file = cv2.imencode(".png", drawing(i, self.CHANNELS))[1].tobytes()
            images = {"image": io.BytesIO(file), "depth": io.BytesIO(file)}
            yield i, images | {"label": i % 2, "number": i}


class PicturesInColor(Builder):
    """With a validation split."""


class PicturesInGrey(Builder):
    """One channel, no split to test on."""

    SPLITS = {"train": 4}  # noqa: RUF012
    CHANNELS = 1


class PicturesByTensorflow(Builder):
    """A set whose own code calls for TensorFlow."""

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        raise ModuleNotFoundError("No module named 'tensorflow'")
        yield


class PicturesFromAfar(Builder):
    """A set that has to be downloaded."""

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        raise ConnectionError("no route to host\nmore lines")
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


def test_prepares_and_reads_without_tensorflow(data_dir: str) -> None:
    for _ in range(2):  # prepared, then found
        source = TFDS("pictures_in_color", data_dir=data_dir)
        train, test = source.split("train"), source.split("test")
        assert (len(train), len(test)) == (20, 6)
        assert train.classes == ("cat", "dog")
        assert train.shape == (8, 10, 3)
        shown = []
        for examples in (train, test):
            for i in range(len(examples)):
                number = int(examples.image(i)[0, 0, 0])
                np.testing.assert_array_equal(examples.image(i), drawing(number, 3))
                assert examples.labels[i] == number % 2
                shown.append(number)
                content, label = examples.read(i)
                assert isinstance(content, bytes) and label == number % 2
        assert sorted(shown) == sorted([*range(20), *range(6)])
    assert "tensorflow" not in sys.modules
    copy = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(copy.image(7), train.image(7))


def test_grey_slices_and_other_keys(data_dir: str) -> None:
    source = TFDS("pictures_in_grey", train="train[:75%]", test="train[75%:]", data_dir=data_dir)
    assert source.split("train").shape == (8, 10, 1)
    assert source.split("train").image(0).shape == (8, 10, 1)
    assert (len(source.split("train")), len(source.split("test"))) == (3, 1)
    word = source.split("train").fingerprint()
    assert word.startswith("3 examples, ") and word == source.split("train").fingerprint()
    assert word != source.split("test").fingerprint()
    other = TFDS("pictures_in_color", data_dir=data_dir, image_key="depth", label_key="none")
    assert other.split("train").shape is None
    assert other.split("train").labels.tolist() == [-1] * 20
    assert other.split("train").picture(0)[1] == -1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            TFDS("pictures_in_colour"),
            "data.source=tfds:pictures_in_colour is not a TFDS data set; did you mean "
            "pictures_in_color",
        ),
        (
            TFDS("pictures_in_color", image_key="picture"),
            "data.source=tfds:pictures_in_color has no image picture; in a config file: "
            "TFDS('pictures_in_color', image_key='image')",
        ),
        (
            TFDS("pictures_in_color", test="tset"),
            "data.source=tfds:pictures_in_color has no split tset (it has train, validation); in ",
        ),
        (
            TFDS("pictures_in_grey"),
            "data.source=tfds:pictures_in_grey has no test or validation split (it has train); "
            "in a config file: TFDS('pictures_in_grey', train='train[:90%]', test='train[90%:]')",
        ),
        (
            TFDS("pictures_by_tensorflow"),
            "data.source=tfds:pictures_by_tensorflow needs TensorFlow once, to be prepared (never "
            "to be read); run: pip install tensorflow && python -c",
        ),
        (
            TFDS("pictures_from_afar"),
            "could not be prepared (ConnectionError: no route to host); run this command once with "
            "network, or set TFDS_DATA_DIR to a folder that holds it",
        ),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(data_dir: str, source: TFDS, message: str) -> None:
    from dataclasses import replace

    with pytest.raises(UserError, match=re.escape(message)) as caught:
        replace(source, data_dir=data_dir).split("test")
    assert "\n" not in str(caught.value)


def test_a_format_without_random_access_is_refused(tmp_path: Path) -> None:
    TFDS("pictures_in_color", data_dir=str(tmp_path)).split("train")
    for path in tmp_path.rglob("*array_record*"):
        path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))
    for path in tmp_path.rglob("dataset_info.json"):
        path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="set TFDS_DATA_DIR to a new folder"):
        TFDS("pictures_in_color", data_dir=str(tmp_path)).split("train")
