"""Accuracy with a handful of labels per class: the case in which pre-training pays most."""

from dataclasses import dataclass

import numpy as np

from jaxcl.evaluate.linear import logistic_probe, standardized
from jaxcl.evaluate.subsets import balanced_subset
from jaxcl.typing import Float, Int, NumpyArray


@dataclass(frozen=True)
class FewLabel:
    """Test accuracies of probes that saw few labels, in percent."""

    mean: float
    """Mean over the label subsets."""
    std: float
    """Standard deviation over the label subsets (0 for one subset)."""
    accuracies: tuple[float, ...]
    """One for each seed."""


def few_label_accuracy(
    train_x: Float[NumpyArray, "n d"],
    train_y: Int[NumpyArray, "n"],
    test_x: Float[NumpyArray, "m d"],
    test_y: Int[NumpyArray, "m"],
    *,
    per_class: int,
    seeds: int = 5,
    C: float = 1.0,
) -> FewLabel:
    """Logistic regression on `per_class` labelled rows of each class, over several such subsets.

    Features are standardised by all of `train_x`, which takes no labels: the unlabelled rows are
    there in this setting, and a few rows would give poor statistics. The penalty is fixed, as there
    are too few labels to choose it by; C=1 is scikit-learn's default.

    Args:
      train_x: [n, d] features the subsets are drawn from.
      train_y: [n] class ids; -1 marks rows without a label.
      test_x: [m, d] features to score on, all of them each time.
      test_y: [m] class ids; used for the accuracy only.
      per_class: labels of each class.
      seeds: subsets, drawn with the seeds 0 to seeds - 1.
      C: inverse penalty of the regression.

    Returns:
      mean, standard deviation and each accuracy, percent.

    Raises:
      UserError: a class has fewer labelled rows, or there is one class only.
    """
    train_x, test_x = standardized(np.asarray(train_x), np.asarray(test_x))
    accuracies = []
    for seed in range(seeds):
        rows = balanced_subset(np.asarray(train_y), per_class=per_class, seed=seed)
        probe = logistic_probe(
            train_x[rows], np.asarray(train_y)[rows], test_x, test_y, C=C, standardize=False
        )
        accuracies.append(probe.accuracy)
    spread = float(np.std(accuracies, ddof=1)) if seeds > 1 else 0.0
    return FewLabel(float(np.mean(accuracies)), spread, tuple(accuracies))
