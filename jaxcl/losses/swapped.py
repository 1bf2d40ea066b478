"""SwAV: one view's balanced assignment to prototypes is predicted from another view."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows
from jaxcl.typing import Array, Float


def sinkhorn(
    scores: Float[Array, "n k"], *, epsilon: float = 0.05, iterations: int = 3
) -> Float[Array, "n k"]:
    """Assignments near `exp(scores / epsilon)` that use all prototypes alike; no gradient.

    Rows sum to 1. Works on logarithms, so no temperature over- or underflows.

    Args:
      scores: [n, k] cosines of the global batch (and queue) with the prototypes.
      epsilon: positive; smaller is sharper.
      iterations: how often prototypes, then rows, are brought to their share.

    Returns:
      [n, k] float32.

    Reference: Caron et al. 2020, arXiv:2006.09882, listing 1; Cuturi 2013.
    """
    logs = jax.lax.stop_gradient(as_rows(scores)) / epsilon

    def balanced(_: int, logs: Array) -> Array:
        logs = logs - jax.nn.logsumexp(logs, axis=0, keepdims=True)
        return logs - jax.nn.logsumexp(logs, axis=1, keepdims=True)

    logs = jax.lax.fori_loop(0, iterations, balanced, logs, unroll=iterations <= 3)
    return jnp.exp(logs) if iterations else jax.nn.softmax(logs, axis=1)


def swapped_prediction(
    scores: Sequence[Float[Array, "n k"]],
    assignments: Sequence[Float[Array, "n k"]],
    *,
    temperature: float = 0.1,
) -> Float[Array, ""]:
    """Mean cross-entropy of predicting each assigned view's code from every other view.

    Args:
      scores: [n, k] cosines with the prototypes, one array per view; small crops come last.
      assignments: codes of the first views, as `sinkhorn` gives them; at least one.
      temperature: of the predictions.

    Returns:
      [] in nats, float32.

    Raises:
      ValueError: fewer than two views, or more assignments than views.

    Reference: Caron et al. 2020, eq. 2 and section 3.2.
    """
    if not 1 <= len(assignments) <= len(scores) or len(scores) < 2:
        raise ValueError(f"{len(assignments)} assignments for {len(scores)} views")
    logs = [jax.nn.log_softmax(as_rows(s) / temperature, axis=1) for s in scores]
    terms = []
    for i, q in enumerate(assignments):
        others = [-jnp.mean(jnp.sum(q * log, axis=1)) for v, log in enumerate(logs) if v != i]
        terms.append(sum(others, jnp.zeros([], jnp.float32)) / len(others))
    return sum(terms, jnp.zeros([], jnp.float32)) / len(terms)
