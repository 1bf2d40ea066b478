import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import A, B
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from jitted import losses

from jaxcl.scale import data_mesh
from jaxcl.similarity import pairs

nt_xent, nt_xent_with_accuracy = losses.nt_xent, losses.nt_xent_with_accuracy
info_nce = losses.info_nce


def by_hand(a, b, temperature):
    """The paper's equation, pair by pair, in float64."""
    z = np.concatenate([a, b]).astype(np.float64)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    n, losses = len(a), []
    for i in range(2 * n):
        twin = (i + n) % (2 * n)
        terms = [np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        losses.append(-np.log(np.exp(z[i] @ z[twin] / temperature) / sum(terms)))
    return np.mean(losses)


def test_golden_gradient():  # from the official code, with respect to raw A
    gradient = jax.grad(lambda x: nt_xent(x, B, temperature=0.5))(jnp.array(A, jnp.float32))
    np.testing.assert_allclose(gradient[1, 2], 0.0792331, rtol=1e-5)
    np.testing.assert_allclose(gradient[0, 0], -0.0003195, atol=2e-7)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_matches_the_equation(n, temperature):
    x, y = np.random.default_rng(n).normal(size=(2, n, 6))
    value = nt_xent(jnp.array(x), jnp.array(y), temperature=temperature)
    np.testing.assert_allclose(value, by_hand(x, y, temperature), rtol=2e-5, atol=1e-6)


def test_gradient_matches_differences_in_float64():
    x, y = np.random.default_rng(0).normal(size=(2, 5, 4))
    gradient = jax.grad(lambda x: nt_xent(x, jnp.array(y), temperature=0.3))(jnp.array(x))
    for i, j in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i, j] = 1e-5
        slope = (by_hand(x + step, y, 0.3) - by_hand(x - step, y, 0.3)) / 2e-5
        np.testing.assert_allclose(gradient[i, j], slope, rtol=1e-4, atol=1e-6)


def test_equals_optax_where_each_label_occurs_twice():
    z = jnp.concatenate([jnp.array(A), jnp.array(B)])
    theirs = optax.losses.ntxent(z, jnp.array([0, 1, 2, 3] * 2), temperature=0.5)
    np.testing.assert_allclose(nt_xent(A, B, temperature=0.5), theirs, rtol=1e-5)


def test_closed_forms():
    codes = jnp.eye(4, 8)
    expected = np.log(2 * 4 - 2 + np.exp(2.0)) - 2.0  # orthonormal codes, identical views
    np.testing.assert_allclose(nt_xent(codes, codes, temperature=0.5), expected, rtol=1e-6)
    same = jnp.ones((4, 8))
    np.testing.assert_allclose(nt_xent(same, same, temperature=0.5), np.log(7), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_ignores_order_length_and_which_view_is_first(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 6, 5)).astype(np.float32)
    order, lengths = rng.permutation(6), rng.uniform(0.1, 10, size=(6, 1)).astype(np.float32)
    value = nt_xent(x, y, temperature=0.2)
    np.testing.assert_allclose(nt_xent(x[order], y[order], temperature=0.2), value, rtol=1e-5)
    np.testing.assert_allclose(nt_xent(lengths * x, y, temperature=0.2), value, rtol=1e-5)
    np.testing.assert_allclose(nt_xent(y, x, temperature=0.2), value, rtol=1e-5)


def test_official_reduction_is_twice_the_mean():
    official = nt_xent(A, B, temperature=0.5, reduction="official")
    np.testing.assert_allclose(official, 2 * 1.157083, rtol=1e-6)


def test_one_pair_and_a_queue_is_moco_with_either_view_as_the_query():
    """No other image is in the batch, so that all negatives are the queue's."""

    @jax.jit
    def values(a, b, queue):
        moco = lambda q, k: info_nce(q, k, queue, temperature=0.2, in_batch=False)
        return nt_xent(a, b, queue, temperature=0.2), (moco(a, b) + moco(b, a)) / 2

    value, expected = values(A[:1], B[:1], A[1:])
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_negatives_that_are_hidden_change_nothing():
    find = jax.jit(lambda shown: nt_xent_with_accuracy(A, B, A, temperature=0.5, shown=shown))
    hidden, seen = find(np.zeros(4, bool)), find(np.ones(4, bool))
    np.testing.assert_allclose(hidden, nt_xent_with_accuracy(A, B, temperature=0.5), rtol=1e-6)
    assert seen.accuracy <= 0.5  # the first anchors themselves are nearer than their twins
    assert seen.loss > hidden.loss + 0.1


def test_memory_grows_with_the_rows_and_not_with_the_queues_pairs():
    """Read from the compiler: under a fiftieth of the matrix of 4,096 anchors and 32,768 rows."""
    pairs, queue = (jax.ShapeDtypeStruct((n, 16), jnp.float32) for n in (2048, 32_768))
    loss = lambda a, b, queue: nt_xent(a, b, queue, temperature=0.1)
    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(pairs, pairs, queue).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * 4096 * 32_768 / 50


@pytest.mark.parametrize(("rows", "share"), [(4096, 16), (10_000, 64), (16_384, 150)])
def test_memory_beside_that_of_the_textbook(monkeypatch, rows, share):
    """By the compiler, which keeps the logits and their gradient for the equation as written."""
    monkeypatch.setattr(pairs, "DENSE_PAIRS", 0)
    view = jax.ShapeDtypeStruct((rows // 2, 128), jnp.float32)
    step = jax.value_and_grad(lambda a, b: nt_xent(a, b, temperature=0.1), argnums=(0, 1))
    program = jax.jit(step).lower(view, view).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2 * 4 * rows**2 / share


@pytest.mark.extended
def test_memory_of_262_144_rows():
    """By the compiler: one copy of the gradients, 128 MiB, and little else; far under 256 MiB."""
    view = jax.ShapeDtypeStruct((131_072, 128), jnp.float32)
    step = jax.value_and_grad(lambda a, b: nt_xent(a, b, temperature=0.1), argnums=(0, 1))
    program = jax.jit(step).lower(view, view).compile()
    assert program.memory_analysis().temp_size_in_bytes < 1.25 * 2**27


def test_accuracy_counts_anchors_whose_twin_is_nearest():
    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    y = jnp.array([[1.0, 0.01], [0.1, 1.0], [-1.0, 0.0]])
    sure = nt_xent_with_accuracy(x, y, temperature=0.5).accuracy
    z = np.concatenate([x, y]) / np.linalg.norm(np.concatenate([x, y]), axis=1, keepdims=True)
    s = z @ z.T
    np.fill_diagonal(s, -9)
    np.testing.assert_allclose(sure, np.mean(s.argmax(1) == (np.arange(6) + 3) % 6), rtol=1e-6)


def test_zero_rows_and_tiny_temperatures_stay_finite():
    x = jnp.zeros((3, 4)).at[0].set(1.0)
    value, gradient = jax.value_and_grad(lambda x: nt_xent(x, x[::-1], temperature=0.01))(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_one_device_equals_eight():
    x, y = np.random.default_rng(1).normal(size=(2, 16, 8)).astype(np.float32)
    step = jax.jit(jax.value_and_grad(lambda x, y: nt_xent(x, y, temperature=0.2), argnums=(0, 1)))
    alone = step(x, y)
    split = NamedSharding(data_mesh(8), PartitionSpec("data"))
    spread = step(jax.device_put(x, split), jax.device_put(y, split))
    for one, eight in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-7)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\[n, d\].*\(4, 5\) and \(3, 5\)"):
        nt_xent(A, B[:3], temperature=0.5)
