"""MoCo on rows instead of images, where every number can be worked out, and the contract."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import RECIPE, Contract, experiment
from golden import A, B, matrix, unit

from jaxcl import UserError
from jaxcl.augment import dino
from jaxcl.encoders import MLP, ConvNet
from jaxcl.methods import MoCo, Progress
from jaxcl.methods.moco import Memory
from jaxcl.methods.queue import Queue

LINEAR = MLP((), 5)
METHOD = MoCo(augment=RECIPE, encoder=LINEAR, projector=LINEAR, temperature=0.07, queue=12)
QUEUE = unit(matrix(3.1, 8))
HALF_WAY = Progress(5, 10, 5)


def rows(x):
    return jnp.asarray(x, jnp.float32)


PAIR = (rows(A), rows(B))


@partial(jax.jit, static_argnums=0)
def step(method, params, memory, views=PAIR, key=0):
    return method.loss(params, memory, views, jax.random.key(key), HALF_WAY)


def weights(encoder, projector):
    wrap = lambda kernel: {"linear_out": {"kernel": rows(kernel)}}
    return {"encoder": wrap(encoder), "projector": wrap(projector)}


EYE = weights(np.eye(5), np.eye(5))
NO_STATS = {"encoder": {}, "projector": {}}


def holding(*queues, slow=EYE, stats=NO_STATS):
    """Memory with these rows in its queues."""
    wrap = lambda held: Queue(rows(held), jnp.int32(0), jnp.int32(0))
    return Memory(stats, slow, stats, tuple(map(wrap, queues)))


def by_hand(q, k, queue, temperature=0.07):
    """The equation, query by query."""
    losses = []
    for query, key in zip(unit(q), unit(k), strict=True):
        own = np.exp(query @ key / temperature)
        others = [np.exp(query @ row / temperature) for row in queue]
        losses.append(-np.log(own / (own + sum(others))))
    return np.mean(losses)


def test_golden_row_through_the_method():
    """Rows A as queries, B as keys, six rows in the queue; two batches, since four rows do not
    divide it. The value was computed in float64 apart from jaxcl."""
    memory, halves = holding(QUEUE[:6]), (slice(0, 2), slice(2, 4))
    values = [step(METHOD, EYE, memory, (PAIR[0][half], PAIR[1][half]))[0] for half in halves]
    np.testing.assert_allclose(np.mean(values), 0.283536, rtol=1e-5)
    np.testing.assert_allclose(by_hand(A, B, QUEUE[:6]), 0.283536, rtol=2e-6)


def test_both_directions_are_averaged_and_have_their_own_queue():
    method, other = replace(METHOD, symmetric=True), unit(matrix(0.3, 8))
    value, aux = step(method, EYE, holding(QUEUE, other))
    expected = (by_hand(A, B, QUEUE) + by_hand(B, A, other)) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for queue, keys in zip(aux.memory.queues, (B, A), strict=True):
        np.testing.assert_allclose(queue.rows[:4], unit(keys), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aux.features[:, 1], B, rtol=1e-5, atol=1e-6)


def test_a_run_begins_with_equal_networks_and_random_queues():
    method = replace(METHOD, symmetric=True)
    params, memory = jax.jit(method.init)(jax.random.key(0), PAIR)
    jax.tree.map(np.testing.assert_array_equal, memory.slow, params)
    one, two = memory.queues
    assert one.rows.shape == two.rows.shape == (12, 5)
    assert np.abs(one.rows - two.rows).max() > 0.1
    assert int(one.filled) == int(two.next) == 0


def test_the_oldest_keys_leave_first_and_the_pointer_wraps():
    memory = holding(unit(matrix(3.1, 12)))
    for number in range(1, 6):
        views = (PAIR[0], jnp.full((4, 5), 0.1).at[:, 0].set(number))
        memory = step(METHOD, EYE, memory, views, number)[1].memory
        queue = memory.queues[0]
        assert int(queue.next) == 4 * number % 12
        assert int(queue.filled) == min(4 * number, 12)
        newest = queue.rows[4 * (number - 1) % 12]
        np.testing.assert_allclose(newest, unit(views[1])[0], rtol=1e-5)
    steps = queue.rows[:, 0] / queue.rows[:, 1] / 10
    np.testing.assert_allclose(steps, [4] * 4 + [5] * 4 + [3] * 4, rtol=1e-5)


def test_the_loss_reads_the_queue_before_the_keys_enter_it():
    """Were a query's own key among the negatives too, the loss would exceed log 2."""
    same, opposite = PAIR[0][:1].repeat(4, 0), -np.tile(unit(A)[:1], (12, 1))
    value, aux = step(METHOD, EYE, holding(opposite), (same, same))
    assert value < 1e-6
    np.testing.assert_allclose(aux.metrics["contrastive_accuracy"], 100)


