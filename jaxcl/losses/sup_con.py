"""SupCon: all rows of the same class are positives."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows
from jaxcl.similarity import logsumexp_among
from jaxcl.similarity.rows import short
from jaxcl.typing import Array, Float, Int


def sup_con(
    z: Float[Array, "n d"],
    labels: Int[Array, "n"],
    *,
    temperature: float | Float[Array, ""],
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
      form: the mean outside the logarithm (the paper's choice), or inside.
      scale: factor of the loss; temperature / 0.07 in the authors' code.

    Returns:
      [] mean over all n rows, float32; a row without positives adds 0.

    Raises:
      ValueError: shapes that do not fit.

    Reference: Khosla et al. 2020, arXiv:2004.11362, eqs. 2 and 3.
    """
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise ValueError(f"z and labels must be [n, d] and [n]; got {z.shape} and {labels.shape}")
    groups, unit = singled_out(labels), as_rows(z, normalize=True)
    # Unit rows are needed below, so that of 32 bits they serve for the pairs as well.
    normalize = short(z)
    rows = z if normalize else unit
    among = partial(logsumexp_among, rows, scale=1 / temperature, normalize=normalize)
    everyone = among()
    totals, counts = class_sums(unit, groups)
    others = counts - 1
    if form == "out":
        # The sum over the class, the row itself taken away, is one product a row.
        alike = jnp.sum(unit * (totals - unit), axis=1) / temperature / jnp.maximum(others, 1)
    else:
        positives = among(groups=groups)
        alike = positives - jnp.log(jnp.maximum(others, 1))
    return scale * jnp.mean(jnp.where(others > 0, everyone - alike, 0))


def singled_out(labels: Int[Array, "n"]) -> Int[Array, "n"]:
    """Labels in which each unlabelled row (-1) is a class of its own."""
    return jnp.where(labels < 0, -1 - jnp.arange(len(labels)), labels)


def class_sums(
    z: Float[Array, "n d"], labels: Int[Array, "n"]
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    """For each row, the sum of the rows of its class and their number, itself included."""
    place = jnp.unique(labels, return_inverse=True, size=len(labels))[1]
    sums = jax.ops.segment_sum(z, place, num_segments=len(labels))
    counts = jax.ops.segment_sum(jnp.ones(len(z), z.dtype), place, num_segments=len(labels))
    return sums[place], counts[place]
