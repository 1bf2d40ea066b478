"""The pairwise engine under the losses."""

from jaxcl.similarity.pairs import (
    logsumexp_among,
    logsumexp_both,
    logsumexp_pairs,
    max_pairs,
    softplus_pairs,
    topk_pairs,
)
from jaxcl.similarity.rows import cosines, unit_rows

__all__ = [
    "cosines",
    "logsumexp_among",
    "logsumexp_both",
    "logsumexp_pairs",
    "max_pairs",
    "softplus_pairs",
    "topk_pairs",
    "unit_rows",
]
