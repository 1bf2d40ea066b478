"""ProtoNCE: each query picks the centre of its cluster, at several granularities."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows
from jaxcl.similarity import logsumexp_pairs
from jaxcl.typing import Array, Float, Int


def prototype_nce(
    q: Float[Array, "n d"],
    centres: Float[Array, "k d"],
    assignment: Int[Array, "n"],
    concentration: Float[Array, "k"],
) -> Float[Array, ""]:
    """`-log softmax_c(q_i . c / phi_c)` at the query's own cluster; each has its temperature phi.

    Args:
      q: [n, d] queries, normalised here; gradient flows into them alone.
      centres: [k, d] cluster centres, normalised here.
      assignment: [n] cluster of each query.
      concentration: [k] positive temperatures.

    Returns:
      [] mean in nats, float32.

    Reference: Li et al. 2021, arXiv:2005.04966, eq. 11.
    """
    q, centres = as_rows(q, normalize=True), as_rows(centres, normalize=True)
    # A temperature for each centre is a length for each centre.
    scaled = jax.lax.stop_gradient(centres / concentration[:, None])
    own = jnp.sum(q * scaled[assignment], axis=1)
    return jnp.mean(logsumexp_pairs(q, scaled) - own)


def proto_nce_sum(
    q: Float[Array, "n d"],
    clusterings: Sequence[tuple[Float[Array, "k d"], Int[Array, "n"], Float[Array, "k"]]],
) -> Float[Array, ""]:
    """Mean of `prototype_nce` over clusterings (centres, assignment, concentration); 0 for none."""
    if not clusterings:
        return jnp.zeros([], jnp.float32)
    return jnp.mean(jnp.stack([prototype_nce(q, *one) for one in clusterings]))
