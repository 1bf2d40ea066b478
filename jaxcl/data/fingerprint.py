"""A short word for what a data set holds, by which a run knows its examples again."""

import hashlib
from collections.abc import Iterable

import numpy as np

from jaxcl.typing import NumpyArray

Part = str | NumpyArray | Iterable[str]


def fingerprint(count: int, *parts: Part) -> str:
    """The number of examples and sixteen hexadecimal digits: "1,297 examples, 3f0c96d1a2b47e58".

    Args:
      count: examples.
      parts: what tells them from others: words, lists of words, arrays.
    """
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(b"\1")
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype.str}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).data)
            continue
        for word in (part,) if isinstance(part, str) else part:
            found.update(word.encode(errors="surrogateescape") + b"\0")
    return f"{count:,} examples, {found.hexdigest()}"
