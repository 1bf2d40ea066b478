from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import BATCH, ENCODER, RECIPE, SIZE, Contract, experiment, pictures

from jaxcl import UserError
from jaxcl.augment import crop_and_flip
from jaxcl.encoders import MLP
from jaxcl.methods import Progress, SimCLR, SimCLRv2

HEAD = MLP((0, 0), 8, final_norm="scale")
METHOD = SimCLRv2(
    augment=RECIPE, encoder=ENCODER, projector=HEAD, temperature=0.5, queue=64, momentum=0.9
)
PLAIN = SimCLR(augment=RECIPE, encoder=ENCODER, projector=HEAD, temperature=0.5)
IMAGES = {
    "image": jnp.array(pictures(BATCH, 0)[0]),
    "label": jnp.zeros(BATCH, jnp.int32),
    "index": jnp.arange(BATCH, dtype=jnp.int32),
}
START = Progress(0, 10, 5)


@jax.jit
def start():
    views = METHOD.views(jax.random.key(0), IMAGES)
    return views, METHOD.init(jax.random.key(1), views)


VIEWS, (PARAMS, MEMORY) = start()


@jax.jit
def graded(params, memory):
    """Loss with its aux, and the gradients of all that it is given."""

    def loss(params, memory):
        return METHOD.loss(params, memory, VIEWS, jax.random.key(2), START)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)(params, memory)


@jax.jit
def plain(params, stats):
    def loss(params):
        memory = PLAIN.init(jax.random.key(1), VIEWS)[1]._replace(stats=stats)
        return PLAIN.loss(params, memory, VIEWS, jax.random.key(2), START)

    return jax.value_and_grad(loss, has_aux=True)(params)


def test_while_the_queue_is_empty_it_is_simclr():
    (value, aux), (gradients, _) = graded(PARAMS, MEMORY)
    (expected, known), slopes = plain(PARAMS, MEMORY.stats)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert aux.metrics["contrastive_accuracy"] == known.metrics["contrastive_accuracy"]
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def by_hand(z, queue, t):
    """NT-Xent whose denominators hold the queue too, in float64."""
    z = np.concatenate([z[:, 0], z[:, 1]]).astype(np.float64)
    z, n = z / np.linalg.norm(z, axis=1, keepdims=True), len(z) // 2
    terms = []
    for i in range(2 * n):
        below = sum(np.exp(z[i] @ z[k] / t) for k in range(2 * n) if k != i)
        below += sum(np.exp(z[i] @ u / t) for u in np.float64(queue))
        terms.append(np.log(below) - z[i] @ z[(i + n) % (2 * n)] / t)
    return np.mean(terms)


def test_past_batches_join_the_denominator_and_the_present_one_does_not():
    (_, first), _ = graded(PARAMS, MEMORY)
    held = first.memory.past.queue
    assert (int(held.filled), int(held.next)) == (32, 32)
    (value, second), _ = graded(PARAMS, first.memory)
    np.testing.assert_allclose(
        value, by_hand(np.array(second.embeddings), held.rows[:32], 0.5), rtol=1e-5
    )
    _, third = graded(PARAMS, second.memory)[0]
    held = third.memory.past.queue  # two batches fill it, the third begins again
    assert (int(held.filled), int(held.next)) == (64, 32)
    np.testing.assert_array_equal(held.rows[32:], second.memory.past.queue.rows[32:])


def test_the_queue_holds_unit_rows_of_the_slow_network():
    other = jax.tree.map(lambda x: 1.1 * x + 0.01, PARAMS)
    slow = METHOD.after_step(other, MEMORY, START)
    jax.tree.map(
        lambda s, old, new: np.testing.assert_allclose(s, 0.9 * old + 0.1 * new, rtol=1e-5),
        slow.past.slow, PARAMS, other,
    )  # fmt: skip
    (_, aux), _ = graded(PARAMS, slow._replace(past=slow.past._replace(slow=other)))
    (_, own), _ = graded(other, MEMORY)
    z = np.array(own.embeddings).reshape(-1, 8)
    expected = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(aux.memory.past.queue.rows[:32], expected, atol=1e-5)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6),
        aux.memory.past.stats, own.memory.stats,
    )  # fmt: skip


def test_no_gradient_enters_the_slow_network_or_its_statistics():
    (_, first), _ = graded(PARAMS, MEMORY)
    _, (_, gradients) = graded(PARAMS, first.memory)
    for part in (gradients.past.slow, gradients.past.stats):
        assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(part))


def test_without_a_queue_nothing_is_carried_for_it():
    bare = replace(METHOD, queue=0)
    assert jax.eval_shape(bare.init, jax.random.key(0), VIEWS)[1].past == ()
    assert bare.facts(16) == {"negatives per anchor": "30"}
    assert METHOD.facts(16) == {"negatives per anchor": "94"}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (replace(METHOD, queue=100), r"queue=100 is no multiple of 32, .*size=16,.* use 96 or 128"),
        (replace(METHOD, queue=8), r"queue=8 is no multiple of 32, .*=16,.* use 32 or 64"),
        (
            replace(METHOD, augment=crop_and_flip(SIZE)),
            r"of 8 pixels, and SimCLRv2 takes two",
        ),
    ],
)
def test_wrong_use(method, words):
    with pytest.raises(UserError, match=words):
        method.check(16)


@pytest.mark.extended
class TestContract(Contract):
    experiment = experiment(METHOD)
