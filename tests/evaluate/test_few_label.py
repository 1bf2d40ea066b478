"""Few-label probes: which rows they see."""

import numpy as np
import pytest

import jaxcl.evaluate.few_label as few_label
from jaxcl.errors import UserError
from jaxcl.evaluate import balanced_split, balanced_subset, few_label_accuracy, logistic_probe


def test_subsets_are_balanced_seeded_and_labelled():
    labels = np.random.default_rng(0).choice([-1, 0, 1, 2], 200, p=[0.3, 0.1, 0.2, 0.4])
    rows = balanced_subset(labels, per_class=7, seed=3)
    assert np.bincount(labels[rows]).tolist() == [7, 7, 7]
    assert len(np.unique(rows)) == 21
    np.testing.assert_array_equal(rows, balanced_subset(labels, per_class=7, seed=3))
    assert set(rows) != set(balanced_subset(labels, per_class=7, seed=4))
    with pytest.raises(UserError, match=r"per_class=21: class 0 has only \d+ labelled rows; use"):
        balanced_subset(labels, per_class=21)


def test_splits_are_balanced_and_leave_no_row_out():
    labels = np.repeat([0, 1, 2, 5], [100, 50, 2, 1])
    fit, held = balanced_split(labels, seed=1)
    assert np.bincount(labels[held], minlength=6).tolist() == [20, 10, 1, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, held])), np.arange(153))


def test_probes_see_these_rows_only(digits, monkeypatch):
    seen = []

    def watched(train_x, train_y, test_x, test_y, **options):
        seen.append(train_y)
        assert len(train_x) == len(train_y) == 20
        assert len(test_x) == len(digits.test_x)
        return logistic_probe(train_x, train_y, test_x, test_y, **options)

    monkeypatch.setattr(few_label, "logistic_probe", watched)
    found = few_label_accuracy(*digits[:4], per_class=2, seeds=3)
    assert [np.bincount(labels).tolist() for labels in seen] == [[2] * 10] * 3
    assert len(found.accuracies) == 3
    np.testing.assert_allclose(found.mean, np.mean(found.accuracies))
    np.testing.assert_allclose(found.std, np.std(found.accuracies, ddof=1))


def test_labels_of_other_rows_do_not_matter(digits):
    """Hiding every label but those of the subset changes nothing."""
    train_x, train_y, test_x, test_y, _ = digits
    before = few_label_accuracy(*digits[:4], per_class=5, seeds=1)
    rows = balanced_subset(train_y, per_class=5, seed=0)
    hidden = np.full_like(train_y, -1)
    hidden[rows] = train_y[rows]
    after = few_label_accuracy(train_x, hidden, test_x, test_y, per_class=5, seeds=1)
    assert after == before
    assert before.std == 0


def test_more_labels_help(digits):
    one, ten = (few_label_accuracy(*digits[:4], per_class=n) for n in (1, 10))
    assert 55 < one.mean < 80 < ten.mean < 95
    assert one.std > ten.std
