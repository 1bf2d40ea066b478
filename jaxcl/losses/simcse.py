"""SimCSE's losses in the row layouts of its implementations.

Temperature 0.05 throughout the paper. Two forms of the unsupervised loss are in use and differ: in
the authors' code each sentence picks its second copy among the second copies (`simcse`); in many
others it picks it among all other rows of both copies (`simcse_pairs`).

Reference: Gao, Yao & Chen 2021, arXiv:2104.08821; princeton-nlp/SimCSE.
"""

import jax.numpy as jnp

from jaxcl.losses.info_nce import info_nce
from jaxcl.losses.nt_xent import nt_xent_rows
from jaxcl.losses.rows import check_pairs, own_pairs
from jaxcl.similarity import logsumexp_pairs
from jaxcl.typing import Array, Float


def simcse(
    z1: Float[Array, "n d"],
    z2: Float[Array, "n d"],
    hard: Float[Array, "n d"] | None = None,
    *,
    temperature: float | Float[Array, ""] = 0.05,
    hard_weight: float = 0.0,
) -> Float[Array, ""]:
    """Cross-entropy of picking row i of `z2` for row i of `z1`, hard negatives among the choices.

    Args:
      z1: [n, d] sentences; normalised here, as the others are.
      z2: [n, d] the same through other dropout, or what they entail.
      hard: [n, d] what contradicts them; every sentence sees all of these.
      temperature: positive scale.
      hard_weight: log of the weight of a sentence's own contradiction, added to its logit.

    Returns:
      [] loss in nats, float32.

    Raises:
      ValueError: shapes differ.
    """
    if hard is None:
        return info_nce(z1, z2, temperature=temperature)
    check_pairs(z1, z2)
    check_pairs(z1, hard)
    row, scale = jnp.arange(len(z1)), 1 / temperature
    own, own_hard = (scale * own_pairs(z1, z, normalize=True) for z in (z2, hard))
    others = logsumexp_pairs(z1, (z2, hard), scale=scale, q_ids=row, k_ids=row, normalize=True)
    negatives = jnp.logaddexp(others, own_hard + hard_weight)
    return jnp.mean(jnp.logaddexp(own, negatives) - own)


def simcse_pairs(
    z: Float[Array, "2n d"], *, temperature: float | Float[Array, ""] = 0.05
) -> Float[Array, ""]:
    """Rows in twos (a sentence twice in a row), each picking its twin among all other rows.

    Raises:
      ValueError: an odd number of rows.
    """
    return nt_xent_rows(z, temperature=temperature, layout="interleaved")


def simcse_triples(
    z: Float[Array, "3n d"],
    *,
    temperature: float | Float[Array, ""] = 0.05,
    hard_weight: float = 0.0,
) -> Float[Array, ""]:
    """Rows in threes (sentence, entailment, contradiction): `simcse` with hard negatives.

    Raises:
      ValueError: a number of rows that three does not divide.
    """
    if z.ndim != 2 or len(z) % 3:
        raise ValueError(f"z must be [3n, d], three rows for each sentence; got {z.shape}")
    return simcse(z[0::3], z[1::3], z[2::3], temperature=temperature, hard_weight=hard_weight)
