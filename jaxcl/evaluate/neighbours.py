"""Nearest training images of some test images, as the report shows them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from jaxcl.evaluate.evaluation import Features
from jaxcl.evaluate.knn import nearest
from jaxcl.typing import Float, Int, NumpyArray


class Images(Protocol):
    """Anything that gives image i as [h, w, c], uint8 or float in [0, 1]; sizes may differ."""

    def __getitem__(self, index: int, /) -> NumpyArray: ...


class Neighbours(NamedTuple):
    """Query images with the training images most like them, best first."""

    query_images: Sequence[NumpyArray]  # q images [h, w, c]
    query_labels: Int[NumpyArray, "q"]
    images: Sequence[Sequence[NumpyArray]]  # q x k images
    labels: Int[NumpyArray, "q k"]
    similarity: Float[NumpyArray, "q k"]  # cosine
    hard: tuple[bool, ...]  # q; True: chosen because the nearest image is of another class


def nearest_neighbours(
    features: Features,
    train_images: Images,
    test_images: Images,
    *,
    queries: int = 6,
    hard: int = 4,
    k: int = 6,
    pool: int = 1000,
    seed: int = 0,
) -> Neighbours:
    """The k nearest training images, by cosine of the features, of some test images.

    `queries` test images are drawn at random. To these come up to `hard` others whose nearest
    training image is of another class, where labels tell; they show what the features confuse.

    Args:
      features: both splits; row i belongs to image i.
      train_images: the images of the training split.
      test_images: the images of the test split.
      queries: test images drawn at random.
      hard: most test images with a wrong nearest neighbour.
      k: neighbours of each.
      pool: test images looked at, so that large splits stay quick.
      seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(features.test_x))[:pool]
    similarity, index = (
        np.asarray(part)
        for part in nearest(jnp.asarray(features.train_x), jnp.asarray(features.test_x[order]), k=k)
    )
    own, first = features.test_y[order], features.train_y[index[:, 0]]
    wrong = np.flatnonzero((own != first) & (own >= 0) & (first >= 0))
    wrong = wrong[wrong >= queries][:hard]
    shown = np.concatenate([np.arange(min(queries, len(order))), wrong])
    return Neighbours(
        query_images=[np.asarray(test_images[int(i)]) for i in order[shown]],
        query_labels=own[shown],
        images=[[np.asarray(train_images[int(j)]) for j in row] for row in index[shown]],
        labels=features.train_y[index[shown]],
        similarity=similarity[shown],
        hard=tuple(bool(i >= queries) for i in shown),
    )
