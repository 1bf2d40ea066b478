"""BYOL on rows instead of images, where every number can be worked out, and the contract."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ENCODER, RECIPE, Contract, experiment
from golden import A, B, matrix, unit

from jaxcl import UserError
from jaxcl.augment import dino
from jaxcl.encoders import MLP, ConvNet
from jaxcl.methods import BYOL, Progress
from jaxcl.methods.byol import Memory
from jaxcl.training import SGD

LINEAR = MLP((), 5)
METHOD = BYOL(augment=RECIPE, encoder=LINEAR, projector=LINEAR, predictor=LINEAR, momentum=0.9)
NAMES = ("encoder", "projector", "predictor")


def rows(x):
    return jnp.asarray(x, jnp.float32)


PAIR = (rows(A), rows(B))


@partial(jax.jit, static_argnums=0)
def step(method, params, memory, views=PAIR):
    return method.loss(params, memory, views, jax.random.key(0), Progress(0, 10, 5))


def weights(*kernels):
    return {
        name: {"linear_out": {"kernel": rows(kernel)}}
        for name, kernel in zip(NAMES, kernels, strict=False)
    }


def memory_of(slow, stats=None):
    stats = stats or {name: {} for name in NAMES}
    return Memory(stats, slow, {name: stats[name] for name in NAMES[:2]})


EYE, SLOW_EYE = weights(*[np.eye(5)] * 3), weights(*[np.eye(5)] * 2)
MIXED = [matrix(start, 5) for start in (0.3, 0.8, 1.9, 2.6, 3.3)]


def by_hand(kernels, slow):
    """Both directions, row by row."""
    total = 0.0
    for x, y in ((A, B), (B, A)):
        p, z = unit(x @ kernels[0] @ kernels[1] @ kernels[2]), unit(y @ slow[0] @ slow[1])
        total += np.mean([((row - target) ** 2).sum() for row, target in zip(p, z, strict=True)])
    return total


def test_golden_row_both_ways():
    """0.235854 one way, from reference code; the other way is the same for such networks."""
    value, _ = step(METHOD, EYE, memory_of(SLOW_EYE))
    np.testing.assert_allclose(value, 2 * 0.235854, rtol=1e-5)
    half, _ = step(replace(METHOD, scale=0.5), EYE, memory_of(SLOW_EYE))
    np.testing.assert_allclose(half, value / 2, rtol=1e-6)


def test_a_perfect_prediction_costs_nothing():
    value, _ = step(METHOD, EYE, memory_of(SLOW_EYE), (PAIR[0], PAIR[0]))
    assert value < 1e-10


def test_each_view_predicts_the_slow_networks_projection_of_the_other():
    value, aux = step(METHOD, weights(*MIXED[:3]), memory_of(weights(*MIXED[3:])))
    np.testing.assert_allclose(value, by_hand(MIXED[:3], MIXED[3:]), rtol=1e-5)
    assert aux.features.shape == aux.embeddings.shape == (4, 2, 5)
    np.testing.assert_allclose(aux.features[:, 1], B @ MIXED[0], rtol=1e-4, atol=1e-5)


def test_no_gradient_reaches_the_targets():
    value = lambda params, slow: step(METHOD, params, memory_of(slow))[0]
    both = jax.jit(jax.grad(value, (0, 1)))
    grads, none = both(weights(*MIXED[:3]), weights(*MIXED[:2]))
    assert all(np.all(np.asarray(slope) == 0) for slope in jax.tree.leaves(none))
    for place, name in enumerate(NAMES):
        change = np.zeros((5, 5))
        for at in np.ndindex(5, 5):
            bumped = [np.array(MIXED[:3]) for _ in range(2)]
            for kernels, sign in zip(bumped, (1, -1), strict=True):
                kernels[place][at] += sign * 1e-6
            up, down = (by_hand(kernels, MIXED[:2]) for kernels in bumped)
            change[at] = (up - down) / 2e-6
        np.testing.assert_allclose(grads[name]["linear_out"]["kernel"], change, atol=1e-4)


def test_the_slow_network_follows_the_moved_weights_by_a_rising_momentum():
    """Two steps by hand: momentum 0.9 at the first of ten, then 1 - 0.1 (1 + cos(pi / 10)) / 2."""
    memory, one, two = memory_of(SLOW_EYE), weights(*MIXED[:3]), weights(*MIXED[2:])
    after = jax.jit(METHOD.after_step)
    memory = after(two, after(one, memory, Progress(0, 10, 5)), Progress(1, 10, 5))
    second = 1 - 0.1 * (1 + np.cos(np.pi / 10)) / 2
    for name, first, last in zip(NAMES[:2], MIXED, MIXED[2:], strict=False):
        expected = second * (0.9 * np.eye(5) + 0.1 * first) + (1 - second) * last
        kernel = memory.slow[name]["linear_out"]["kernel"]
        np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-6)
    assert set(memory.slow) == {"encoder", "projector"}


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_momentum_of_0_copies_and_of_1_never_moves(momentum):
    method = replace(METHOD, momentum=momentum, final_momentum=momentum)
    params = weights(*MIXED[:3])
    memory = method.after_step(params, memory_of(SLOW_EYE), Progress(3, 10, 5))
    expected = SLOW_EYE if momentum else {name: params[name] for name in NAMES[:2]}
    jax.tree.map(np.testing.assert_array_equal, memory.slow, expected)


def test_each_view_moves_the_statistics_of_both_networks_once():
    """By its own mean, since it goes through alone; the slow network's are apart."""
    method = replace(METHOD, encoder=MLP((), 5, final_norm="plain"))
    fresh = {"norm_out": {"mean": jnp.zeros(5), "var": jnp.ones(5)}}
    stats = {"encoder": fresh, "projector": {}, "predictor": {}}
    memory = memory_of(weights(2 * np.eye(5), np.eye(5)), stats)
    aux = step(method, EYE, memory)[1]
    for stats, scale in ((aux.memory.stats, 1), (aux.memory.slow_stats, 2)):
        mean = scale * (0.9 * 0.1 * A.mean(0) + 0.1 * B.mean(0))
        np.testing.assert_allclose(stats["encoder"]["norm_out"]["mean"], mean, rtol=1e-4, atol=1e-6)
    for view in range(2):
        np.testing.assert_allclose(aux.features[:, view].mean(0), 0, atol=1e-5)


