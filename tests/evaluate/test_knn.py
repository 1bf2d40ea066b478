"""Weighted kNN against a loop, scikit-learn and the reference value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from jaxcl.evaluate import knn_accuracy, knn_scores, nearest, top_accuracy, weighted_knn


def golden(shift: float, rows: int) -> np.ndarray:
    """M(s)[i, j] = sin(s + 0.7 i + 1.3 j + 0.1 i j), rows of length 1."""
    i, j = np.arange(rows)[:, None], np.arange(5)
    m = np.sin(shift + 0.7 * i + 1.3 * j + 0.1 * i * j)
    return m / np.linalg.norm(m, axis=1, keepdims=True)


def by_hand(bank, labels, queries, classes, k, temperature, exclude_self=False):
    """The vote in float64, one neighbour at a time."""
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    found = []
    for i, query in enumerate(queries.astype(np.float64)):
        near = [(float(query @ row), j) for j, row in enumerate(bank.astype(np.float64))]
        near = [(s, j) for s, j in near if not (exclude_self and i == j)]
        score = [0.0] * classes
        for s, j in sorted(near, key=lambda sj: -sj[0])[:k]:
            score[labels[j]] += np.exp(s / temperature)
        found.append(score.index(max(score)))
    return np.array(found)


@pytest.fixture
def blobs():
    """Three classes that overlap, so that k, weights and blocks matter."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    centres = rng.normal(size=(3, 6))
    return (centres[labels] + 1.2 * rng.normal(size=(90, 6))).astype(np.float32), labels


def test_golden_row():
    labels = np.arange(10) % 3
    found = weighted_knn(golden(4, 10), labels, golden(0, 4), classes=3, k=3, temperature=0.07)
    assert found.tolist() == [2, 1, 2, 2]  # from an independent numpy implementation
    assert found.dtype == jnp.int32


@pytest.mark.parametrize("k", [1, 5, 40, 1000])
def test_matches_the_loop(blobs, k):
    x, y = blobs
    found = weighted_knn(x[:60], y[:60], x[60:], classes=3, k=k, temperature=0.2)
    np.testing.assert_array_equal(found, by_hand(x[:60], y[:60], x[60:], 3, k, 0.2))


@pytest.mark.parametrize("k", [1, 9, 1000])
def test_a_row_does_not_vote_for_itself(blobs, k):
    x, y = blobs
    found = weighted_knn(x, y, x, classes=3, k=k, exclude_self=True)
    np.testing.assert_array_equal(found, by_hand(x, y, x, 3, k, 0.07, exclude_self=True))
    assert int(knn_accuracy(x, y, x, y, classes=3, k=1)) == 100
    assert float(knn_accuracy(x, y, x, y, classes=3, k=1, exclude_self=True)) < 90


def test_scores_and_top_3_are_sklearns(blobs):
    """Four classes; the votes are those of its classifier with the same weights."""
    x, _ = blobs
    y = np.random.default_rng(1).integers(0, 4, 90)
    options = {"classes": 4, "k": 9, "temperature": 0.2}
    scores = np.asarray(knn_scores(x[:60], y[:60], x[60:], **options))
    weights = lambda distance: np.exp((1 - distance) / 0.2)
    oracle = KNeighborsClassifier(9, metric="cosine", weights=weights).fit(x[:60], y[:60])
    shares = oracle.predict_proba(x[60:])
    np.testing.assert_allclose(scores / scores.sum(1, keepdims=True), shares, rtol=1e-4, atol=1e-6)
    for top in (1, 3):
        accuracy = knn_accuracy(x[:60], y[:60], x[60:], y[60:], top=top, **options)
        expected = 100 * top_k_accuracy_score(y[60:], scores, k=top, labels=range(4))
        assert float(accuracy) == pytest.approx(expected, rel=1e-6)


def test_of_equal_scores_the_lowest_class_comes_first():
    scores = np.array([[1.0, 1, 0, 1], [0, 2, 2, 2], [1, 0, 0, 0]])
    labels = np.array([1, 3, -1])
    found = [float(top_accuracy(scores, labels, top=top)) for top in (1, 2, 3, 4)]
    assert found == pytest.approx([0, 100 / 3, 200 / 3, 200 / 3])


def test_one_neighbour_is_sklearns(blobs):
    x, y = blobs
    oracle = KNeighborsClassifier(1, metric="cosine").fit(x[:60], y[:60]).predict(x[60:])
    np.testing.assert_array_equal(weighted_knn(x[:60], y[:60], x[60:], classes=3, k=1), oracle)


def test_length_of_rows_does_not_matter(blobs):
    x, y = blobs
    rng = np.random.default_rng(1)
    scaled = x * rng.uniform(0.01, 100, (90, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        weighted_knn(x[:60], y[:60], x[60:], classes=3, k=9),
        weighted_knn(scaled[:60], y[:60], scaled[60:], classes=3, k=9),
    )


def test_ties_go_to_the_lowest_class():
    bank = np.eye(4, dtype=np.float32)
    query = np.ones((1, 4), np.float32)  # equally far from all four
    for labels in ([3, 1, 2, 3], [3, 2, 1, 0], [2, 1, 2, 1]):
        counts = np.bincount(labels, minlength=4)
        found = weighted_knn(bank, np.array(labels), query, classes=4, k=4)
        assert int(found[0]) == int(np.argmax(counts))


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1e3])
def test_any_temperature(blobs, temperature):
    x, y = blobs
    found = weighted_knn(x[:60], y[:60], x[60:], classes=3, k=60, temperature=temperature)
    # At 1e-4 the loop's exp overflows; there the nearest row decides.
    k, safe = (1, 1.0) if temperature == 1e-4 else (60, temperature)
    np.testing.assert_array_equal(found, by_hand(x[:60], y[:60], x[60:], 3, k, safe))


def test_rows_without_label_have_no_vote():
    bank = np.array([[1, 0], [1, 0.1], [0.9, 0.3]], np.float32)
    found = weighted_knn(bank, np.array([-1, -1, 1]), bank[:1], classes=3, k=3)
    assert found.tolist() == [1]


def test_zero_rows_are_finite():
    similarity, index = nearest(np.zeros((3, 4)), np.zeros((2, 4)), k=2)
    assert np.array(similarity).tolist() == [[0, 0], [0, 0]]
    assert np.array(index).tolist() == [[0, 1], [0, 1]]


def test_runs_inside_a_compiled_step(blobs):
    x, y = blobs
    step = jax.jit(lambda x, y: knn_accuracy(x[:60], y[:60], x[60:], y[60:], classes=3, k=5))
    by_loop = 100 * np.mean(by_hand(x[:60], y[:60], x[60:], 3, 5, 0.07) == y[60:])
    np.testing.assert_allclose(step(x, y), by_loop, rtol=1e-6)


def test_no_full_sort_of_the_bank():
    """XLA would sort the whole bank if the top k were sliced without a barrier."""
    x, y = jnp.ones((512, 8)), jnp.zeros(512, jnp.int32)
    run = jax.jit(lambda x, y: weighted_knn(x, y, x, classes=2, k=5))
    assert " sort(" not in run.lower(x, y).compile().as_text()


def test_impossible_requests():
    x = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="4 columns and queries 5"):
        nearest(x, np.ones((3, 5)), k=1)
    with pytest.raises(ValueError, match="queries to be the bank"):
        nearest(x, x[:2], k=1, exclude_self=True)
    with pytest.raises(ValueError, match="k=1 neighbours of 1 rows"):
        nearest(x[:1], x[:1], k=1, exclude_self=True)
