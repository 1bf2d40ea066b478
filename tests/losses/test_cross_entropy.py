import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.losses import cross_entropy

LOGITS = np.random.default_rng(0).normal(size=(6, 4)) * 3
LABELS = np.array([0, -1, 3, 2, -1, 1])
found = jax.jit(jax.value_and_grad(lambda x, y: cross_entropy(x, y).loss))


def test_matches_the_equation_over_the_labelled_rows():
    terms = [np.log(np.exp(x).sum()) - x[y] for x, y in zip(LOGITS, LABELS, strict=True) if y >= 0]
    hits = [x.argmax() == y for x, y in zip(LOGITS, LABELS, strict=True) if y >= 0]
    value, accuracy = cross_entropy(jnp.float32(LOGITS), LABELS)
    np.testing.assert_allclose(value, np.mean(terms), rtol=1e-6)
    np.testing.assert_allclose(accuracy, np.mean(hits), rtol=1e-6)


def test_the_gradient_is_shares_less_targets_and_zero_where_nothing_is_known():
    _, gradient = found(jnp.float32(LOGITS), LABELS)
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    expected = (shares - np.eye(4)[LABELS]) * (LABELS >= 0)[:, None] / 4
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_no_label_at_all_is_no_loss_and_large_scores_stay_finite():
    value, gradient = found(jnp.float32(1e4 * LOGITS), np.full(6, -1))
    assert value == 0
    assert (np.asarray(gradient) == 0).all()
    value, gradient = found(jnp.float32(1e4 * LOGITS), LABELS)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\[n, c\] and labels \[n\]; got \(6, 4\) and \(5,\)"):
        cross_entropy(jnp.float32(LOGITS), LABELS[:5])
