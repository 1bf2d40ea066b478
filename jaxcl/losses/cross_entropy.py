"""Cross-entropy of classes, where not every row has one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, mean_over
from jaxcl.typing import Array, Float, Int


class CrossEntropy(NamedTuple):
    """The loss and what is worth logging beside it."""

    loss: Float[Array, ""]
    """Nats."""
    accuracy: Float[Array, ""]
    """Share of the labelled rows whose highest score is their class's."""


def cross_entropy(logits: Float[Array, "n c"], labels: Int[Array, "n"]) -> CrossEntropy:
    """Mean of `-log softmax(logits)[label]` over the rows that have a label; 0 where none has.

    Args:
      logits: [n, c] scores, any float type; the sums are float32.
      labels: [n] class ids, -1 for none.

    Raises:
      ValueError: shapes that do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits [n, c] and labels [n]; got {logits.shape} and {labels.shape}")
    logs = jax.nn.log_softmax(as_rows(logits))
    known = labels >= 0
    own = jnp.take_along_axis(logs, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
    hits = (jnp.argmax(logs, axis=1) == labels).astype(logs.dtype)
    return CrossEntropy(-mean_over(own, known), mean_over(hits, known))
