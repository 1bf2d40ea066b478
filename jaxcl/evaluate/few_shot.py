"""Few-shot classification: many small problems of a few classes with a few labelled rows each.

    episode: draw `ways` classes; of each, `shots` rows to learn from and `queries` to classify

Rows are scaled to length 1. Two learners in closed form stand for what features alone allow:

    nearest_mean   the class whose mean has the highest cosine with the query
    ridge          argmin_W |X W - Y|^2 + l2 |W|^2,  X with a column of ones,  Y one-hot as -1 and 1

Reference: Snell et al. 2017, arXiv:1703.05175; google-research/big_vision, fewshot_lsr.py.
"""

from dataclasses import dataclass

import numpy as np

from jaxcl.errors import UserError
from jaxcl.typing import Float, Int, NumpyArray


@dataclass(frozen=True)
class FewShot:
    """Accuracy over the episodes, in percent."""

    mean: float
    interval: float
    """Half the width of the 95 % interval of the mean."""


@dataclass(frozen=True)
class FewShotScores:
    """Of both learners, on the same episodes."""

    nearest_mean: FewShot
    ridge: FewShot


def few_shot(
    x: Float[NumpyArray, "n d"],
    y: Int[NumpyArray, "n"],
    *,
    shots: int,
    ways: int = 5,
    queries: int = 15,
    episodes: int = 600,
    l2: float = 1.0,
    seed: int = 0,
) -> FewShotScores:
    """Mean accuracy of both learners over episodes drawn from a seed.

    Args:
      x: [n, d] features of images that the encoder did not train on.
      y: [n] class ids; -1 marks rows without a label.
      shots: labelled rows of each class.
      ways: classes of an episode.
      queries: rows of each class to classify.
      episodes: how many.
      l2: of the ridge regression.
      seed: of the episodes.

    Raises:
      UserError: fewer classes have rows enough than an episode needs, or a number is below 1.
    """
    given = {"shots": shots, "ways": ways, "queries": queries, "episodes": episodes}
    for name, value in given.items():
        if value < (2 if name in ("ways", "episodes") else 1):
            raise UserError(f"{name}={value} is too few for few-shot episodes")
    names, counts = np.unique(y[y >= 0], return_counts=True)
    rows = {name: np.flatnonzero(y == name) for name in names[counts >= shots + queries]}
    if len(rows) < ways:
        raise UserError(
            f"ways={ways}: only {len(rows)} of {len(names)} classes have shots + queries = "
            f"{shots + queries} labelled rows; use fewer ways or shots"
        )
    unit = _unit(np.asarray(x, np.float64))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(episodes):
        classes = rng.choice(list(rows), ways, replace=False)
        drawn = np.stack([rng.choice(rows[c], shots + queries, replace=False) for c in classes])
        support, asked = unit[drawn[:, :shots]], unit[drawn[:, shots:]]
        found.append([_right(learn(support, asked, l2)) for learn in (_nearest_mean, _ridge)])
    means = 100 * np.mean(found, axis=0)
    intervals = 100 * 1.96 * np.std(found, axis=0, ddof=1) / np.sqrt(episodes)
    pairs = zip(means, intervals, strict=True)
    return FewShotScores(*(FewShot(float(m), float(i)) for m, i in pairs))


def _nearest_mean(
    support: Float[NumpyArray, "w s d"], asked: Float[NumpyArray, "w q d"], l2: float
) -> Float[NumpyArray, "w q w"]:
    """Scores of the classes."""
    scores: NumpyArray = asked @ _unit(support.mean(axis=1)).T
    return scores


def _ridge(
    support: Float[NumpyArray, "w s d"], asked: Float[NumpyArray, "w q d"], l2: float
) -> Float[NumpyArray, "w q w"]:
    """Scores of the classes, solved over the rows, of which there are fewer than columns."""
    ways, shots, width = support.shape
    rows = support.reshape(-1, width)
    targets = 2 * np.repeat(np.eye(ways), shots, axis=0) - 1
    products = rows @ rows.T + 1  # the ones' column adds 1 to every product
    weights = np.linalg.solve(products + l2 * np.eye(len(rows)), targets)
    scores: NumpyArray = (asked @ rows.T + 1) @ weights
    return scores


def _right(scores: Float[NumpyArray, "w q w"]) -> float:
    """Share of the queries that their own class's score wins."""
    return float(np.mean(scores.argmax(axis=2) == np.arange(len(scores))[:, None]))


def _unit(x: Float[NumpyArray, "... d"]) -> Float[NumpyArray, "... d"]:
    unit: NumpyArray = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return unit
