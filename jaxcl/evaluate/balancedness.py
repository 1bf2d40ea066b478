"""Balancedness: whether frozen features separate every class equally well.

    1/C^2 sum_{c, c'} exp(-|a_c - a_c'| / sigma),    a_c in [0, 1] the accuracy of class c

It is 1 where all classes are classified equally well. The accuracies are those of a linear probe
that was fitted on a set with equally many examples of each class; the features may come from
training on any other set.

Reference: Kang et al. 2021, "Exploring balanced feature spaces for representation learning".
"""

from typing import NamedTuple

import numpy as np

from jaxcl.typing import Float, Int, NumpyArray


class Balancedness(NamedTuple):
    """How alike the classes' accuracies are."""

    value: float
    """Balancedness, above 0 and up to 1."""
    std: float
    """Standard deviation of the classes' accuracies, percent."""
    worst: float
    """Accuracy of the class with the lowest one, percent."""
    accuracies: Float[NumpyArray, "c"]
    """Accuracy of each class that occurs among the labels, in the order of their ids, percent."""


def balancedness(
    predictions: Int[NumpyArray, "m"], labels: Int[NumpyArray, "m"], *, sigma: float = 1.0
) -> Balancedness:
    """Balancedness of a probe's predictions, such as `logistic_probe(...).predictions`.

    Args:
      predictions: [m] class ids.
      labels: [m] true class ids; rows labelled -1 are left out.
      sigma: positive difference of accuracies, on the scale of 0 to 1, at which a pair of classes
        counts 1/e. The value that the paper used is not known to us.

    Raises:
      ValueError: their lengths differ, no row has a label, or `sigma` is not positive.
    """
    if predictions.shape != labels.shape or not (labels >= 0).any() or sigma <= 0:
        raise ValueError(
            f"predictions {predictions.shape}, labels {labels.shape} and sigma={sigma}; give "
            "equal lengths, some labels and a positive sigma"
        )
    names = np.unique(labels[labels >= 0])
    shares = np.array([np.mean(predictions[labels == name] == name) for name in names])
    value = np.mean(np.exp(-np.abs(shares[:, None] - shares) / sigma))
    return Balancedness(
        float(value), 100 * float(shares.std()), 100 * float(shares.min()), 100 * shares
    )
