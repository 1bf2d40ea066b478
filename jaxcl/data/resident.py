"""The resident road: all images lie on every device, and a batch is a list of row numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcl.data.examples import Examples
from jaxcl.data.loading import BadImages, load
from jaxcl.data.order import batch_indices, steps_per_epoch
from jaxcl.typing import Array, Int, NumpyArray, PyTree


class ResidentFeed:
    """Keeps the whole set on the device as uint8; the host sends 4 bytes per image and step."""

    road = "resident"

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        max_bad: float,
        threads: int | None,
        seed: int,
        mesh: Mesh,
    ) -> None:
        """Decodes everything; raises `UserError` for images of different sizes."""
        self.steps_per_epoch = steps_per_epoch(len(examples), batch_size)
        self._batch_size = batch_size
        self._seed = seed
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._rows = NamedSharding(mesh, PartitionSpec("data"))
        self._bad = BadImages(examples, max_bad)
        loaded = load(examples, self._bad, threads)
        self._shown = next_readable(loaded.readable)
        self._constants = (self._put(loaded.images), self._put(loaded.labels))

    @property
    def constants(self) -> PyTree:
        """Images uint8 [n, h, w, c] and labels int32 [n], on every device."""
        return self._constants

    def inputs(self, step: int, count: int) -> Int[Array, "count batch"]:
        """Row numbers int32 [count, B], on every device."""
        n = len(self._shown)
        steps = range(step, step + count)
        rows = np.stack([batch_indices(self._seed, s, n, self._batch_size) for s in steps])
        return self._put(self._shown[rows])

    def batch(self, constants: PyTree, one: Int[Array, "batch"]) -> dict[str, Any]:
        """Picks the rows; each device picks its own part of the batch."""
        images, labels = constants
        index = jax.lax.with_sharding_constraint(one, self._rows)
        picked: dict[str, Any] = jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(
                jnp.take(x, index, axis=0, mode="clip"), self._rows
            ),
            {"image": images, "label": labels},
        )
        return picked | {"index": index}

    def report(self) -> dict[str, int | str | None]:
        """Unreadable images of the whole set."""
        return self._bad.report()

    def close(self) -> None:
        """Nothing runs in the background."""

    def _put(self, values: NumpyArray) -> Array:
        whole, shape = self._everywhere, values.shape
        sent: Array = jax.make_array_from_process_local_data(whole, values, shape)
        return sent


def next_readable(readable: NumpyArray) -> Int[NumpyArray, "n"]:
    """[n] int32: each row, or where it is unreadable the next readable one, going round.

    Args:
      readable: [n] bool, at least one of them true.
    """
    rows = np.flatnonzero(readable).astype(np.int32)
    after = np.searchsorted(rows, np.arange(len(readable)))
    return rows[after % len(rows)]
