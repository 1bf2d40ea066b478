from itertools import permutations
from math import comb

import numpy as np
import pytest

from jaxcl import UserError
from jaxcl.evaluate import agreement, cluster


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def by_hand(labels, clusters):
    """All matchings, entropies and pairs, counted one by one."""
    n, k = len(labels), max(*labels, *clusters) + 1
    table = np.array(
        [[np.sum((labels == i) & (clusters == j)) for j in range(k)] for i in range(k)]
    )
    accuracy = max(sum(table[i, p[i]] for i in range(k)) for p in permutations(range(k))) / n
    entropy = lambda p: -sum(x * np.log(x) for x in p.ravel() if x > 0)
    joint, rows, columns = (entropy(t / n) for t in (table, table.sum(1), table.sum(0)))
    nmi = 2 * (rows + columns - joint) / (rows + columns)
    pairs = lambda t: sum(comb(int(x), 2) for x in t.ravel())
    both, first, second = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    chance = first * second / comb(n, 2)
    return 100 * accuracy, nmi, (both - chance) / ((first + second) / 2 - chance)


@pytest.mark.parametrize(("classes", "clusters"), [(4, 4), (3, 5), (5, 2)])
def test_scores_are_their_definitions(rng, classes, clusters):
    y, found = rng.integers(0, classes, 60), rng.integers(0, clusters, 60)
    found = np.where(rng.random(60) < 0.5, y % clusters, found)
    scores = agreement(y, found)
    np.testing.assert_allclose(
        [scores.accuracy, scores.nmi, scores.ari], by_hand(y, found), rtol=0, atol=1e-9
    )


def test_mutual_information_is_adjusted_by_its_mean_over_all_orders():
    y, found = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])

    def information(y, found):
        table = np.array([[np.mean((y == i) & (found == j)) for j in range(3)] for i in range(3)])
        parts = table / (table.sum(1, keepdims=True) * table.sum(0))
        return np.sum(table[table > 0] * np.log(parts[table > 0]))

    chance = np.mean([information(y, found[list(order)]) for order in permutations(range(6))])
    most = (information(y, y) + information(found, found)) / 2
    expected = (information(y, found) - chance) / (most - chance)
    assert agreement(y, found).ami == pytest.approx(expected, abs=1e-9)


def test_numbering_does_not_matter_and_perfect_is_one(rng):
    y, found = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    scores = agreement(y, found)
    renumbered = agreement(np.array([7, 3, 9, 1, 4])[y], np.array([2, 0, 1, 4, 3])[found])
    np.testing.assert_allclose(list(vars(renumbered).values()), list(vars(scores).values()))
    assert abs(scores.ari) < 0.03
    assert abs(scores.ami) < 0.03
    perfect = agreement(y, (y + 2) % 5)
    np.testing.assert_allclose(list(vars(perfect).values()), [100, 1, 1, 1])


def test_directions_are_found_whatever_the_length_and_unlabelled_rows_are_not_scored(rng):
    y = np.arange(60) % 3
    x = (np.eye(3)[y] + 0.02 * rng.normal(size=(60, 3))) * rng.uniform(0.1, 50, size=(60, 1))
    y = np.where(np.arange(60) < 50, y, -1)
    assert list(vars(cluster(x, y, restarts=3)).values()) == pytest.approx([100, 1, 1, 1])
    assert cluster(x, y, clusters=2, restarts=3).accuracy < 70


def test_digits_cluster_far_above_chance(digits):
    scores = cluster(digits.test_x, digits.test_y)
    assert scores.accuracy > 60
    assert scores.nmi > 0.6


def test_wrong_use():
    x = np.ones((4, 2))
    with pytest.raises(UserError, match="no row has a label"):
        cluster(x, np.full(4, -1))
    with pytest.raises(UserError, match="clusters=5 of 4 rows; use at most 4"):
        cluster(x, np.arange(4), clusters=5)
    with pytest.raises(ValueError, match=r"labels \(4,\) and clusters \(3,\)"):
        agreement(np.arange(4), np.arange(3))
