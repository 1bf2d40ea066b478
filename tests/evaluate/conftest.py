"""Real features for the probes: scikit-learn's handwritten digits, shuffled and split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxcl.evaluate import Features

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="session")
def digits() -> Features:
    """Pixels of 1,437 training and 360 test digits."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    return Features(x[:1437], y[:1437], x[1437:], y[1437:], NAMES)
