import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import ENCODER, RECIPE, VIEWS, Contract, experiment

from jaxcl import UserError, load
from jaxcl.augment import RandomResizedCrop, Recipe, simclr
from jaxcl.encoders import MLP, Prototypes
from jaxcl.methods import Progress, SwAV

N, K, QUEUE = 6, 5, 12
CROP = RandomResizedCrop(4, (0.1, 0.4))
METHOD = SwAV(
    augment=Recipe((replace(VIEWS, copies=2), replace(VIEWS, crop=CROP, copies=2)), 8),
    encoder=ENCODER,
    projector=MLP((8,), 4, norm="none", bias=True, out_bias=True),
    prototypes=Prototypes(K),
    queue=QUEUE,
    queue_epoch=1,
)
"""Two large views and two small ones; no norm in the head, so that views do not meet in it."""

RNG = np.random.default_rng(0)
VIEWS_OF_SIX = tuple(
    jnp.array(RNG.normal(size=(N, side, side, 3)), jnp.float32) for side in (8, 8, 4, 4)
)
FULL = Progress(50, 100, 5)


def start():
    params, memory = jax.jit(METHOD.init)(jax.random.key(1), VIEWS_OF_SIX)
    rows = RNG.normal(size=(2, QUEUE, 4))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    full = tuple(
        queue._replace(rows=jnp.array(some, jnp.float32), filled=jnp.int32(QUEUE))
        for queue, some in zip(memory.queues, rows, strict=True)
    )
    return params, memory, memory._replace(queues=full)


PARAMS, EMPTY, MEMORY = start()


@jax.jit
def value_and_grad(params, memory, views, step):
    value = lambda params: METHOD.loss(
        params, memory, views, jax.random.key(2), FULL._replace(step=step)
    )
    return jax.value_and_grad(value, has_aux=True)(params)


@jax.jit
def rows(views):
    """Unit rows of every view [v, n, d]."""
    outputs, _ = METHOD._network()(PARAMS, EMPTY.stats, views)
    z = jnp.moveaxis(outputs["projector"], 1, 0)
    return z / jnp.linalg.norm(z, axis=2, keepdims=True)


def codes_by_hand(scores, epsilon=0.05, rounds=3):
    """Listing 1 of the paper, in float64."""
    q = np.exp(scores.astype(np.float64) / epsilon).T
    q /= q.sum()
    k, b = q.shape
    for _ in range(rounds):
        q /= q.sum(axis=1, keepdims=True) * k
        q /= q.sum(axis=0, keepdims=True) * b
    return (q * b).T


def by_hand(z, codes, prototypes, temperature=0.1):
    """Every code predicted from every other view, one example at a time."""
    total = 0.0
    for i, code in enumerate(codes):
        others = [v for v in range(len(z)) if v != i]
        for v in others:
            for n in range(len(code)):
                logits = z[v][n] @ prototypes / temperature
                logs = logits - np.log(np.exp(logits).sum())
                total -= code[n] @ logs / (len(code) * len(others) * len(codes))
    return total


def known(views):
    z = np.asarray(rows(views), np.float64)
    return z, np.asarray(PARAMS["prototypes"]["kernel"], np.float64)


@pytest.mark.parametrize("full", [False, True])
def test_the_loss_is_the_papers_over_all_crops(full):
    """With a full queue, codes are made of past rows too, by the prototypes of now."""
    (value, aux), _ = value_and_grad(PARAMS, MEMORY if full else EMPTY, VIEWS_OF_SIX, 50)
    z, prototypes = known(VIEWS_OF_SIX)
    codes = []
    for view, queue in enumerate(MEMORY.queues):
        together = np.concatenate([queue.rows, z[view]]) if full else z[view]
        codes.append(codes_by_hand(together @ prototypes)[-N:])
    np.testing.assert_allclose(value, by_hand(z, codes, prototypes), rtol=1e-4)
    np.testing.assert_allclose(aux.embeddings, np.moveaxis(z[:2], 0, 1), atol=1e-5)
    assert aux.features.shape == (N, 2, 8)


def test_small_crops_get_no_code():
    """Another small crop changes its own terms alone: the codes are still those of before."""
    method, memory = replace(METHOD, queue=0), EMPTY._replace(queues=())
    loss = jax.jit(lambda views: method.loss(PARAMS, memory, views, jax.random.key(2), FULL)[0])
    z, prototypes = known(VIEWS_OF_SIX)
    codes = [codes_by_hand(z[view] @ prototypes) for view in range(2)]
    others = (*VIEWS_OF_SIX[:3], VIEWS_OF_SIX[3][::-1] + 1.0)
    moved, _ = known(others)
    assert np.abs(moved[3] - z[3]).max() > 0.01
    np.testing.assert_allclose(loss(others), by_hand(moved, codes, prototypes), rtol=1e-4)
    np.testing.assert_allclose(loss(VIEWS_OF_SIX), by_hand(z, codes, prototypes), rtol=1e-4)


