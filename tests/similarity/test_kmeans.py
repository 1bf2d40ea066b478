import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from jaxcl.scale import data_mesh
from jaxcl.similarity import kmeans as module
from jaxcl.similarity.kmeans import kmeans

RNG = np.random.default_rng(0)
CENTRES = 3 * RNG.normal(size=(6, 4))
TRUTH = np.arange(121) % 6
BLOBS = (CENTRES[TRUTH] + 0.1 * RNG.normal(size=(121, 4))).astype(np.float32)
CLOUD = RNG.normal(size=(121, 4)).astype(np.float32)
"""No clusters in it, so that Lloyd's algorithm has a long way to go."""


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_hand(x, centroids):
    """Assignments and objective in float64, point by point."""
    squares = ((x[:, None].astype(np.float64) - centroids[None].astype(np.float64)) ** 2).sum(2)
    return squares.argmin(1), squares.min(1).sum()


def test_separated_blobs_are_found_as_scikit_learn_finds_them():
    found = kmeans(BLOBS, 6, jax.random.key(0), restarts=5)
    assert normalized_mutual_info_score(TRUTH, found.assignments) == 1.0
    theirs = KMeans(6, n_init=5, random_state=0).fit(BLOBS)
    np.testing.assert_allclose(found.objective, theirs.inertia_, rtol=1e-5)
    order = np.argsort(np.asarray(found.centroids)[:, 0])
    expected = theirs.cluster_centers_[np.argsort(theirs.cluster_centers_[:, 0])]
    np.testing.assert_allclose(np.asarray(found.centroids)[order], expected, atol=1e-5)


@pytest.mark.parametrize("empty", ["farthest", "keep"])
@pytest.mark.parametrize("spherical", [False, True])
def test_the_objective_never_rises(spherical, empty):
    runs = [
        kmeans(CLOUD, 9, jax.random.key(1), n, spherical=spherical, empty=empty,
               beginning="random")
        for n in (0, 1, 2, 3, 8)
    ]  # fmt: skip
    values = [float(run.objective) for run in runs]
    assert (np.diff(values) <= 1e-6 * values[0]).all()
    assert values[-1] < 0.9 * values[0]


def test_assignments_and_objective_are_those_of_the_centroids():
    found = kmeans(CLOUD, 9, jax.random.key(1), 3)
    own, objective = by_hand(CLOUD, np.asarray(found.centroids))
    np.testing.assert_array_equal(found.assignments, own)
    np.testing.assert_allclose(found.objective, objective, rtol=1e-5)
    assert found.assignments.dtype == jnp.int32


def test_an_iteration_is_lloyds():
    """Against NumPy from the same first centroids."""
    first = kmeans(CLOUD, 9, jax.random.key(1), 0)
    means = np.stack([CLOUD[np.asarray(first.assignments) == c].mean(0) for c in range(9)])
    once = kmeans(CLOUD, 9, jax.random.key(1), 1)
    np.testing.assert_allclose(once.centroids, means, atol=1e-5)


def test_spherical_centroids_have_length_one_and_rows_any():
    lengths = np.exp(RNG.normal(size=(121, 1)), dtype=np.float32)
    one = kmeans(BLOBS, 6, jax.random.key(2), 3, spherical=True)
    other = kmeans(lengths * BLOBS, 6, jax.random.key(2), 3, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(one.centroids, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(one.assignments, other.assignments)
    members = [unit(BLOBS)[np.asarray(one.assignments) == c].sum(0) for c in range(6)]
    np.testing.assert_allclose(one.centroids, unit(np.stack(members)), atol=1e-4)


def test_points_far_from_the_origin_keep_their_digits():
    """But for those that float32 has not at 1000, where it goes in steps of 6e-5."""
    near = kmeans(CLOUD, 9, jax.random.key(3), 3)
    away = kmeans(CLOUD + 1000, 9, jax.random.key(3), 3)
    assert float(jnp.mean(away.assignments == near.assignments)) > 0.95
    np.testing.assert_allclose(away.objective, near.objective, rtol=1e-2)


def test_first_centroids_are_points_and_spread():
    """Two points and one far away: k-means++ takes that one in nearly every draw."""
    x = np.array([[0.0], [0.001], [1.0]], np.float32)
    hits = [float(kmeans(x, 2, jax.random.key(s), 0).objective) < 0.1 for s in range(20)]
    assert all(hits)
    twice = np.concatenate([CLOUD[:5], CLOUD[:5]])
    first = kmeans(twice, 5, jax.random.key(0), 0).centroids
    assert len(np.unique(np.asarray(first).round(4), axis=0)) == 5


def test_empty_clusters_are_kept_or_jump_to_the_farthest_point():
    """Three points in one place start two clusters there, of which one stays empty."""
    x = np.array([[1, 1], [1, 1], [1, 1], [9, 1], [1, 10]], np.float32)
    seeds = [
        s for s in range(20)
        if len(np.unique(kmeans(x, 3, jax.random.key(s), 0, beginning="random").assignments)) == 1
    ]  # fmt: skip
    key = jax.random.key(seeds[0])
    kept = kmeans(x, 3, key, 1, beginning="random", empty="keep")
    expected = sorted([(1, 1), (1, 1), tuple(x.mean(axis=0))])
    np.testing.assert_allclose(sorted(map(tuple, np.asarray(kept.centroids))), expected, atol=1e-5)
    moved = kmeans(x, 3, key, 1, beginning="random", empty="farthest")
    assert {(9.0, 1.0), (1.0, 10.0)} <= {tuple(c) for c in np.asarray(moved.centroids).round(5)}
    assert float(kmeans(x, 3, key, 2, beginning="random").objective) < 1e-9


def test_unseen_points_move_nothing():
    x = np.concatenate([CLOUD, np.full((20, 4), np.nan, np.float32)])
    seen = np.arange(141) < 121
    found = kmeans(x, 9, jax.random.key(4), 4, seen=jnp.array(seen))
    own, objective = by_hand(CLOUD, np.asarray(found.centroids))
    np.testing.assert_array_equal(found.assignments[:121], own)
    np.testing.assert_allclose(found.objective, objective, rtol=1e-5)
    assert len(np.unique(own)) == 9


def test_runs_of_points_and_devices_change_nothing(monkeypatch):
    whole = kmeans(CLOUD, 9, jax.random.key(5), 4)
    monkeypatch.setattr(module, "TOGETHER", 9 * 16)  # eight runs, the last one ragged
    fresh = lambda: kmeans.__wrapped__(CLOUD, 9, jax.random.key(5), 4)
    with jax.set_mesh(data_mesh(8)):
        spread = jax.jit(fresh)()
    for found in (jax.jit(fresh)(), spread):
        np.testing.assert_array_equal(found.assignments, whole.assignments)
        np.testing.assert_allclose(found.centroids, whole.centroids, atol=1e-5)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="k=122 clusters of 121 points"):
        kmeans(CLOUD, 122, jax.random.key(0))


@pytest.mark.parametrize("beginning", ["spread", "random"])
def test_numbers_of_64_bits_change_nothing(x64, beginning):
    """Computed in float32, under `jax_enable_x64` too, from the same first points."""
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    found = kmeans(x, 2, jax.random.key(0), 3, beginning=beginning)
    with jax.enable_x64(False):
        expected = kmeans(x, 2, jax.random.key(0), 3, beginning=beginning)
    assert found.centroids.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, found, expected)
