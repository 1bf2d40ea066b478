"""Any data set of the tensorflow-datasets catalogue, read without TensorFlow."""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np

from jaxcl.data.examples import Examples, Source, SplitName, Unreadable
from jaxcl.data.fingerprint import fingerprint
from jaxcl.errors import UserError, need
from jaxcl.typing import Int, NumpyArray, UInt8

RANDOM_ACCESS = "array_record"
"""The file format in which sets are prepared here; TFDS's usual one has no random access."""


@dataclass(frozen=True)
class TFDS(Source):
    """A data set by its name in tensorflow-datasets; downloaded and prepared at first use.

    Preparing runs the catalogue's own code for that set, which for some sets (CIFAR-10 among them)
    needs TensorFlow once; reading a prepared set never does.
    """

    name: str
    """Name in the catalogue, such as cifar10 or imagenet2012:5.1.0."""
    train: str = "train"
    """Split to train on; slices such as train[:90%] work."""
    test: str = "auto"
    """Split to evaluate on; auto takes test, or validation where there is no test."""
    data_dir: str | None = None
    """Folder of prepared sets; none means ~/tensorflow_datasets or $TFDS_DATA_DIR."""
    image_key: str = "image"
    """Feature that holds the image."""
    label_key: str = "label"
    """Feature that holds the class; a set without it has no labels."""

    def split(self, name: SplitName) -> Examples:
        """The examples in the order of the prepared files."""
        builder = self._prepared()
        splits = list(builder.info.splits)
        wanted = self.train if name == "train" else self.test
        if wanted == "auto":
            found = [split for split in ("test", "validation") if split in splits]
            if not found:
                raise UserError(
                    f"data.source=tfds:{self.name} has no test or validation split (it has "
                    f"{', '.join(splits)}); in a config file: TFDS({self.name!r}, "
                    "train='train[:90%]', test='train[90%:]')"
                )
            wanted = found[0]
        examples = TFDSExamples(builder, self, wanted)
        usual = next((split for split in ("test", "validation") if split in splits), "none")
        test = usual if self.test == "auto" else self.test
        examples.about = {"test set": f"split {test} of {self.name}, by test={self.test} of TFDS"}
        return examples

    def _prepared(self) -> Any:
        """The TFDS builder, with its files on disk in a format with random access."""
        need("tensorflow_datasets", f"data.source=tfds:{self.name}", "or give a folder of images")
        import tensorflow_datasets as tfds  # slow to import

        try:
            try:
                builder = tfds.builder(self.name, data_dir=self.data_dir, file_format=RANDOM_ACCESS)
            except (TypeError, ValueError):  # known by its files alone, or prepared otherwise
                builder = tfds.builder(self.name, data_dir=self.data_dir)
        except tfds.core.DatasetNotFoundError as error:
            near = get_close_matches(self.name, tfds.list_builders(with_community_datasets=False))
            hint = f"did you mean {' or '.join(near)}?" if near else "see tfds.list_builders()"
            raise UserError(
                f"data.source=tfds:{self.name} is not a TFDS data set; {hint}"
            ) from error
        except Exception as error:
            raise UserError(f"data.source=tfds:{self.name}: {_line(error)}") from error
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                file_format=RANDOM_ACCESS,
            )
        except Exception as error:  # whatever the set's own code and the network raise
            raise UserError(self._why_not(builder, error)) from error
        return builder

    def _why_not(self, builder: Any, error: Exception) -> str:
        key = f"data.source=tfds:{self.name}"
        if "No module named 'tensorflow'" in str(error):
            where = "" if self.data_dir is None else f", data_dir={self.data_dir!r}"
            return (
                f"{key} needs TensorFlow once, to be prepared (never to be read); run: pip install "
                f'tensorflow && python -c "import tensorflow_datasets as tfds; '
                f"tfds.builder({self.name!r}{where}, file_format='{RANDOM_ACCESS}')"
                '.download_and_prepare()"'
            )
        return (
            f"{key} is not in {builder.data_dir} and could not be prepared ({_line(error)}); run "
            "this command once with network, or set TFDS_DATA_DIR to a folder that holds it"
        )


class TFDSExamples(Examples):
    """The records of one split; images stay encoded until they are wanted."""

    def __init__(self, builder: Any, source: TFDS, split: str) -> None:
        import tensorflow_datasets as tfds

        features = dict(builder.info.features)
        images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
        if source.image_key not in images:
            raise UserError(
                f"data.source=tfds:{source.name} has no image {source.image_key}; "
                + (
                    f"in a config file: TFDS({source.name!r}, image_key={images[0]!r})"
                    if images
                    else "it holds no images: choose another"
                )
            )
        self.title = f"tfds:{source.name}/{split}"
        self._full_name = str(builder.info.full_name)
        self.image_key = source.image_key
        label: Any = features.get(source.label_key)
        self.label_key: str | None = None
        if isinstance(label, tfds.features.ClassLabel):
            self.label_key = source.label_key
            self.classes = tuple(label.names)
        height, width, channels = features[source.image_key].shape
        self.channels = 1 if channels == 1 else 3
        self.shape = None if None in (height, width) else (height, width, self.channels)
        try:
            self._records = builder.as_data_source(
                split=split, decoders={source.image_key: tfds.decode.SkipDecoding()}
            )
        except NotImplementedError as error:
            raise UserError(
                f"data.source=tfds:{source.name} lies in {builder.data_dir} in a format without "
                "random access; set TFDS_DATA_DIR to a new folder to prepare it anew"
            ) from error
        except ValueError as error:
            known = ", ".join(builder.info.splits)
            raise UserError(
                f"data.source=tfds:{source.name} has no split {split} (it has {known}); in a "
                f"config file: TFDS({source.name!r}, train=..., test=...)"
            ) from error
        if len(self._records) == 0:
            raise UserError(f"data.source: {self.title} is empty; choose another split")

    def __len__(self) -> int:
        return len(self._records)

    @cached_property
    def _labels(self) -> NumpyArray:
        if self.label_key is None:
            return np.full(len(self), -1, np.int32)
        return np.array([self._records[i][self.label_key] for i in range(len(self))], np.int32)

    @property
    def labels(self) -> Int[NumpyArray, "n"]:
        """[n] int32; the first use reads through all records, images included."""
        labels: NumpyArray = self._labels
        return labels

    def name(self, i: int) -> str:
        return f"record {i}"

    def fingerprint(self) -> str:
        """By set, version, split and classes: labels lie in the records, images beside them."""
        return fingerprint(len(self), self._full_name, self.title, self.classes)

    def read(self, i: int) -> tuple[bytes | UInt8[NumpyArray, "h w c"], int]:
        try:
            record = self._records[i]
        except Exception as error:  # a damaged record file
            raise Unreadable(self.name(i), _line(error)) from error
        label = -1 if self.label_key is None else int(record[self.label_key])
        return record[self.image_key], label


def _line(error: Exception) -> str:
    """The first line of an error that others raised, with its type."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
