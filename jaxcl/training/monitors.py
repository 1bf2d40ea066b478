"""Numbers that show in time what the loss does not: whether the features spread or collapse."""

import jax

from jaxcl.evaluate.geometry import alignment, feature_std, uniformity
from jaxcl.methods import Aux
from jaxcl.typing import Metrics

SAMPLE = 512
"""Rows of a batch that the monitors look at, so that their cost stays small in large batches."""

COLLAPSED = 0.1
"""A feature spread below this share of an even one is told as a collapse."""


def monitors(aux: Aux) -> Metrics:
    """Geometry of the first rows of the batch: of the embeddings and of the encoder's features."""
    metrics: Metrics = {}
    if aux.embeddings is not None:
        z = jax.lax.stop_gradient(aux.embeddings[:SAMPLE])
        metrics["uniformity"] = uniformity(z[:, 0])
        metrics["embedding_std"] = feature_std(z[:, 0])
        if z.shape[1] > 1:
            metrics["alignment"] = alignment(z[:, 0], z[:, 1])
    if aux.features is not None:
        h = jax.lax.stop_gradient(aux.features[:SAMPLE, 0])
        metrics["feature_std"] = feature_std(h)
    return metrics
