"""From the words on a command line to a source."""

from pathlib import Path
from typing import Annotated

from jaxcl.data.digits import Digits
from jaxcl.data.examples import Source
from jaxcl.data.folders import Images
from jaxcl.data.tfds_source import TFDS
from jaxcl.errors import UserError
from jaxcl.options import short, word

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
    word(Source, parse_source, _to_words, forms=FORMS),
    short("--data"),
]
"""A source that the command line gives as one word; also under the short name `--data`."""
