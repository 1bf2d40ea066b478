"""Weighted nearest-neighbour classification: how well the features sort themselves, untrained.

    score_c = sum over the k nearest rows j with label c of exp(q . b_j / T);  prediction: argmax_c

Reference: Wu et al. 2018, arXiv:1805.01978, section 3.4; the protocol as DINO reports it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.similarity import topk_pairs, unit_rows
from jaxcl.typing import Array, Float, Int, NumpyArray


class Nearest(NamedTuple):
    """The rows of a bank that lie nearest to each query, best first."""

    similarity: Float[Array, "m k"]
    """Cosines, float32."""
    places: Int[Array, "m k"]
    """In the bank, int32."""


def nearest(
    bank: Float[Array | NumpyArray, "n d"],
    queries: Float[Array | NumpyArray, "m d"],
    *,
    k: int,
    exclude_self: bool = False,
) -> Nearest:
    """The k rows of `bank` with the highest cosine similarity to each query.

    Rows are normalised here. Equal similarities keep the order of the bank.

    Args:
      bank: [n, d] rows to search.
      queries: [m, d] rows to search for.
      k: how many; capped at the size of the bank (less one with `exclude_self`).
      exclude_self: `queries` is the bank; row i is not its own neighbour.

    Returns:
      similarities and places in the bank.

    Raises:
      ValueError: no row is left to be a neighbour, widths differ, or `exclude_self` with
        queries that cannot be the bank.
    """
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(f"bank has {bank.shape[1]} columns and queries {queries.shape[1]}")
    if exclude_self and bank.shape != queries.shape:
        raise ValueError(
            f"exclude_self needs queries to be the bank, got {queries.shape} and {bank.shape}"
        )
    usable = min(k, len(bank) - exclude_self)
    if usable < 1:
        raise ValueError(f"k={k} neighbours of {len(bank)} rows, exclude_self={exclude_self}")
    found: Nearest = _nearest(
        jnp.asarray(bank), jnp.asarray(queries), k=usable, exclude_self=exclude_self
    )
    return found


def knn_scores(
    bank: Float[Array | NumpyArray, "n d"],
    bank_labels: Int[Array | NumpyArray, "n"],
    queries: Float[Array | NumpyArray, "m d"],
    *,
    classes: int,
    k: int = 200,
    temperature: float | Float[Array, ""] = 0.07,
    exclude_self: bool = False,
) -> Float[Array, "m classes"]:
    """Votes for each class by the k nearest rows of each query, each weighing exp(similarity / T).

    Rows are normalised here, so their length does not matter. Weights are taken relative to the
    nearest row, which has 1, so no temperature overflows. A row of the bank labelled -1 takes a
    neighbour's place but has no vote.

    Args:
      bank: [n, d] labelled features.
      bank_labels: [n] class ids in [0, classes).
      queries: [m, d] features to classify.
      classes: number of classes.
      k: neighbours that vote; capped at the size of the bank. 200 is InstDisc's and DINO's.
      temperature: positive; smaller listens more to the nearest.
      exclude_self: `queries` is the bank; row i does not vote for itself.

    Returns:
      [m, classes] float32 sums of the votes' weights; divided by their sum over the classes they
      are shares of the votes.

    Raises:
      ValueError: as `nearest`.
    """
    found = nearest(bank, queries, k=k, exclude_self=exclude_self)
    labels, temperature = jnp.asarray(bank_labels), jnp.asarray(temperature, jnp.float32)
    scores: Array = _votes(found, labels, temperature, classes=classes)
    return scores


def weighted_knn(
    bank: Float[Array | NumpyArray, "n d"],
    bank_labels: Int[Array | NumpyArray, "n"],
    queries: Float[Array | NumpyArray, "m d"],
    *,
    classes: int,
    k: int = 200,
    temperature: float | Float[Array, ""] = 0.07,
    exclude_self: bool = False,
) -> Int[Array, "m"]:
    """[m] int32 class with the highest of `knn_scores`, the lowest id of equals; arguments as
    there."""
    scores = knn_scores(
        bank, bank_labels, queries,
        classes=classes, k=k, temperature=temperature, exclude_self=exclude_self,
    )  # fmt: skip
    return jnp.argmax(scores, axis=1).astype(jnp.int32)


def knn_accuracy(
    bank: Float[Array | NumpyArray, "n d"],
    bank_labels: Int[Array | NumpyArray, "n"],
    queries: Float[Array | NumpyArray, "m d"],
    labels: Int[Array | NumpyArray, "m"],
    *,
    classes: int,
    k: int = 200,
    temperature: float | Float[Array, ""] = 0.07,
    exclude_self: bool = False,
    top: int = 1,
) -> Float[Array, ""]:
    """`top_accuracy` of `knn_scores`, in percent; arguments as there."""
    scores = knn_scores(
        bank, bank_labels, queries,
        classes=classes, k=k, temperature=temperature, exclude_self=exclude_self,
    )  # fmt: skip
    return top_accuracy(scores, labels, top=top)


def top_accuracy(
    scores: Float[Array | NumpyArray, "m classes"],
    labels: Int[Array | NumpyArray, "m"],
    *,
    top: int = 1,
) -> Float[Array, ""]:
    """Share of rows whose class is among the `top` classes with the highest scores, in percent.

    Of equal scores the lowest class id comes first, so that `top=1` is the accuracy of `argmax`.

    Args:
      scores: [m, classes] of any classifier.
      labels: [m] class ids; a row labelled -1 counts as wrong.
      top: number of classes that are looked at; 5 is usual on ImageNet.
    """
    hits = (class_ranks(scores, labels) < top) & (jnp.asarray(labels) >= 0)
    return 100 * jnp.mean(hits, dtype=jnp.float32)


def class_ranks(
    scores: Float[Array | NumpyArray, "m classes"], labels: Int[Array | NumpyArray, "m"]
) -> Int[Array, "m"]:
    """Number of classes that come before each row's own class, int32; 0 where it comes first.

    Of equal scores the lowest class id comes first.

    Args:
      scores: [m, classes] of any classifier.
      labels: [m] class ids; the rank of a row labelled -1 says nothing.
    """
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)[:, None]
    ids = jnp.arange(scores.shape[1])
    own = jnp.take_along_axis(scores, jnp.maximum(labels, 0), axis=1)
    before = (scores > own) | ((scores == own) & (ids < labels))
    return jnp.sum(before, axis=1, dtype=jnp.int32)


@partial(jax.jit, static_argnames=("k", "exclude_self"))
def _nearest(bank: Array, queries: Array, *, k: int, exclude_self: bool) -> Nearest:
    ids = jnp.arange(len(bank)) if exclude_self else None
    return Nearest(*topk_pairs(unit_rows(queries), unit_rows(bank), k, q_ids=ids, k_ids=ids))


@partial(jax.jit, static_argnames="classes")
def _votes(found: Nearest, bank_labels: Array, temperature: Array, *, classes: int) -> Array:
    weight = jnp.exp((found.similarity - found.similarity[:, :1]) / temperature)  # the first is 1
    # A compare-and-sum that XLA fuses: no [m, k, classes] array, and a fixed order of sums.
    votes = bank_labels[found.places][:, :, None] == jnp.arange(classes)
    return jnp.sum(jnp.where(votes, weight[:, :, None], 0), axis=1)