def test_a_run_begins_with_equal_networks_and_keeps_the_trained_one():
    params, memory = jax.jit(METHOD.init)(jax.random.key(0), PAIR)
    assert set(params) == set(memory.stats) == set(NAMES)
    jax.tree.map(np.testing.assert_array_equal, memory.slow, {n: params[n] for n in NAMES[:2]})
    assert METHOD.kept(EYE, memory_of(weights(*MIXED[:2]))).params is EYE["encoder"]


GROUP = partial(MLP, (32,), norm="group")


def test_without_batch_statistics_rows_know_nothing_of_each_other():
    method = BYOL(augment=RECIPE, encoder=GROUP(16), projector=GROUP(8), predictor=GROUP(8))
    params, memory = jax.jit(method.init)(jax.random.key(0), PAIR)
    assert not jax.tree.leaves((memory.stats, memory.slow_stats))
    aux = step(method, params, memory)[1]
    others = tuple(view.at[2:].multiply(-3.0) for view in PAIR)
    again = step(method, params, memory, others)[1]
    np.testing.assert_allclose(again.embeddings[:2], aux.embeddings[:2], rtol=1e-5, atol=1e-6)
    assert np.abs(again.embeddings[2:] - aux.embeddings[2:]).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"predictor": MLP((), 6)},
            r"method.predictor.out=6 cannot match targets of method.projector.out=5; give both",
        ),
        (
            {"augment": dino(16, local_size=8, local=1)},
            r"views of 16, 16, 8 pixels, and BYOL takes two",
        ),
    ],
)
def test_wrong_values_are_answered_before_anything_compiles(changes, words):
    METHOD.check(16)
    with pytest.raises(UserError, match=words):
        replace(METHOD, **changes).check(16)


TINY = BYOL(
    augment=RECIPE,
    encoder=ConvNet(1, 8, "mean"),
    projector=MLP((16,), 8, bias=True),
    predictor=MLP((16,), 8, bias=True),
)


class TestContract(Contract):
    experiment = experiment(TINY)


@pytest.mark.extended
class TestContractWithoutBatchStatistics(Contract):
    """Eight channels to a group of a head: with two, group norm is nearly a sign."""

    experiment = experiment(
        replace(
            TINY,
            encoder=ENCODER.clone(width=0.25, norm="group"),
            projector=MLP((128,), 8, norm="group"),
            predictor=MLP((128,), 8, norm="group"),
        ),
        SGD(lr=0.001, scaling="none", warmup_epochs=0),
    )
