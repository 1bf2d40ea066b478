"""From images to features: an encoder run over a whole split, its rows spread over the devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcl.augment import Recipe
from jaxcl.data import Data, Examples, batches_of
from jaxcl.typing import Array, Float, Int, NumpyArray, PyTree, UInt8

Represent = Callable[[PyTree, dict[str, Any]], dict[str, Array]]
"""(variables, {"image": ...}) -> {"features": [n, d], ...}."""


def inference_side(data: Data, recipe: Recipe, examples: Examples) -> int | None:
    """Side that images are brought to on the host for inference; None: they stay as they are.

    Where sizes differ it is what the recipe's central crop is taken from: 256 for 224 at 0.875.
    """
    if data.image_size is not None or examples.shape is not None:
        return data.image_size
    return round(recipe.size / recipe.inference_crop)


class Embedder:
    """Compiles `represent` once per batch shape and runs it over arrays or splits.

    Args:
      represent: pure function of the variables and a batch.
      mesh: one axis `data`; None: the default device alone.
      batch_size: images at a time.
    """

    def __init__(
        self, represent: Represent, *, mesh: Mesh | None = None, batch_size: int = 256
    ) -> None:
        count = 1 if mesh is None else mesh.size
        self._batch_size = -(-batch_size // count) * count
        self._rows = None if mesh is None else NamedSharding(mesh, PartitionSpec("data"))
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        run = jax.jit(
            lambda variables, image: represent(variables, {"image": image}),
            out_shardings=everywhere,
        )
        self._run = run

    def images(
        self, variables: PyTree, images: UInt8[NumpyArray, "n h w c"], output: str = "features"
    ) -> Float[NumpyArray, "n d"]:
        """Features [n, d] float32 of uint8 images [n, h, w, c]."""
        size = self._batch_size
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            # Every batch has one shape, so that one compilation serves them all; a short one is
            # repeated, so that its batch statistics are those of its own images.
            padded = part[np.arange(size) % len(part)]
            placed = jnp.asarray(padded) if self._rows is None else self._place(padded)
            parts.append(np.asarray(self._run(variables, placed)[output])[: len(part)])
        return np.concatenate(parts)

    def split(
        self, variables: PyTree, examples: Examples, image_size: int | None = None, **options: Any
    ) -> tuple[Float[NumpyArray, "n d"], Int[NumpyArray, "n"]]:
        """Features [n, d] and labels [n] of all readable images, in their order.

        Args:
          variables: what `represent` takes first.
          examples: the split.
          image_size: shorter side, then centre crop; needed where sizes differ.
          options: passed on to `jaxcl.data.batches_of`.
        """
        run = partial(self.images, variables)
        passes = batches_of(examples, self._batch_size, image_size, **options)
        pairs = [(run(images), labels) for images, labels in passes]
        features, labels = zip(*pairs, strict=True)
        return np.concatenate(features), np.concatenate(labels)

    def _place(self, images: UInt8[NumpyArray, "n h w c"]) -> Array:
        assert self._rows is not None
        placed: Array = jax.device_put(images, self._rows)
        return placed