def test_the_slow_network_moves_first_and_by_the_weights_before_the_step():
    method, slow = replace(METHOD, momentum=0.9), weights(matrix(0.3, 5), matrix(0.8, 5))
    params = weights(matrix(1.1, 5), matrix(2.9, 5))
    _, aux = step(method, params, holding(QUEUE, slow=slow))
    moved = jax.tree.map(lambda s, p: 0.9 * s + 0.1 * p, slow, params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), aux.memory.slow, moved)
    encoder, projector = (moved[name]["linear_out"]["kernel"] for name in ("encoder", "projector"))
    keys = unit(B @ np.float64(encoder) @ np.float64(projector))
    np.testing.assert_allclose(aux.memory.queues[0].rows[:4], keys, rtol=1e-4, atol=1e-5)


def test_the_momentum_may_rise():
    """Half way along the cosine it is half way between its ends."""
    method = replace(METHOD, momentum=0.99, final_momentum=0.999)
    zero = jax.tree.map(jnp.zeros_like, EYE)
    _, aux = step(method, EYE, holding(QUEUE, slow=zero))
    kernel = aux.memory.slow["encoder"]["linear_out"]["kernel"]
    np.testing.assert_allclose(np.diag(kernel), 1 - 0.9945, rtol=1e-4)


def test_no_gradient_reaches_keys_and_queue():
    """With a momentum of 0 the keys come from the trained weights, and still count as constants."""
    method = replace(METHOD, momentum=0.0)
    value = lambda params, slow, held: step(method, params, holding(held, slow=slow))[0]
    grads, *none = jax.jit(jax.grad(value, (0, 1, 2)))(EYE, EYE, rows(QUEUE))
    assert all(np.all(np.asarray(slope) == 0) for slope in jax.tree.leaves(none))
    change = np.zeros((5, 5))
    for at in np.ndindex(5, 5):
        bump = np.zeros((5, 5))
        bump[at] = 1e-6
        up, down = (by_hand(A @ (np.eye(5) + sign * bump), B, QUEUE) for sign in (1, -1))
        change[at] = (up - down) / 2e-6
    for name in ("encoder", "projector"):
        np.testing.assert_allclose(grads[name]["linear_out"]["kernel"], change, atol=1e-5)


def normed(key=0, **changes):
    """Memory after a step of a method whose encoder ends in batch norm."""
    encoder = MLP((), 5, final_norm="plain", groups=changes.pop("groups"))
    fresh = {"mean": jnp.zeros(5), "var": jnp.ones(5)}
    stats = {"encoder": {"norm_out": fresh}, "projector": {}}
    method = replace(METHOD, encoder=encoder, **changes)
    return step(method, EYE, holding(QUEUE, stats=stats), PAIR, key)[1].memory


def test_shuffling_changes_the_keys_through_batch_norm_in_groups_alone():
    keys = lambda memory: memory.queues[0].rows[:4]
    whole = normed(groups=1, shuffle=False)
    for key in range(4):  # the order is undone
        again = normed(key, groups=1)
        np.testing.assert_allclose(keys(again), keys(whole), rtol=1e-4, atol=1e-5)
    plain, *made = normed(groups=2, shuffle=False), *(normed(key, groups=2) for key in range(4))
    assert max(np.abs(keys(one) - keys(plain)).max() for one in made) > 0.1
    assert max(np.abs(keys(one) - keys(made[0])).max() for one in made) > 0.1
    variance = lambda memory: memory.slow_stats["encoder"]["norm_out"]["var"]
    assert max(np.abs(variance(one) - variance(plain)).max() for one in made) > 1e-3
    for stats, view in ((whole.stats, A), (whole.slow_stats, B)):  # each network's are its own
        mean = stats["encoder"]["norm_out"]["mean"]
        np.testing.assert_allclose(mean, 0.1 * view.mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"queue": 40},
            r"method.queue=40 is no multiple of data.batch_size=16, .* use 32 or 48",
        ),
        ({"queue": 0}, r"method.queue=0 holds no keys; use 16 or more"),
        (
            {"augment": dino(16, local_size=8, local=1)},
            r"views of 16, 16, 8 pixels, and MoCo takes two",
        ),
    ],
)
def test_wrong_values_are_answered_before_anything_compiles(changes, words):
    with pytest.raises(UserError, match=words):
        replace(METHOD, **({"queue": 32} | changes)).check(16)


def test_negatives_are_told():
    assert METHOD.facts(4) == {"negatives per anchor": "12"}


GROUPED = MoCo(
    augment=RECIPE,
    encoder=ConvNet(1, 8, "mean", groups=4),
    projector=MLP((0,), 8, norm="none", bias=True, out_bias=True),
    queue=32,
    momentum=0.9,
)


class TestContract(Contract):
    """Keys shuffled, batch norm in four groups whatever the devices, a queue that wraps."""

    experiment = experiment(GROUPED)


@pytest.mark.extended
class TestSymmetricContract(Contract):
    experiment = experiment(replace(GROUPED, symmetric=True, final_momentum=1.0))
