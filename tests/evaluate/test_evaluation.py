"""All scores together, what is left out and said, and the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.errors import UserError
from jaxcl.evaluate import (
    Evaluation,
    Features,
    alignment,
    cluster,
    comparison_table,
    evaluate_features,
    feature_map,
    few_shot,
    knn_accuracy,
    logistic_probe,
    nearest,
    nearest_neighbours,
    uniformity,
    weighted_knn,
    write_report,
)
from jaxcl.evaluate.sts import Pairs, dev_scores

GEOMETRY = {"uniformity", "feature_std", "effective_rank", "top_singular_share"}
FEW = {f"labels_{n}_per_class{end}" for n in (1, 10) for end in ("", "_std")}
SHOTS = {f"{learner}_4_way_{s}_shot{end}"
         for learner in ("mean", "ridge") for s in (1, 5) for end in ("", "_interval")}  # fmt: skip
CLUSTERS = {"cluster_accuracy", "cluster_nmi", "cluster_ami", "cluster_ari"}


@pytest.fixture(scope="module")
def evaluation(digits):
    """Made once for the tests that only read it."""
    pairs = (digits.test_x[:50], digits.test_x[50:100])
    return evaluate_features(digits, seeds=2, pairs=pairs, shots=(1, 5), ways=4, clusters=True)


def test_every_score_is_there_and_is_its_own_functions(digits, evaluation):
    scalars = evaluation.scalars
    expected = (
        {"knn", "linear_lbfgs", "linear_sgd", "alignment"} | FEW | GEOMETRY | SHOTS | CLUSTERS
    )
    assert set(scalars) == expected
    assert all(isinstance(value, float) for value in scalars.values())
    data = digits[:4]
    assert scalars["knn"] == float(knn_accuracy(*data, classes=10, k=20))
    probe = logistic_probe(*data)
    assert scalars["linear_lbfgs"] == probe.accuracy
    np.testing.assert_array_equal(evaluation.predictions, probe.predictions)
    np.testing.assert_array_equal(evaluation.labels, digits.test_y)
    assert scalars["uniformity"] == float(uniformity(digits.test_x))
    assert scalars["alignment"] == float(alignment(digits.test_x[:50], digits.test_x[50:100]))
    assert 90 < scalars["linear_sgd"] < 100
    episodes = few_shot(digits.test_x, digits.test_y, shots=5, ways=4)
    assert scalars["ridge_4_way_5_shot"] == episodes.ridge.mean
    assert scalars["mean_4_way_5_shot_interval"] == episodes.nearest_mean.interval
    assert scalars["cluster_ari"] == cluster(digits.test_x, digits.test_y).ari
    assert evaluation.notes == ()


def test_without_labels_only_geometry(digits):
    for name in ("train_y", "test_y"):
        bare = digits._replace(**{name: np.full_like(getattr(digits, name), -1)})
        found = evaluate_features(bare)
        assert set(found.scalars) == GEOMETRY
        assert len(found.labels) == len(found.predictions) == 0
        side = {"train_y": "training", "test_y": "test"}[name]
        assert found.notes == (
            f"The {side} rows have no labels, so only the geometry is measured.",
        )


def test_rows_without_label_are_left_out(digits, evaluation):
    train_y, test_y = digits.train_y.copy(), digits.test_y.copy()
    train_y[::3], test_y[:10] = -1, -1
    part = digits._replace(train_y=train_y, test_y=test_y)
    found = evaluate_features(part, labels_per_class=(), seeds=1)
    kept = train_y >= 0
    oracle = logistic_probe(
        digits.train_x[kept], train_y[kept], digits.test_x[10:], digits.test_y[10:]
    )
    assert found.scalars["linear_lbfgs"] == oracle.accuracy
    np.testing.assert_array_equal(found.labels, digits.test_y[10:])
    assert found.notes == ("489 rows have no label and take no part in the accuracies.",)


def test_caps_are_said(digits):
    found = evaluate_features(
        digits, lbfgs_rows=200, geometry_rows=50, labels_per_class=(1, 1000), seeds=1
    )
    assert np.bincount(digits.train_y).min() == 130
    assert found.notes == (
        "The L-BFGS probe was fitted on 200 of 1437 training rows (lbfgs_rows=200).",
        "No probe with 1000 labels per class: the smallest class has 130.",
        "The geometry was measured on 50 of 360 test rows (geometry_rows=50).",
    )
    assert "labels_1_per_class" in found.scalars
    assert "labels_1000_per_class" not in found.scalars


def test_mistakes_are_named(digits):
    one = digits._replace(train_y=np.zeros_like(digits.train_y))
    with pytest.raises(UserError, match="all labelled training rows are of one class, 'zero'"):
        evaluate_features(one)
    with pytest.raises(UserError, match="test split has no rows"):
        evaluate_features(digits._replace(test_x=digits.test_x[:0], test_y=digits.test_y[:0]))
    with pytest.raises(UserError, match="train label 9 has no name among 2 classes; name 10"):
        evaluate_features(digits._replace(classes=("a", "b")))
    broken = digits.test_x.copy()
    broken[:3, 0] = np.nan
    with pytest.raises(UserError, match="3 of 360 test features are not finite"):
        evaluate_features(digits._replace(test_x=broken))


def test_one_test_row_is_enough():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    y = np.arange(40) % 2
    found = evaluate_features(Features(x, y, x[:1], y[:1], ("a", "b")), seeds=1)
    assert "uniformity" not in found.scalars  # it needs a pair
    assert np.isfinite(list(found.scalars.values())).all()


def test_one_training_row_a_class_is_enough():
    """No row is left to choose settings by."""
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    told = []
    found = evaluate_features(
        Features(x[:2], np.arange(2), x, np.arange(6) % 2, ("a", "b")), seeds=1, tell=told.append
    )
    assert {"knn", "linear_lbfgs", "labels_1_per_class"} <= set(found.scalars)
    assert "linear_sgd" not in found.scalars and "the SGD probe is left out" in found.notes[0]
    assert told == ["kNN", "L-BFGS probe", "few labels", "geometry"]


def row(**scalars: float) -> Evaluation:
    nothing = np.zeros(0, np.int32)
    return Evaluation(scalars, ("a",), nothing, nothing, ())


def test_table_lines_up():
    table = comparison_table(
        {
            "raw pixels": row(knn=98.25, labels_10_per_class=90.3, labels_10_per_class_std=1.23),
            "trained": row(knn=9.0, linear_lbfgs=99.0, uniformity=-2.5, labels_1_per_class=80.44),
        }
    )
    assert table.split("\n") == [
        "                               1          10",
        "                  linear   label      labels",
        "             kNN  L-BFGS  /class      /class  uniform-",
        "               %       %       %           %       ity",
        "------------------------------------------------------",
        "raw pixels  98.2                  90.3 ± 1.2",
        "trained      9.0    99.0    80.4                 -2.50",
    ]


def test_table_of_nothing():
    assert comparison_table({"trained": row()}).split("\n")[-1] == "trained"


@pytest.mark.extended
def test_scores_where_numbers_have_64_bits(digits, tmp_path, x64):
    """Every evaluation runs under `jax_enable_x64` and says what it says without."""
    x, y = digits.train_x[:200], digits.train_y[:200]
    small = digits._replace(train_x=x, train_y=y)
    pairs = (digits.test_x[:50], digits.test_x[50:100])
    options = {"labels_per_class": (1,), "seeds": 1, "shots": (1,), "ways": 4, "clusters": True}

    def evaluated():
        return evaluate_features(small, pairs=pairs, **options)

    found = evaluated()
    with jax.enable_x64(False):
        expected = evaluated()
    assert found.scalars == pytest.approx(expected.scalars, rel=1e-3)
    assert weighted_knn(x, y, x, classes=10).dtype == jnp.int32
    assert nearest(x, x, k=3).similarity.dtype == jnp.float32
    neighbours = nearest_neighbours(small, [np.zeros((2, 2, 1))] * 200, [np.zeros((2, 2, 1))] * 360)
    plane = feature_map(small.test_x[:50], small.test_y[:50])
    page = write_report(
        tmp_path / "report.html", title="digits", evaluations={"pixels": found},
        neighbours=neighbours, plane=plane,
    )  # fmt: skip
    assert "t-SNE of the features" in page.read_text()


@pytest.mark.extended
def test_sts_where_numbers_have_64_bits(x64):
    scores = dev_scores(
        lambda texts: np.array([[len(text), 1.0] for text in texts], np.float32),
        Pairs(["a", "bb", "ccc"], ["a", "bbb", "c"], np.array([5.0, 4.0, 1.0])),
    )
    assert set(scores) == {"stsb_dev", "uniformity", "alignment"}
    assert scores["alignment"] == 0
