"""Balancedness: the equation pair by pair, and its laws."""

import numpy as np
import pytest

from jaxcl.evaluate import balancedness

LABELS = np.repeat([0, 1, 3], 10)


def predicted(*right):
    """So many rows of each class are named rightly, the others as class 2."""
    return np.where(np.arange(30) % 10 < np.repeat(right, 10), LABELS, 2)


@pytest.mark.parametrize("sigma", [1.0, 0.1])
def test_is_the_mean_over_pairs_of_classes(sigma):
    shares = [0.9, 0.4, 0.6]
    by_hand = sum(np.exp(-abs(a - b) / sigma) for a in shares for b in shares) / 9
    labels = np.concatenate([LABELS, [-1]])
    found = balancedness(np.append(predicted(9, 4, 6), 0), labels, sigma=sigma)
    assert found.value == pytest.approx(by_hand, abs=1e-12)
    assert found.accuracies == pytest.approx([90, 40, 60])
    assert found.worst == pytest.approx(40)
    assert found.std == pytest.approx(100 * np.std(shares))


def test_is_one_for_equal_classes_and_falls_as_one_gets_worse():
    values = [balancedness(predicted(7, 7, right), LABELS).value for right in (7, 5, 2, 0)]
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


def test_wrong_use():
    with pytest.raises(ValueError, match=r"predictions \(3,\), labels \(2,\)"):
        balancedness(np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(ValueError, match="a positive sigma"):
        balancedness(LABELS, LABELS, sigma=0.0)
