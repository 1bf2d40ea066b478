from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ENCODER, IMAGES, RECIPE, VIEWS, Contract, experiment
from sklearn.metrics import normalized_mutual_info_score

from jaxcl import UserError, load
from jaxcl.augment import RandomResizedCrop, Recipe
from jaxcl.encoders import MLP
from jaxcl.methods import DeepClusterV2, Progress
from jaxcl.methods.deepcluster import NONE, Views, classification

N, EXAMPLES, WIDTH = 4, 30, 4
METHOD = DeepClusterV2(
    augment=Recipe((replace(VIEWS, copies=2), replace(VIEWS, crop=RandomResizedCrop(4))), 8),
    encoder=ENCODER,
    projector=MLP((8,), WIDTH, norm="none", bias=True, out_bias=True),
    clusters=(3, 2),
)
RNG = np.random.default_rng(0)
CROPS = tuple(jnp.array(RNG.normal(size=(N, side, side, 3)), jnp.float32) for side in (8, 8, 4))
BATCH = Views(CROPS, jnp.array([29, 3, 0, 17]))
"""The last batch of an epoch, say: neither the first examples nor neighbours."""


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def start():
    key = jax.random.key(1)
    params, memory = jax.jit(METHOD.init)(key, BATCH)
    return params, METHOD.per_example(key, memory, EXAMPLES)


PARAMS, EMPTY = start()
MEMORY = EMPTY._replace(
    rows=jnp.array(unit(RNG.normal(size=(2, EXAMPLES, WIDTH))), jnp.float32),
    clusters=jnp.stack([jnp.arange(EXAMPLES) % 3, jnp.arange(EXAMPLES) % 2]).at[0, 3].set(NONE),
    centroids=tuple(jnp.array(unit(RNG.normal(size=(k, WIDTH))), jnp.float32) for k in (3, 2)),
)


@jax.jit
def value_and_grad(memory):
    value = lambda params: METHOD.loss(params, memory, BATCH, jax.random.key(2), Progress(0, 10, 5))
    return jax.value_and_grad(value, has_aux=True)(PARAMS)


@jax.jit
def all_rows():
    outputs, _ = METHOD._network()(PARAMS, EMPTY.stats, CROPS)
    return outputs["projector"]


def by_hand(z, centroids, target, temperature=0.1):
    """Row by row in float64; rows without a cluster are passed over."""
    terms = []
    for n, v in np.ndindex(z.shape[:2]):
        if target[n] != NONE:
            logits = np.array([z[n, v] @ c for c in centroids], np.float64) / temperature
            terms.append(np.log(np.exp(logits).sum()) - logits[target[n]])
    return np.mean(terms)


def test_the_loss_is_the_mean_over_heads_of_all_crops_in_their_images_cluster():
    (value, aux), _ = value_and_grad(MEMORY)
    z = unit(np.asarray(all_rows(), np.float64))
    targets = [[29 % 3, NONE, 0, 17 % 3], [29 % 2, 3 % 2, 0, 17 % 2]]
    pairs = zip(MEMORY.centroids, targets, strict=True)
    expected = np.mean([by_hand(z, np.asarray(c), target) for c, target in pairs])
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(aux.embeddings, z[:, :2], atol=1e-5)
    assert aux.features.shape == (N, 2, 8)


def test_rows_are_kept_by_the_images_index_and_nothing_else_changes():
    (_, aux), _ = value_and_grad(MEMORY)
    z, shown = unit(np.asarray(all_rows())), np.asarray(BATCH.places)
    np.testing.assert_allclose(aux.memory.rows[:, shown], np.moveaxis(z[:, :2], 0, 1), atol=1e-5)
    others = np.setdiff1d(np.arange(EXAMPLES), shown)
    np.testing.assert_array_equal(aux.memory.rows[:, others], MEMORY.rows[:, others])
    np.testing.assert_array_equal(aux.memory.clusters, MEMORY.clusters)
    for one, other in zip(aux.memory.centroids, MEMORY.centroids, strict=True):
        np.testing.assert_array_equal(one, other)


def test_before_the_first_clustering_nothing_is_learnt():
    (value, aux), grads = value_and_grad(EMPTY)
    assert float(value) == 0
    assert float(aux.metrics["cluster_accuracy"]) == 0
    assert all(not np.asarray(g).any() for g in jax.tree.leaves(grads))


