"""Retrieval by identity: mAP and CMC, with the camera filter of re-identification.

    AP of a query   mean over its matches of the share of matches among the ranks up to theirs
    mAP             mean of AP over the queries
    CMC at rank k   share of queries with a match among the first k of the ranked gallery

The gallery is ranked by cosine, which is the order of Euclidean distances of unit rows. Images of a
query's identity from the query's own camera are left out of its gallery: they are too easy.

Reference: Zheng et al. 2015, "Scalable person re-identification: a benchmark" (Market-1501).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcl.errors import UserError
from jaxcl.typing import Float, Int, NumpyArray

QUERIES_AT_ONCE = 256
"""Queries whose similarities to the gallery are held at a time."""


class Retrieval(NamedTuple):
    """Scores over the queries that have a match left in their gallery."""

    mean_average_precision: float
    """mAP, percent."""
    cmc: dict[int, float]
    """By rank k, share of queries with a match among the first k, percent."""
    queries: int
    """Number of queries that have a match, over which the means are taken."""


def retrieval(
    queries: Float[NumpyArray, "m d"],
    query_ids: Int[NumpyArray, "m"],
    gallery: Float[NumpyArray, "n d"],
    gallery_ids: Int[NumpyArray, "n"],
    *,
    query_cameras: Int[NumpyArray, "m"] | None = None,
    gallery_cameras: Int[NumpyArray, "n"] | None = None,
    ranks: Sequence[int] = (1, 5, 10),
) -> Retrieval:
    """mAP and CMC of queries against a gallery.

    Args:
      queries: [m, d] features; only their directions matter.
      query_ids: [m] identities.
      gallery: [n, d] features to search.
      gallery_ids: [n] identities; rows labelled -1 are distractors, which match nobody.
      query_cameras: [m] camera of each query; given together with `gallery_cameras`, gallery rows
        of the same identity and the same camera are left out. None: nothing is left out.
      gallery_cameras: [n] camera of each gallery row.
      ranks: ranks k of the CMC.

    Returns:
      Scores in percent. Queries without a match are left out; equal similarities keep the order
      of the gallery.

    Raises:
      ValueError: cameras are given for one side only.
      UserError: no query has a match.
    """
    if (query_cameras is None) != (gallery_cameras is None):
        raise ValueError("query_cameras and gallery_cameras are given together or not at all")
    queries, gallery = _unit(queries), _unit(gallery)
    precisions: list[float] = []
    firsts: list[int] = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        similarities = queries[start : start + QUERIES_AT_ONCE] @ gallery.T
        for i, similarity in enumerate(similarities, start):
            match = (gallery_ids == query_ids[i]) & (gallery_ids >= 0)
            order = np.argsort(-similarity, kind="stable")
            if query_cameras is not None and gallery_cameras is not None:
                order = order[~(match & (gallery_cameras == query_cameras[i]))[order]]
            places = np.flatnonzero(match[order])  # of the matches, from 0
            if len(places):
                precisions.append(float(np.mean(np.arange(1, len(places) + 1) / (places + 1))))
                firsts.append(int(places[0]))
    if not precisions:
        raise UserError("no query has a match in the gallery; are identities and cameras right?")
    cmc = {rank: 100 * float(np.mean(np.array(firsts) < rank)) for rank in ranks}
    return Retrieval(100 * float(np.mean(precisions)), cmc, len(precisions))


def _unit(x: Float[NumpyArray, "n d"]) -> Float[NumpyArray, "n d"]:
    x = np.asarray(x, np.float64)
    unit: NumpyArray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return unit
