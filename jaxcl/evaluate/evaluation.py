"""Every score of one set of features, and the table that compares several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcl.errors import UserError
from jaxcl.evaluate.clustering import cluster
from jaxcl.evaluate.few_label import few_label_accuracy
from jaxcl.evaluate.few_shot import few_shot
from jaxcl.evaluate.geometry import (
    alignment,
    effective_rank,
    feature_std,
    top_singular_share,
    uniformity,
)
from jaxcl.evaluate.knn import knn_accuracy
from jaxcl.evaluate.linear import logistic_probe, sgd_probe
from jaxcl.evaluate.subsets import at_most
from jaxcl.typing import Float, Int, NumpyArray


class Features(NamedTuple):
    """Frozen features of a training and a test split, on the host."""

    train_x: Float[NumpyArray, "n d"]
    train_y: Int[NumpyArray, "n"]  # -1: no label
    test_x: Float[NumpyArray, "m d"]
    test_y: Int[NumpyArray, "m"]
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate_features` found."""

    scalars: dict[str, float]
    """Scores by name; accuracies in percent."""
    classes: tuple[str, ...]
    """Names of the classes."""
    labels: Int[NumpyArray, "m"]
    """True classes of the labelled test rows; empty without labels."""
    predictions: Int[NumpyArray, "m"]
    """The L-BFGS probe's classes for the same rows."""
    notes: tuple[str, ...]
    """What was left out or capped, one sentence each."""


def evaluate_features(
    features: Features,
    *,
    knn_k: int = 20,
    temperature: float = 0.07,
    labels_per_class: Sequence[int] = (1, 10),
    seeds: int = 5,
    lbfgs_rows: int = 20_000,
    geometry_rows: int = 10_000,
    pairs: tuple[Float[NumpyArray, "p d"], Float[NumpyArray, "p d"]] | None = None,
    shots: Sequence[int] = (),
    ways: int = 5,
    clusters: bool = False,
    seed: int = 0,
    tell: Callable[[str], object] = str,
) -> Evaluation:
    """kNN, linear, few-label and geometry scores of frozen features.

    Scalars: "knn", "linear_lbfgs", "linear_sgd", and for each n of `labels_per_class`
    "labels_<n>_per_class" with its standard deviation over subsets "labels_<n>_per_class_std", all
    in percent of the test rows; "uniformity", "feature_std", "effective_rank" and
    "top_singular_share" of the test rows; with `pairs` also "alignment". For each s of `shots`
    "mean_<ways>_way_<s>_shot" and "ridge_<ways>_way_<s>_shot" with the half width of their 95 %
    interval "..._interval"; with `clusters` "cluster_accuracy", "cluster_nmi",
    "cluster_ami" and "cluster_ari".

    Rows labelled -1 take no part in the accuracies. Without labels on either side only the geometry
    is measured, and `notes` says so, as it does for every cap that took effect.

    Args:
      features: both splits and the class names.
      knn_k: neighbours that vote.
      temperature: of the neighbours' votes.
      labels_per_class: sizes of the few-label probes; one that a class cannot fill is left out.
      seeds: label subsets of each size.
      lbfgs_rows: training rows the L-BFGS probe is fitted on at most, drawn at random.
      geometry_rows: test rows the geometry is measured on at most (its memory is quadratic).
      pairs: features of two views of the same examples, for the alignment.
      shots: sizes of the few-shot episodes, which are drawn from the test rows.
      ways: classes of an episode.
      clusters: score k-means of the test rows.
      seed: of the rows drawn and of the probes' held-out parts.
      tell: called with a name, such as "L-BFGS probe", when that part begins; some take minutes.

    Returns:
      scores, the L-BFGS probe's predictions beside the true classes, and notes.

    Raises:
      UserError: no rows, a label outside the classes, or one class only.
    """
    _check(features)
    notes: list[str] = []
    scalars: dict[str, float] = {}
    labels = predictions = np.zeros(0, np.int32)
    train, test = features.train_y >= 0, features.test_y >= 0
    if train.any() and test.any():
        if not (train.all() and test.all()):
            missing = int((~train).sum() + (~test).sum())
            notes.append(f"{missing} rows have no label and take no part in the accuracies.")
        labelled = (
            features.train_x[train],
            features.train_y[train],
            features.test_x[test],
            features.test_y[test],
        )
        labels = labelled[3]
        predictions = _accuracies(
            scalars,
            notes,
            *labelled,
            classes=len(features.classes),
            knn_k=knn_k,
            temperature=temperature,
            labels_per_class=labels_per_class,
            seeds=seeds,
            lbfgs_rows=lbfgs_rows,
            seed=seed,
            tell=tell,
        )
        if shots:
            tell("episodes")
        _episodes(scalars, labelled[2], labels, shots, ways, seed)
        if clusters:
            tell("k-means")
            found = cluster(labelled[2], labels, seed=seed)
            scalars["cluster_accuracy"] = found.accuracy
            scalars["cluster_nmi"], scalars["cluster_ami"] = found.nmi, found.ami
            scalars["cluster_ari"] = found.ari
    else:
        side = "training" if test.any() else "test" if train.any() else "training and test"
        notes.append(f"The {side} rows have no labels, so only the geometry is measured.")
    tell("geometry")
    _geometry(scalars, notes, features.test_x, geometry_rows, seed)
    if pairs is not None:
        scalars["alignment"] = float(alignment(jnp.asarray(pairs[0]), jnp.asarray(pairs[1])))
    return Evaluation(scalars, features.classes, labels, predictions, tuple(notes))


