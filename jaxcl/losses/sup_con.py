"""SupCon: all rows of the same class are positives."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, singled_out
from jaxcl.similarity import logsumexp_among, logsumexp_pairs
from jaxcl.similarity.rows import short
from jaxcl.typing import Array, Float, Int


def sup_con(
    z: Float[Array, "n d"],
    labels: Int[Array, "n"],
    *,
    temperature: float | Float[Array, ""],
    anchors: int | None = None,
    form: Literal["out", "in"] = "out",
    scale: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """Cross-entropy of picking the rows of one's class among all other rows.

        out   -1/|P_i| sum_{p in P_i} log( exp(s_ip) / sum_{a != i} exp(s_ia) )
        in    -log( 1/|P_i| sum_{p in P_i} exp(s_ip) / sum_{a != i} exp(s_ia) )

    Args:
      z: [n, d] embeddings of all views of the global batch, in any order; normalised here.
      labels: [n] class ids; views of an image have the image's. A row labelled -1 has no positives
        and is a negative of every other.
      temperature: positive scale; smaller is sharper.
      anchors: number of first rows that are anchors; the others are only compared with. With the
        views of n images one after the other, n is `contrast_mode="one"` of the authors' code.
        None: all rows.
      form: the mean outside the logarithm (the paper's choice), or inside.
      scale: factor of the loss; temperature / 0.07 in the authors' code.

    Returns:
      [] mean over the anchors, float32; an anchor without positives adds 0.

    Raises:
      ValueError: shapes that do not fit, or `anchors` is not between 1 and n.

    Reference: Khosla et al. 2020, arXiv:2004.11362, eqs. 2 and 3.
    """
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise ValueError(f"z and labels must be [n, d] and [n]; got {z.shape} and {labels.shape}")
    count = len(z) if anchors is None else anchors
    if not 1 <= count <= len(z):
        raise ValueError(f"anchors={anchors} of {len(z)} rows")
    groups, unit = singled_out(labels), as_rows(z, normalize=True)
    # Unit rows are needed below, so that of 32 bits they serve for the pairs as well.
    normalize = short(z)
    rows = z if normalize else unit

    def others(groups: Int[Array, "n"] | None = None) -> Float[Array, "a"]:
        """Log-sum-exp of each anchor over the other rows, or over those of its group."""
        options: dict[str, Any] = {"scale": 1 / temperature, "normalize": normalize}
        if anchors is None:
            return logsumexp_among(rows, groups=groups, **options)
        ids = jnp.arange(len(z))
        if groups is not None:
            options |= {"q_groups": groups[:count], "k_groups": groups}
        return logsumexp_pairs(rows[:count], rows, q_ids=ids[:count], k_ids=ids, **options)

    everyone = others()
    totals, counts = (x[:count] for x in class_sums(unit, groups))
    positives = counts - 1
    if form == "out":
        # The sum over the class, the anchor itself taken away, is one product a row.
        anchor = unit[:count]
        alike = jnp.sum(anchor * (totals - anchor), axis=1)
        alike = alike / temperature / jnp.maximum(positives, 1)
    else:
        alike = others(groups) - jnp.log(jnp.maximum(positives, 1))
    return scale * jnp.mean(jnp.where(positives > 0, everyone - alike, 0))


def class_sums(
    z: Float[Array, "n d"], labels: Int[Array, "n"]
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    """For each row, the sum of the rows of its class and their number, itself included."""
    place = jnp.unique(labels, return_inverse=True, size=len(labels))[1]
    sums = jax.ops.segment_sum(z, place, num_segments=len(labels))
    counts = jax.ops.segment_sum(jnp.ones(len(z), z.dtype), place, num_segments=len(labels))
    return sums[place], counts[place]
