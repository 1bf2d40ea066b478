"""Linear probes against scikit-learn on digits, and what they may look at."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jaxcl.errors import UserError
from jaxcl.evaluate import linear, logistic_probe, sgd_probe


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_is_scikit_learns(digits, C):
    train_x, train_y, test_x, test_y, _ = digits
    mean, scale = train_x.mean(0), StandardScaler(with_std=False).fit_transform(train_x).std()
    train_x, test_x = (train_x - mean) / scale, (test_x - mean) / scale
    # Far beyond the probe's own tolerance and iterations, in float64: the optimum itself.
    optimum = LogisticRegression(C=C, max_iter=20_000, tol=1e-9)
    optimum.fit(train_x.astype(np.float64), train_y)
    probe = logistic_probe(*digits[:4], C=C)
    np.testing.assert_array_equal(probe.predictions, optimum.predict(test_x))
    np.testing.assert_allclose(probe.accuracy, 100 * optimum.score(test_x, test_y), rtol=1e-6)
    as_they_are = logistic_probe(train_x, train_y, test_x, test_y, C=C, standardize=False)
    np.testing.assert_array_equal(as_they_are.predictions, probe.predictions)
    assert probe.C == C


def test_scale_and_offset_of_the_features_do_not_matter(digits):
    train_x, train_y, test_x, test_y, _ = digits
    moved = logistic_probe(1e3 * train_x - 5, train_y, 1e3 * test_x - 5, test_y, C=0.1)
    np.testing.assert_array_equal(moved.predictions, logistic_probe(*digits[:4], C=0.1).predictions)


def test_strength_is_chosen_well_and_without_the_test_rows(digits):
    train_x, train_y, test_x, test_y, _ = digits
    probe = logistic_probe(*digits[:4])
    best = max(logistic_probe(*digits[:4], C=10.0**e).accuracy for e in range(-4, 3))
    assert probe.accuracy > best - 1  # a percent: the choice rests on 287 held-out rows
    shuffled = np.random.default_rng(0).permutation(test_y)
    other = logistic_probe(train_x, train_y, test_x, shuffled)
    assert other.C == probe.C
    np.testing.assert_array_equal(other.predictions, probe.predictions)
    assert other.accuracy < 30


def test_two_classes_and_absent_classes(digits):
    train_x, train_y, test_x, test_y, _ = digits
    keep, seen = np.isin(train_y, (3, 8)), np.isin(test_y, (3, 8))
    data = (train_x[keep], train_y[keep], test_x[seen], test_y[seen])
    assert logistic_probe(*data).accuracy > 95
    assert sgd_probe(*data, epochs=10).accuracy > 90
    unseen = logistic_probe(*data[:2], test_x[~seen], test_y[~seen], C=1.0)
    assert unseen.accuracy == 0


def test_sgd_comes_near_the_optimum(digits):
    probe = sgd_probe(*digits[:4])
    assert abs(probe.accuracy - logistic_probe(*digits[:4]).accuracy) < 1
    assert probe.predictions.shape == digits.test_y.shape
    assert probe.predictions.dtype == np.int32
    again = sgd_probe(*digits[:4])
    np.testing.assert_array_equal(again.predictions, probe.predictions)


def test_sgd_head_is_chosen_without_the_test_rows(digits):
    train_x, train_y, test_x, test_y, _ = digits
    # One rate learns nothing and one works; which is best shows on training rows alone.
    options = {"learning_rates": (1e-7, 0.1), "weight_decays": (0.0, 10.0), "epochs": 10}
    probe = sgd_probe(*digits[:4], **options)
    assert (probe.lr, probe.wd) == (0.1, 0.0)
    wrong = (test_y + 1) % 10
    fooled = sgd_probe(train_x, train_y, test_x, wrong, **options)
    assert (fooled.lr, fooled.wd) == (0.1, 0.0)
    np.testing.assert_array_equal(fooled.predictions, probe.predictions)


def test_the_search_can_be_kept_to_some_rows(digits, monkeypatch):
    seen = []
    train_heads = linear._train_heads

    def counted(train_x, *rest, **options):
        seen.append(len(train_x))
        return train_heads(train_x, *rest, **options)

    monkeypatch.setattr(linear, "_train_heads", counted)
    probe = sgd_probe(*digits[:4], epochs=20, search_rows=300)
    assert seen == [300, len(digits.train_x)]
    assert probe.accuracy > 90


def test_heads_do_not_disturb_each_other(digits):
    alone = sgd_probe(*digits[:4], learning_rates=(0.03,), weight_decays=(1e-4,), epochs=10)
    options = {"weight_decays": (1e-4, 100.0), "epochs": 10}  # the other head diverges or dies
    beside = sgd_probe(*digits[:4], learning_rates=(0.03,), **options)
    np.testing.assert_array_equal(alone.predictions, beside.predictions)


def test_sgd_is_momentum_by_hand(digits):
    """Nine epochs of one full batch each, in float64."""
    train_x, train_y, test_x, _, _ = digits
    fit, lr, wd = 40, 0.3, 1.0  # a strong decay, so that it matters that biases have none
    x, y = train_x[:fit].astype(np.float64), train_y[:fit]
    mean = x.mean(0)
    scale = np.sqrt(np.mean((x - mean) ** 2))
    x, goal = (x - mean) / scale, np.eye(10)[y]
    w, b, vw, vb = np.zeros((64, 10)), np.zeros(10), 0, 0
    for step in range(9):
        logits = x @ w + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - goal) / fit
        gw, gb = x.T @ error + wd * w, error.sum(0)
        vw, vb = 0.9 * vw + gw, 0.9 * vb + gb
        rate = lr * 0.5 * (1 + np.cos(np.pi * step / 9))
        w, b = w - rate * (gw + 0.9 * vw), b - rate * (gb + 0.9 * vb)
    by_hand = np.argmax((test_x - mean) / scale @ w + b, axis=1)
    probe = sgd_probe(
        train_x[:fit], y, test_x, digits.test_y, learning_rates=(lr,), weight_decays=(wd,),
        epochs=9, batch_size=fit,
    )  # fmt: skip
    np.testing.assert_array_equal(probe.predictions, by_hand)


def test_constant_and_single_class_features(digits):
    train_x, train_y, test_x, test_y, _ = digits
    flat = logistic_probe(np.ones_like(train_x), train_y, np.ones_like(test_x), test_y, C=1.0)
    assert 0 < flat.accuracy < 20
    for probe in (logistic_probe, sgd_probe):
        with pytest.raises(UserError, match=r"train_y holds 1 class \[4\]"):
            probe(train_x, np.full_like(train_y, 4), test_x, test_y)
    with pytest.raises(UserError, match="no class with two"):
        logistic_probe(train_x[:2], np.array([0, 1]), test_x, test_y)
