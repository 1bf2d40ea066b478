"""A queue of rows from past batches: first in, first out, all of it in the run's state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.errors import UserError
from jaxcl.similarity import unit_rows
from jaxcl.typing import Array, Float, Int, Key


class Queue(NamedTuple):
    """Rows of past batches; the oldest are overwritten first."""

    rows: Float[Array, "k d"]
    next: Int[Array, ""]
    """Where the next batch goes."""
    filled: Int[Array, ""]
    """Rows that came from batches; the others are as they were at the start."""

    @property
    def full(self) -> Array:
        """Whether every row came from a batch."""
        return self.filled >= len(self.rows)


def random_queue(key: Key, size: int, width: int) -> Queue:
    """`size` random rows [size, width] of length 1, none of them from a batch."""
    rows = unit_rows(jax.random.normal(key, (size, width), jnp.float32))
    return Queue(rows, jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32))


def push(queue: Queue, rows: Float[Array, "n d"]) -> Queue:
    """The queue with a batch's rows in the place of its oldest ones; no gradient flows into it.

    Raises:
      UserError: the queue's length is no multiple of the batch's.
    """
    size, count = len(queue.rows), len(rows)
    check_queue(size, count)
    rows = jax.lax.stop_gradient(rows).astype(queue.rows.dtype)
    held = jax.lax.dynamic_update_slice_in_dim(queue.rows, rows, queue.next, axis=0)
    return Queue(held, (queue.next + count) % size, jnp.minimum(queue.filled + count, size))


def check_queue(size: int, batch_size: int, views: int = 1) -> None:
    """Raises `UserError` where batches of so many views do not fill `method.queue` exactly."""
    rows = views * batch_size
    if size % rows:
        near = max(size // rows, 1) * rows
        of = f"{rows}, both views of data.batch_size=" if views == 2 else "data.batch_size="
        raise UserError(
            f"method.queue={size} is no multiple of {of}{batch_size}, so a batch would be cut at "
            f"its end; use {near} or {near + rows}"
        )