def _check(features: Features) -> None:
    for split, x, y in (
        ("train", features.train_x, features.train_y),
        ("test", features.test_x, features.test_y),
    ):
        if len(x) == 0:
            raise UserError(f"{split} split has no rows; give data with at least two classes")
        if y.max(initial=-1) >= len(features.classes):
            raise UserError(
                f"{split} label {y.max()} has no name among {len(features.classes)} classes; "
                f"name {y.max() + 1}"
            )
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x).all(axis=1)).sum())
            raise UserError(
                f"{bad} of {len(x)} {split} features are not finite; the encoder diverged, "
                f"use an earlier checkpoint"
            )
    found = np.unique(features.train_y[features.train_y >= 0])
    if len(found) == 1:
        raise UserError(
            f"all labelled training rows are of one class, {features.classes[found[0]]!r}; "
            f"evaluation needs two, or no labels at all"
        )


def _accuracies(
    scalars: dict[str, float],
    notes: list[str],
    train_x: NumpyArray,
    train_y: NumpyArray,
    test_x: NumpyArray,
    test_y: NumpyArray,
    *,
    classes: int,
    knn_k: int,
    temperature: float,
    labels_per_class: Sequence[int],
    seeds: int,
    lbfgs_rows: int,
    seed: int,
    tell: Callable[[str], object],
) -> NumpyArray:
    """Fills in the accuracies; the L-BFGS probe's predictions."""
    data = (train_x, train_y, test_x, test_y)
    tell("kNN")
    scalars["knn"] = float(
        knn_accuracy(*data, classes=classes, k=knn_k, temperature=temperature),
    )
    rows = at_most(lbfgs_rows, len(train_x), seed=seed)
    if len(rows) < len(train_x):
        notes.append(
            f"The L-BFGS probe was fitted on {len(rows)} of {len(train_x)} training rows "
            f"(lbfgs_rows={lbfgs_rows})."
        )
    counts = np.unique(train_y, return_counts=True)[1]
    fit = partial(logistic_probe, train_x[rows], train_y[rows], test_x, test_y, seed=seed)
    tell("L-BFGS probe")
    if counts.max() > 1:
        logistic = fit()
        tell("SGD probe")
        scalars["linear_sgd"] = sgd_probe(*data, seed=seed).accuracy
    else:
        logistic = fit(C=1.0)
        notes.append(
            "No class has two training rows, one to fit and one to choose settings by: the L-BFGS "
            "probe has C=1, the SGD probe is left out."
        )
    scalars["linear_lbfgs"] = logistic.accuracy
    smallest = int(counts.min())
    tell("few labels")
    for per_class in labels_per_class:
        if per_class > smallest:
            notes.append(
                f"No probe with {per_class} labels per class: the smallest class has {smallest}."
            )
            continue
        few = few_label_accuracy(*data, per_class=per_class, seeds=seeds)
        scalars[f"labels_{per_class}_per_class"] = few.mean
        scalars[f"labels_{per_class}_per_class_std"] = few.std
    return logistic.predictions


def _episodes(
    scalars: dict[str, float],
    x: NumpyArray,
    y: NumpyArray,
    shots: Sequence[int],
    ways: int,
    seed: int,
) -> None:
    """Fills in the few-shot accuracies."""
    for size in shots:
        found = few_shot(x, y, shots=size, ways=ways, seed=seed)
        for learner, score in (("mean", found.nearest_mean), ("ridge", found.ridge)):
            name = f"{learner}_{ways}_way_{size}_shot"
            scalars[name], scalars[f"{name}_interval"] = score.mean, score.interval


def _geometry(
    scalars: dict[str, float], notes: list[str], x: NumpyArray, most: int, seed: int
) -> None:
    rows = at_most(most, len(x), seed=seed)
    if len(rows) < len(x):
        notes.append(
            f"The geometry was measured on {len(rows)} of {len(x)} test rows "
            f"(geometry_rows={most})."
        )
    sample = jnp.asarray(x[rows])
    if len(rows) > 1:
        scalars["uniformity"] = float(uniformity(sample))
    scalars["feature_std"] = float(feature_std(sample))
    scalars["effective_rank"] = float(effective_rank(sample))
    scalars["top_singular_share"] = float(top_singular_share(sample))
