"""Clustering: how well k-means, which sees no label, finds the classes.

accuracy   share of rows in their class's cluster, under the best one-to-one matching
NMI        2 I(labels; clusters) / (H(labels) + H(clusters))
AMI        (I - E) / (mean of both H - E), E: mean of I over random clusterings of these sizes
ARI        share of pairs on which both agree, 0 for a random clustering, 1 for a perfect one
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.errors import UserError
from jaxcl.similarity import unit_rows
from jaxcl.similarity.kmeans import kmeans
from jaxcl.typing import Float, Int, NumpyArray


@dataclass(frozen=True)
class Clustering:
    """Agreement of clusters and classes."""

    accuracy: float
    """Share of rows in their class's cluster, percent."""
    nmi: float
    """Normalised mutual information, 0 to 1."""
    ari: float
    """Adjusted Rand index: up to 1; about 0 for random clusters."""
    ami: float
    """Adjusted mutual information: up to 1; about 0 for random clusters, however many they are."""


def cluster(
    x: Float[NumpyArray, "n d"],
    y: Int[NumpyArray, "n"],
    *,
    clusters: int = 0,
    restarts: int = 10,
    iterations: int = 50,
    seed: int = 0,
) -> Clustering:
    """k-means of features scaled to length 1, from k-means++ starts, beside the classes.

    Args:
      x: [n, d] features of the split that is evaluated.
      y: [n] class ids; rows labelled -1 are clustered and not scored.
      clusters: how many; 0: as many as there are classes.
      restarts: runs, of which the one with the lowest objective counts.
      iterations: of each run.
      seed: of the starts.

    Raises:
      UserError: no row has a label, or there are more clusters than rows.
    """
    known = np.asarray(y) >= 0
    if not known.any():
        raise UserError("clusters cannot be scored: no row has a label")
    k = clusters or len(np.unique(y[known]))
    if k > len(x):
        raise UserError(f"clusters={k} of {len(x)} rows; use at most {len(x)}")
    unit = unit_rows(jnp.asarray(x, jnp.float32))
    found = kmeans(unit, k, jax.random.key(seed), iterations, restarts=restarts)
    return agreement(np.asarray(y)[known], np.asarray(found.assignments)[known])


def agreement(labels: Int[NumpyArray, "n"], clusters: Int[NumpyArray, "n"]) -> Clustering:
    """Scores of any assignment of rows to clusters; neither side's numbering matters.

    Args:
      labels: [n] class ids.
      clusters: [n] cluster ids.

    Raises:
      ValueError: their lengths differ, or there is no row.
    """
    # Both take long to import, and few runs cluster.
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        normalized_mutual_info_score,
    )

    if labels.shape != clusters.shape or not len(labels):
        raise ValueError(f"labels {labels.shape} and clusters {clusters.shape}")
    names, rows = np.unique(labels, return_inverse=True)
    found, columns = np.unique(clusters, return_inverse=True)
    table = np.zeros((len(names), len(found)), np.int64)
    np.add.at(table, (rows, columns), 1)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return Clustering(
        100 * float(matched) / len(labels),
        float(normalized_mutual_info_score(labels, clusters)),
        float(adjusted_rand_score(labels, clusters)),
        float(adjusted_mutual_info_score(labels, clusters)),
    )
