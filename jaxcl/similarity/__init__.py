"""The pairwise engine under the losses."""

from jaxcl.similarity.pairs import logsumexp_pairs, max_pairs
from jaxcl.similarity.rows import unit_rows

__all__ = ["logsumexp_pairs", "max_pairs", "unit_rows"]
