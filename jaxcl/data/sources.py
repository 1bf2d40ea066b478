"""From the words on a command line to a source."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from jaxcl.data.digits import Digits
from jaxcl.data.examples import Source
from jaxcl.data.folders import Images
from jaxcl.data.tfds_source import TFDS
from jaxcl.errors import UserError

FORMS = "PATH|tfds:NAME|digits"


def parse_source(text: str) -> Source:
    """`digits`, `tfds:NAME`, or the path of an image folder or zip, as a source.

    Paths are made absolute, so that a run can be evaluated from another folder.

    Raises:
      UserError: nothing lies at the path, or the name is empty.
    """
    if text == "digits":
        return Digits()
    if text.startswith("tfds:"):
        if not text.removeprefix("tfds:"):
            raise UserError("data.source=tfds: names no data set; write for example tfds:cifar10")
        return TFDS(text.removeprefix("tfds:"))
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(
            f"data.source={text} does not exist; give a folder or zip of class folders, "
            "tfds:NAME or digits"
        )
    return Images(str(path.resolve()))


def _from_words(words: list[str]) -> Source:
    try:
        return parse_source(words[0])
    except UserError as error:
        raise ValueError(str(error)) from error  # what tyro prints as its own


def _to_words(source: Source) -> list[str]:
    match source:
        case Digits():
            return ["digits"]
        case TFDS():
            return [f"tfds:{source.name}"]
        case Images():
            return [source.path]
        case _:
            return [type(source).__name__]


AnySource = Annotated[
    Source,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar=FORMS,
        instance_from_str=_from_words,
        is_instance=lambda value: isinstance(value, Source),
        str_from_instance=_to_words,
    ),
    tyro.conf.arg(aliases=["--data"]),
]
"""A source that the command line gives as one word; also under the short name `--data`."""
