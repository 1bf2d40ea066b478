import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.similarity import logsumexp_pairs, max_pairs, unit_rows

RNG = np.random.default_rng(0)
Q, K = RNG.normal(size=(5, 3)), RNG.normal(size=(7, 3))


def test_sums_over_keys_with_another_id():
    q_ids, k_ids = np.array([0, 1, 2, 3, 4]), np.array([0, 0, 1, 9, 9, 2, 2])
    value = logsumexp_pairs(jnp.array(Q), jnp.array(K), scale=3.0, q_ids=q_ids, k_ids=k_ids)
    largest = max_pairs(jnp.array(Q), jnp.array(K), scale=3.0, q_ids=q_ids, k_ids=k_ids)
    for i in range(5):
        seen = [3.0 * Q[i] @ K[j] for j in range(7) if q_ids[i] != k_ids[j]]
        np.testing.assert_allclose(value[i], np.log(np.sum(np.exp(seen))), rtol=1e-5)
        np.testing.assert_allclose(largest[i], np.max(seen), rtol=1e-5)


def test_without_ids_every_key_counts():
    value = logsumexp_pairs(jnp.array(Q), jnp.array(K))
    np.testing.assert_allclose(value, np.log(np.exp(Q @ K.T).sum(1)), rtol=1e-5)


def test_a_query_that_sees_nothing_has_finite_value_and_gradient():
    ids = jnp.zeros(3, jnp.int32)
    x = jnp.array(Q[:3])
    value, gradient = jax.value_and_grad(
        lambda x: logsumexp_pairs(x, x, q_ids=ids, k_ids=ids).sum()
    )(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_half_precision_rows_are_summed_in_float32():
    q = jnp.array(Q, jnp.bfloat16)
    assert logsumexp_pairs(q, q).dtype == jnp.float32


def test_one_set_of_ids_alone_is_refused():
    with pytest.raises(ValueError, match="together"):
        logsumexp_pairs(jnp.array(Q), jnp.array(K), q_ids=jnp.arange(5))


def test_unit_rows_have_length_one_and_zero_rows_stay_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [-1e-3, 0.0]])
    expected = [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]]
    np.testing.assert_allclose(unit_rows(x), expected, rtol=1e-6)
    gradient = jax.grad(lambda x: unit_rows(x).sum())(x)
    assert np.isfinite(gradient).all()
    # The gradient at [3, 4] is orthogonal to the row: its length does not matter.
    np.testing.assert_allclose(gradient[0] @ x[0], 0.0, atol=1e-6)
