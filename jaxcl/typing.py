"""Names for shapes: `Float[Array, "n d"]` reads as documentation and costs nothing at run time."""

from typing import Annotated as Bool
from typing import Annotated as Float
from typing import Annotated as Int
from typing import Annotated as UInt8
from typing import Any

import jax
import numpy as np

Array = jax.Array
NumpyArray = np.ndarray[Any, np.dtype[Any]]
PyTree = Any
Key = jax.Array
"""A typed key, as made by `jax.random.key`."""
Metrics = dict[str, jax.Array]

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Metrics", "NumpyArray", "PyTree", "UInt8"]
