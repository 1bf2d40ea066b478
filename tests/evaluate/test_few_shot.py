import numpy as np
import pytest

from jaxcl import UserError
from jaxcl.evaluate import few_shot
from jaxcl.evaluate.few_shot import _nearest_mean, _ridge

SUPPORT, ASKED = np.split(np.random.default_rng(0).normal(size=(3, 9, 6)), [4], axis=1)


def test_ridge_is_the_least_squares_solution():
    """By the normal equations over the columns, which the library does not solve."""
    x = np.concatenate([SUPPORT.reshape(12, 6), np.ones((12, 1))], axis=1)
    y = np.where(np.arange(12)[:, None] // 4 == np.arange(3), 1.0, -1.0)
    weights = np.linalg.inv(x.T @ x + 0.7 * np.eye(7)) @ x.T @ y
    asked = np.concatenate([ASKED, np.ones((3, 5, 1))], axis=2)
    np.testing.assert_allclose(_ridge(SUPPORT, ASKED, 0.7), asked @ weights, rtol=1e-9, atol=1e-10)


def test_nearest_mean_goes_by_the_angle_to_the_mean():
    scores = _nearest_mean(SUPPORT, 3 * ASKED, 0.0)
    for way, row in np.ndindex(3, 5):
        cosines = [
            ASKED[way, row] @ m / np.linalg.norm(ASKED[way, row]) / np.linalg.norm(m)
            for m in SUPPORT.mean(1)
        ]
        assert scores[way, row].argmax() == np.argmax(cosines)


def test_digits_grow_easier_with_shots_and_the_interval_is_that_of_the_mean(digits):
    found = {s: few_shot(digits.test_x, digits.test_y, shots=s, episodes=150) for s in (1, 5)}
    for learner in ("nearest_mean", "ridge"):
        one, five = (getattr(found[s], learner) for s in (1, 5))
        assert 60 < one.mean < five.mean < 100
        assert 0 < five.interval < one.interval < 3
    again = few_shot(digits.test_x, digits.test_y, shots=1, episodes=150)
    assert again == found[1]
    other = few_shot(digits.test_x, digits.test_y, shots=1, episodes=150, seed=1)
    difference = other.ridge.mean - found[1].ridge.mean
    assert 0 < abs(difference) < 3 * found[1].ridge.interval


def test_features_that_tell_nothing_are_at_chance():
    x, y = np.random.default_rng(1).normal(size=(400, 8)), np.arange(400) % 10
    for score in vars(few_shot(x, y, shots=5, episodes=300)).values():
        assert abs(score.mean - 20) < 4 * score.interval
        # A query is right or not, so that an accuracy of 75 queries spreads by 4.6 points at least.
        np.testing.assert_allclose(score.interval, 1.96 * 4.6 / np.sqrt(300), rtol=0.2)


def test_classes_apart_are_always_told_and_rows_without_label_never_drawn():
    y = np.repeat(np.arange(6), 20)
    x = np.eye(6)[y] + 0.01 * np.random.default_rng(2).normal(size=(120, 6))
    x, y = np.concatenate([x, np.full((50, 6), np.nan)]), np.append(y, np.full(50, -1))
    found = few_shot(x, y, shots=1, episodes=50)
    assert (found.nearest_mean.mean, found.ridge.mean, found.ridge.interval) == (100, 100, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shots": 0}, r"shots=0 is too few"),
        ({"shots": 1, "ways": 1}, r"ways=1 is too few"),
        ({"shots": 5}, r"ways=5: only 4 of 10 classes have shots \+ queries = 20 labelled rows"),
    ],
)
def test_wrong_use(options, words):
    y = np.concatenate([np.repeat(np.arange(4), 20), np.repeat(np.arange(4, 10), 19)])
    with pytest.raises(UserError, match=words):
        few_shot(np.ones((len(y), 3)), y, **options)
