"""Weighted nearest-neighbour classification: how well the features sort themselves, untrained.

    score_c = sum over the k nearest rows j with label c of exp(q . b_j / T);  prediction: argmax_c

Reference: Wu et al. 2018, arXiv:1805.01978, section 3.4; the protocol as DINO reports it.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxcl.similarity import unit_rows
from jaxcl.typing import Array, Float, Int, NumpyArray, PyTree


def nearest(
    bank: Float[Array | NumpyArray, "n d"],
    queries: Float[Array | NumpyArray, "m d"],
    *,
    k: int,
    exclude_self: bool = False,
    block: int = 256,
) -> tuple[Float[Array, "m k"], Int[Array, "m k"]]:
    """The k rows of `bank` with the highest cosine similarity to each query, best first.

    Rows are normalised here. Equal similarities keep the order of the bank.

    Args:
      bank: [n, d] rows to search.
      queries: [m, d] rows to search for.
      k: how many; capped at the size of the bank (less one with `exclude_self`).
      exclude_self: `queries` is the bank; row i is not its own neighbour.
      block: queries handled at a time; memory is O(block * n).

    Returns:
      similarity [m, k] float32 in [-1, 1] and index [m, k] int32 into the bank.

    Raises:
      ValueError: no row is left to be a neighbour, widths differ, or `exclude_self` with
        queries that cannot be the bank.
    """
    k = _usable_neighbours(bank, queries, k, exclude_self)
    similarity, index = _nearest(bank, queries, k=k, exclude_self=exclude_self, block=block)
    return similarity, index


def weighted_knn(
    bank: Float[Array | NumpyArray, "n d"],
    bank_labels: Int[Array | NumpyArray, "n"],
    queries: Float[Array | NumpyArray, "m d"],
    *,
    classes: int,
    k: int = 200,
    temperature: float | Float[Array, ""] = 0.07,
    exclude_self: bool = False,
    block: int = 256,
) -> Int[Array, "m"]:
    """Class of each query by the vote of its k nearest rows, each weighing exp(similarity / T).

    Rows are normalised here, so their length does not matter. Weights are taken relative to the
    nearest row, so no temperature overflows. Equal scores go to the lowest class id. A row of
    the bank labelled -1 takes a neighbour's place but has no vote.

    Args:
      bank: [n, d] labelled features.
      bank_labels: [n] class ids in [0, classes).
      queries: [m, d] features to classify.
      classes: number of classes.
      k: neighbours that vote; capped at the size of the bank. 200 is InstDisc's and DINO's.
      temperature: positive; smaller listens more to the nearest.
      exclude_self: `queries` is the bank; row i does not vote for itself.
      block: queries handled at a time; memory is O(block * n).

    Returns:
      [m] int32 predicted class ids.

    Raises:
      ValueError: as `nearest`.
    """
    k = _usable_neighbours(bank, queries, k, exclude_self)
    predictions: Array = _weighted_knn(
        bank,
        bank_labels,
        queries,
        temperature,
        classes=classes,
        k=k,
        exclude_self=exclude_self,
        block=block,
    )
    return predictions


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
    block: int = 256,
) -> Float[Array, ""]:
    """Share of queries that `weighted_knn` classifies rightly, in percent; arguments as there."""
    predictions = weighted_knn(
        bank,
        bank_labels,
        queries,
        classes=classes,
        k=k,
        temperature=temperature,
        exclude_self=exclude_self,
        block=block,
    )
    return 100 * jnp.mean(predictions == labels, dtype=jnp.float32)


def _usable_neighbours(
    bank: Array | NumpyArray, queries: Array | NumpyArray, k: int, exclude_self: bool
) -> int:
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(f"bank has {bank.shape[1]} columns and queries {queries.shape[1]}")
    if exclude_self and bank.shape != queries.shape:
        raise ValueError(
            f"exclude_self needs queries to be the bank, got {queries.shape} and {bank.shape}"
        )
    usable = min(k, len(bank) - exclude_self)
    if usable < 1:
        raise ValueError(f"k={k} neighbours of {len(bank)} rows, exclude_self={exclude_self}")
    return usable


@partial(jax.jit, static_argnames=("k", "exclude_self", "block"))
def _nearest(
    bank: Array, queries: Array, *, k: int, exclude_self: bool, block: int
) -> tuple[Array, Array]:
    bank = unit_rows(bank)
    search = partial(_search, bank, k=k, exclude_self=exclude_self)
    similarity, index = _over_blocks(search, queries, block)
    return similarity, index


@partial(jax.jit, static_argnames=("classes", "k", "exclude_self", "block"))
def _weighted_knn(
    bank: Array,
    bank_labels: Array,
    queries: Array,
    temperature: Array,
    *,
    classes: int,
    k: int,
    exclude_self: bool,
    block: int,
) -> Array:
    bank = unit_rows(bank)

    def classify(rows: Array, ids: Array) -> Array:
        similarity, index = _search(bank, rows, ids, k=k, exclude_self=exclude_self)
        weight = jnp.exp((similarity - similarity[:, :1]) / temperature)  # [b, k], the first is 1
        # A compare-and-sum that XLA fuses: no [b, k, classes] array, and a fixed order of sums.
        votes = bank_labels[index][:, :, None] == jnp.arange(classes)
        score = jnp.sum(jnp.where(votes, weight[:, :, None], 0), axis=1)
        return jnp.argmax(score, axis=1).astype(jnp.int32)

    predictions: Array = _over_blocks(classify, queries, block)
    return predictions


def _search(
    unit_bank: Array, rows: Array, ids: Array, *, k: int, exclude_self: bool
) -> tuple[Array, Array]:
    similarity = jnp.matmul(unit_rows(rows), unit_bank.T, precision=jax.lax.Precision.HIGHEST)
    if exclude_self:
        own = ids[:, None] == jnp.arange(len(unit_bank))
        similarity = jnp.where(own, -2.0, similarity)  # below any cosine
    # Without the barrier XLA on CPU turns a top_k whose result is sliced later into a full sort of
    # the bank for each query (jax 0.10 and 0.12; 100 times slower at 50,000 rows).
    # One barrier each: one of a tuple stops the compiler where devices are several (jax 0.10).
    similarity, index = jax.lax.top_k(similarity, k)
    return jax.lax.optimization_barrier(similarity), jax.lax.optimization_barrier(index)


def _over_blocks(fn: Callable[[Array, Array], PyTree], queries: Array, block: int) -> PyTree:
    """`fn(rows, row ids)` over blocks of queries, one after the other, without the padding."""
    rows, width = queries.shape
    block = max(1, min(block, rows))
    blocks = -(-rows // block)
    padded = jnp.pad(queries, ((0, blocks * block - rows), (0, 0)))
    ids = jnp.arange(blocks * block).reshape(blocks, block)
    out = jax.lax.map(lambda at: fn(*at), (padded.reshape(blocks, block, width), ids))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], out)
