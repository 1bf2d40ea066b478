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
    rows = unit_rows(jax.random.normal(key, (size, width)))
    return Queue(rows, jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32))


def push(queue: Queue, rows: Float[Array, "n d"]) -> Queue:
    """The queue with a batch's rows in the place of its oldest ones; no gradient flows into it.

    Raises:
      UserError: the queue's length is no multiple of the batch's.
    """
    size, count = len(queue.rows), len(rows)
    if not count or size % count:
        raise UserError(queue_message("method.queue", size, count))
    rows = jax.lax.stop_gradient(rows).astype(queue.rows.dtype)
    held = jax.lax.dynamic_update_slice_in_dim(queue.rows, rows, queue.next, axis=0)
    return Queue(held, (queue.next + count) % size, jnp.minimum(queue.filled + count, size))


def queue_message(name: str, size: int, batch: int) -> str:
    """What to say of a queue that a batch does not divide."""
    near = max(size // batch, 1) * batch
    return (
        f"{name}={size} is no multiple of data.batch_size={batch}, so a batch would be cut at its "
        f"end; use {near} or {near + batch}"
    )