def test_accuracy_counts_the_rows_that_have_a_cluster():
    z = jnp.eye(3)[jnp.array([[0, 0], [1, 2], [2, 2]])]  # [3, 2, 3]
    targets = jnp.array([[0, 1, NONE], [0, 1, 0]])
    told = jax.vmap(lambda target: classification(z, jnp.eye(3), target, temperature=0.1)[1])
    np.testing.assert_allclose(jax.jit(told)(targets), [3 / 4, 3 / 6])


def blobs(truth, seed):
    """Directions about as many axes as there are classes."""
    noise = np.random.default_rng(seed).normal(size=(len(truth), WIDTH))
    return unit(np.eye(WIDTH)[truth] + 0.05 * noise).astype(np.float32)


def test_heads_cluster_the_views_in_turn():
    truths = [np.arange(EXAMPLES) % 2, np.arange(EXAMPLES) // 15]
    rows = jnp.array(np.stack([blobs(truth, seed) for seed, truth in enumerate(truths)]))
    method = replace(METHOD, clusters=(2, 2, 2))
    clusters = jnp.zeros((3, EXAMPLES), jnp.int32)
    memory = method.on_epoch(None, MEMORY._replace(rows=rows, clusters=clusters), jax.random.key(0))
    for head, truth in enumerate([truths[0], truths[1], truths[0]]):
        assert normalized_mutual_info_score(truth, memory.clusters[head]) == 1
        centroids = np.asarray(memory.centroids[head])
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-6)
        nearest = (np.asarray(rows[head % 2]) @ centroids.T).argmax(axis=1)
        np.testing.assert_array_equal(memory.clusters[head], nearest)
    np.testing.assert_array_equal(memory.rows, rows)


def test_the_first_clustering_is_of_the_plain_images():
    truth = np.arange(EXAMPLES) % 2
    asked = []

    def embed(represent):
        images = jnp.zeros((3, 8, 8, 3), jnp.uint8).at[1].set(255)
        asked.append(jax.jit(represent)(PARAMS, EMPTY, {"image": images})["features"])
        return blobs(truth, 0), np.full(EXAMPLES, -1)

    memory = replace(METHOD, clusters=(2, 2)).on_epoch(embed, EMPTY, jax.random.key(0))
    for head in range(2):
        assert normalized_mutual_info_score(truth, memory.clusters[head]) == 1
        np.testing.assert_array_equal(memory.rows[head], blobs(truth, 0))
    np.testing.assert_allclose(np.linalg.norm(asked[0], axis=1), 1, rtol=1e-5)
    z = jax.jit(lambda x: METHOD._network()(PARAMS, EMPTY.stats, (x,))[0]["projector"][:, 0])
    plain = jnp.zeros((3, 8, 8, 3)).at[1].set(1.0)
    np.testing.assert_allclose(asked[0], unit(np.asarray(z(plain))), atol=1e-5)


SMALL = replace(
    METHOD,
    augment=RECIPE,
    projector=MLP((32,), WIDTH, bias=True, out_bias=True),
    temperature=0.5,
)
"""Softer than the paper's, which amplifies rounding two hundredfold in six steps."""


class TestContract(Contract):
    experiment = experiment(SMALL)

    def test_resumed_at_the_border_of_an_epoch(self, alone, tmp_path):
        """The same clusters are found again from what the checkpoint holds."""
        self.resume_at = 4
        self.test_stopped_and_resumed_equals_going_on(alone, tmp_path)

    def test_every_image_has_a_cluster_shown_or_not(self, alone):
        """Eight of the forty images are in no batch of an epoch."""
        memory = load(alone).state.memory
        assert memory.clusters.shape == (2, IMAGES)
        assert sorted(np.unique(memory.clusters[0])) == [0, 1, 2]
        assert sorted(np.unique(memory.clusters[1])) == [0, 1]
        np.testing.assert_allclose(np.linalg.norm(memory.rows, axis=2), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": ()}, r"method.clusters=\(\) clusters nothing; give a number"),
        ({"clusters": (3, 0)}, r"method.clusters=\(3, 0\) clusters nothing"),
        ({"augment": Recipe((VIEWS,), 8)}, "makes views of 8 pixels, and DeepClusterV2 takes two"),
    ],
)
def test_wrong_use_is_answered(changes, message):
    with pytest.raises(UserError, match=message):
        replace(METHOD, **changes).check(16)


def test_more_clusters_than_images_are_refused():
    with pytest.raises(UserError, match=r"method.clusters=\(3, 2\) .* training images, 2; use"):
        METHOD.per_example(jax.random.key(0), EMPTY, 2)
