"""Features on a plane, for looking at."""

from typing import Literal, NamedTuple

import numpy as np

from jaxcl.typing import Float, Int, NumpyArray


class FeatureMap(NamedTuple):
    """A point for each of some rows."""

    points: Float[NumpyArray, "n 2"]
    labels: Int[NumpyArray, "n"]  # -1: none
    method: str  # "t-SNE" or "PCA"
    rows: int  # how many there were to draw from


def feature_map(
    x: Float[NumpyArray, "n d"],
    labels: Int[NumpyArray, "n"],
    *,
    method: Literal["tsne", "pca"] = "tsne",
    most: int = 2000,
    seed: int = 0,
) -> FeatureMap:
    """Places unit rows on a plane so that rows alike lie together.

    t-SNE keeps neighbourhoods and costs seconds per thousand rows; distances between its groups
    and their sizes mean little. PCA keeps the two directions of largest variance.

    Args:
      x: [n, d] features.
      labels: [n] class ids, -1 for none.
      method: "tsne", or "pca", which is also taken where there is nothing to spread: fewer than
        five rows, or rows that coincide.
      most: rows drawn at random if there are more.
      seed: of the draw and of t-SNE.

    Returns:
      points [<= most, 2] with their labels.
    """
    from threadpoolctl import threadpool_limits

    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:most])
    with threadpool_limits(1):  # more threads wait for each other here, and longer when it is busy
        points, name = _placed(np.asarray(x)[rows].astype(np.float64), method, seed)
    return FeatureMap(points, np.asarray(labels)[rows], name, len(x))


def _placed(x: NumpyArray, method: str, seed: int) -> tuple[NumpyArray, str]:
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    # t-SNE needs no more than the leading directions, and is quicker with few.
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    leading = np.pad((u * s)[:, :50], ((0, 0), (0, max(0, 2 - len(s)))))
    if method == "pca" or len(x) < 5 or s[0] < 1e-4 * np.sqrt(len(x)):
        return leading[:, :2], "PCA"
    from sklearn.manifold import TSNE

    tsne = TSNE(init="pca", perplexity=min(30, (len(x) - 1) / 3), random_state=seed)
    return tsne.fit_transform(leading), "t-SNE"