def test_no_gradient_flows_into_codes_or_queues():
    """The gradient of the prototypes is that of the predictions, with codes as constants."""
    _, grads = value_and_grad(PARAMS, MEMORY, VIEWS_OF_SIX, 50)
    z, prototypes = known(VIEWS_OF_SIX)
    pairs = enumerate(MEMORY.queues)
    codes = [codes_by_hand(np.concatenate([q.rows, z[v]]) @ prototypes)[-N:] for v, q in pairs]
    expected = np.zeros_like(prototypes)
    for i, code in enumerate(codes):
        for v in set(range(4)) - {i}:
            p = np.exp(z[v] @ prototypes / 0.1)
            p /= p.sum(axis=1, keepdims=True)
            expected += z[v].T @ (p - code) / (0.1 * N * 3 * 2)
    np.testing.assert_allclose(grads["prototypes"]["kernel"], expected, rtol=1e-3, atol=1e-5)


def test_a_queue_waits_for_its_epoch_is_read_before_it_is_written_and_wraps():
    z, _ = known(VIEWS_OF_SIX)
    memory = EMPTY
    for step, filled, place in [(4, 0, 0), (5, 6, 6), (6, 12, 0), (7, 12, 6)]:
        (value, aux), _ = value_and_grad(PARAMS, memory, VIEWS_OF_SIX, step)
        (expected, _), _ = value_and_grad(PARAMS, memory, VIEWS_OF_SIX, 0)
        assert float(value) == float(expected)  # what is written now is not read yet
        memory = aux.memory
        for queue in memory.queues:
            assert (int(queue.filled), int(queue.next)) == (filled, place)
    for view, queue in enumerate(memory.queues):
        np.testing.assert_allclose(queue.rows, np.tile(z[view], (2, 1)), atol=1e-5)


def test_a_queue_may_fill_from_the_first_step_and_wait_to_be_used():
    """solo-learn fca55e3, solo/methods/swav.py, lines 102 and 126: filled at once, used later."""
    method = replace(METHOD, queue_from_start=True)
    loss = jax.jit(
        lambda memory, step: method.loss(
            PARAMS, memory, VIEWS_OF_SIX, jax.random.key(2), FULL._replace(step=step)
        )
    )
    memory = EMPTY
    for step in range(3):
        memory = loss(memory, step)[1].memory
        assert [int(queue.filled) for queue in memory.queues] == [min(6 * step + 6, 12)] * 2
    (without, _), _ = value_and_grad(PARAMS, EMPTY, VIEWS_OF_SIX, 0)
    (with_queue, _), _ = value_and_grad(PARAMS, MEMORY, VIEWS_OF_SIX, 5)
    assert without != with_queue
    np.testing.assert_allclose(loss(MEMORY, 4)[0], without, rtol=1e-5)
    np.testing.assert_allclose(loss(MEMORY, 5)[0], with_queue, rtol=1e-5)


def test_prototypes_that_are_scaled_on_use_are_stored_as_they_are_trained():
    """Weight norm: lengths of their own, which no step brings back to 1."""
    method = replace(
        METHOD, prototypes=Prototypes(K, unit=True, train_gain=True, gain_init="lengths")
    )
    params, _ = jax.jit(method.init)(jax.random.key(1), VIEWS_OF_SIX)
    kernel, gain = params["prototypes"]["kernel"], params["prototypes"]["gain"]
    np.testing.assert_allclose(gain[0], np.linalg.norm(kernel, axis=0), rtol=1e-6)
    assert np.abs(gain - 1).min() > 0.01
    assert method.constrain(params) is params


SMALL = replace(
    METHOD,
    augment=RECIPE,
    projector=MLP((32,), 4, bias=True, out_bias=True),
    temperature=0.5,
    epsilon=0.25,
    queue=32,
    freeze_epochs=1.0,
)
"""Softer than the paper's, which would amplify rounding twentyfold at each of the six steps."""


class TestContract(Contract):
    """The prototypes stand still in the first epoch; the queue fills in the second one."""

    experiment = experiment(SMALL)

    def test_prototypes_have_length_one_and_stand_still_at_first(self, alone, tmp_path):
        run, kernels = shutil.copytree(alone, tmp_path / "run"), {}
        for step in (6, 5, 4, 3, 2, 1):
            if step in (6, 3, 2, 1):
                kernels[step] = np.asarray(load(run).state.params["prototypes"]["kernel"])
                np.testing.assert_allclose(np.linalg.norm(kernels[step], axis=0), 1, rtol=1e-6)
            shutil.rmtree(run / "checkpoints" / str(step))
        assert (kernels[1] == kernels[2]).all()
        assert (kernels[2] != kernels[3]).any(axis=0).all()
        assert (kernels[3] != kernels[6]).any(axis=0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queue": 40}, r"method.queue=40 is no multiple of data.batch_size=16.*; use 32 or 48"),
        (
            {"augment": Recipe((VIEWS, replace(VIEWS, crop=CROP)), 8)},
            r"makes views of 8, 4 pixels, and SwAV takes two of one size, .* swav\(...\)",
        ),
        ({"augment": Recipe((VIEWS,), 8)}, "makes views of 8 pixels, and SwAV takes two"),
    ],
)
def test_wrong_use_is_answered(changes, message):
    with pytest.raises(UserError, match=message):
        replace(SMALL, **changes).check(16)


def test_facts_and_more_views():
    assert SMALL.facts(16) == {"rows that share the prototypes": "16, then 48"}
    replace(SMALL, augment=simclr(8)).check(16)
    METHOD.check(12)
