"""What the report looks at: neighbours and the map."""

import numpy as np
import pytest

from jaxcl.evaluate import Features, feature_map, nearest_neighbours


def test_neighbours_match_a_loop(digits):
    train_images = (digits.train_x.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    test_images = (digits.test_x.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    found = nearest_neighbours(digits, train_images, test_images, queries=4, hard=3, k=5)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit(digits.test_x.astype(np.float64)) @ unit(digits.train_x.astype(np.float64)).T
    assert len(found.query_images) == 7
    assert found.hard == (False,) * 4 + (True,) * 3
    for i, image in enumerate(found.query_images):
        (row,) = np.flatnonzero((test_images == image).all(axis=(1, 2, 3)))
        near = np.argsort(-cosine[row])[:5]
        np.testing.assert_allclose(found.similarity[i], cosine[row][near], rtol=1e-5)
        np.testing.assert_array_equal(found.labels[i], digits.train_y[near])
        np.testing.assert_array_equal(found.images[i], train_images[near])
        assert found.query_labels[i] == digits.test_y[row]
        if found.hard[i]:
            assert found.labels[i][0] != found.query_labels[i]


def test_neighbours_of_few_unlabelled_images_of_any_size():
    x, y = np.eye(3, dtype=np.float32), np.full(3, -1)
    images = [np.zeros((i + 2, i + 3, 3), np.uint8) for i in range(3)]
    found = nearest_neighbours(Features(x, y, x[:2], y[:2], ()), images, images)
    assert found.hard == (False, False)
    assert found.labels.shape == (2, 3)
    assert sorted(image.shape for image in found.images[0]) == [i.shape for i in images]


def test_map_keeps_neighbourhoods_and_is_seeded(digits):
    x, y = digits.test_x, digits.test_y
    found = feature_map(x, y, most=200)
    assert (found.method, found.rows, found.points.shape) == ("t-SNE", 360, (200, 2))
    gaps = np.linalg.norm(found.points[:, None] - found.points, axis=2) + 1e9 * np.eye(200)
    same = np.mean(found.labels == found.labels[np.argmin(gaps, axis=1)])
    assert same > 0.85
    np.testing.assert_array_equal(feature_map(x, y, most=200).points, found.points)


def test_pca_spans_the_largest_variance(digits):
    found = feature_map(digits.test_x, digits.test_y, method="pca")
    x = digits.test_x / np.linalg.norm(digits.test_x, axis=1, keepdims=True)
    largest = np.linalg.eigvalsh(np.cov(x.T.astype(np.float64), bias=True))[-2:]
    np.testing.assert_allclose(np.sort(found.points.var(axis=0)), largest, rtol=1e-4)


@pytest.mark.parametrize(
    "x", [np.ones((1, 3)), np.ones((40, 3)), np.zeros((9, 1)), np.eye(3), np.arange(4.0)[:, None]]
)
def test_map_of_almost_nothing(x):
    found = feature_map(x, np.zeros(len(x), int))
    assert found.method == "PCA"
    assert found.points.shape == (len(x), 2)
    assert np.isfinite(found.points).all()
