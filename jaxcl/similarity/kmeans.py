"""k-means on the device, of points or of directions.

Distances are made for a run of points at a time, so that memory grows with the points and not
with points times clusters; under a mesh with an axis "data" each run is spread over it.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxcl.similarity.rows import unit_rows
from jaxcl.typing import Array, Bool, Float, Int, Key, PyTree

TOGETHER = 2**24
"""Distances that a device holds at a time."""

OVER_DEVICES = PartitionSpec(None, "data")
"""Where runs of points lie."""

CLOSEST, FARTHEST = 1e-30, 1e30
"""Squared distances between which the chances of first centroids tell points apart."""


class Clusters(NamedTuple):
    """What k-means found."""

    centroids: Float[Array, "k d"]
    assignments: Int[Array, "n"]
    """The nearest centroid of every point, the lowest of several."""
    objective: Float[Array, ""]
    """Sum of the squared distances of the points to their centroids; of unit rows if spherical."""


@partial(jax.jit, static_argnames=("k", "restarts", "spherical", "beginning", "empty"))
def kmeans(
    x: Float[Array, "n d"],
    k: int,
    key: Key,
    iterations: int | Int[Array, ""] = 25,
    *,
    restarts: int = 1,
    spherical: bool = False,
    seen: Bool[Array, "n"] | None = None,
    beginning: Literal["spread", "random"] = "spread",
    empty: Literal["farthest", "keep"] = "farthest",
) -> Clusters:
    """Centroids that are near to all points: each iteration assigns points, then takes means.

    The objective never rises from one iteration to the next.

    Args:
      x: [n, d] points, any float type; computed in float32.
      k: number of clusters, at most n.
      key: of the first centroids.
      iterations: how often points are assigned and centroids moved; they are assigned once more
        at the end.
      restarts: runs from other first centroids, of which the one with the lowest objective counts.
      spherical: compare directions: rows of `x` and centroids are scaled to length 1.
      seen: [n] points that count; others are assigned, but move no centroid. None: all do.
      beginning: first centroids are points, "spread" as k-means++ draws them, each with a chance
        that grows with the squared distance to those before, or any k points.
      empty: a centroid without points jumps to the point "farthest" from its centroid, or is
        kept where it is ("keep").

    Returns:
      centroids [k, d] float32, assignments [n] int32, objective [] float32.

    Raises:
      ValueError: `k` is below 1 or more than the points, or no run is asked for.

    Reference: Lloyd 1982; Arthur & Vassilvitskii 2007 (k-means++); Dhillon & Modha 2001
    (spherical).
    """
    if not 1 <= k <= len(x) or restarts < 1:
        raise ValueError(f"k={k} clusters of {len(x)} points in restarts={restarts} runs")
    x = x.astype(jnp.float32)
    seen = jnp.ones(len(x), bool) if seen is None else seen
    x = jnp.where(seen[:, None] | jnp.isfinite(x), x, 0.0)
    middle = jnp.zeros(x.shape[1], x.dtype)
    if spherical:
        x = unit_rows(x)
    else:  # far from the origin differences of squares would lose their digits
        middle = jnp.sum(jnp.where(seen[:, None], x, 0.0), axis=0) / jnp.maximum(seen.sum(), 1)
        x = x - middle
    begin = _spread_points if beginning == "spread" else _random_points

    def run(key: Key) -> Clusters:
        return _lloyd(x, seen, begin(x, seen, k, key), iterations, spherical, empty)

    if restarts == 1:
        best = run(key)
    else:
        runs = jax.lax.map(run, jax.random.split(key, restarts))
        best = jax.tree.map(lambda values: values[jnp.argmin(runs.objective)], runs)
    return best._replace(centroids=best.centroids + middle)


def _lloyd(
    x: Float[Array, "n d"],
    seen: Bool[Array, "n"],
    centroids: Float[Array, "k d"],
    iterations: int | Int[Array, ""],
    spherical: bool,
    empty: str,
) -> Clusters:
    def move(number: Array, centroids: Array) -> Array:
        sums, counts, _, distances = _assign(x, seen, centroids)
        means = unit_rows(sums) if spherical else sums / jnp.maximum(counts, 1)[:, None]
        if spherical:  # members that cancel out point nowhere
            counts = jnp.where(jnp.any(means != 0, axis=1), counts, 0)
        vacant = centroids
        if empty == "farthest":
            far, points = jax.lax.top_k(jnp.where(seen, distances, 0.0), len(centroids))
            place = jnp.maximum(jnp.cumsum(counts == 0) - 1, 0)
            vacant = jnp.where(far[place][:, None] > 0, x[points[place]], centroids)
        return jnp.where(counts[:, None] > 0, means, vacant)

    centroids = jax.lax.fori_loop(0, iterations, move, centroids)
    _, _, assignments, distances = _assign(x, seen, centroids)
    return Clusters(centroids, assignments, jnp.sum(jnp.where(seen, distances, 0.0)))


def _assign(
    x: Float[Array, "n d"], seen: Bool[Array, "n"], centroids: Float[Array, "k d"]
) -> tuple[Float[Array, "k d"], Float[Array, "k"], Int[Array, "n"], Float[Array, "n"]]:
    """Sum and number of each cluster's points; each point's cluster and its squared distance."""
    n, k = len(x), len(centroids)
    half_squares = jnp.sum(centroids * centroids, axis=1) / 2

    def one(total: tuple[Array, Array], run: tuple[Array, Array]) -> tuple[Any, Any]:
        points, counted = run
        products = jnp.matmul(points, centroids.T, precision="highest")
        own = jnp.argmin(half_squares - products, axis=1).astype(jnp.int32)
        distances = jnp.sum(jnp.square(points - centroids[own]), axis=1)
        # A product and not a scatter: the order of its sums does not depend on chance.
        members = jax.nn.one_hot(own, k, dtype=x.dtype) * counted[:, None]
        sums = total[0] + jnp.matmul(members.T, points, precision="highest")
        return (sums, total[1] + jnp.sum(members, axis=0)), (own, distances)

    nothing = (jnp.zeros_like(centroids), jnp.zeros(k, x.dtype))
    (sums, counts), (own, distances) = jax.lax.scan(one, nothing, _runs((x, seen), n, k))
    return sums, counts, own.reshape(-1)[:n], distances.reshape(-1)[:n]


def _runs(points: PyTree, n: int, k: int) -> PyTree:
    """The points in runs, [runs, together, ...] each, zeros at the end; runs over all devices."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = mesh.shape.get("data", 1)
    each = -(-n // devices)
    count = max(1, -(-each * k // TOGETHER))
    together = -(-each // count) * devices

    def cut(x: Array) -> Array:
        x = jnp.pad(x, ((0, count * together - n),) + ((0, 0),) * (x.ndim - 1))
        x = x.reshape(count, together, *x.shape[1:])
        return x if devices == 1 else jax.lax.with_sharding_constraint(x, OVER_DEVICES)

    return jax.tree.map(cut, points)


def _random_points(
    x: Float[Array, "n d"], seen: Bool[Array, "n"], k: int, key: Key
) -> Float[Array, "k d"]:
    """Any k different points that are seen."""
    order = jnp.where(seen, jax.random.uniform(key, seen.shape, x.dtype), -1.0)
    return x[jax.lax.top_k(order, k)[1]]


def _spread_points(
    x: Float[Array, "n d"], seen: Bool[Array, "n"], k: int, key: Key
) -> Float[Array, "k d"]:
    """k points, each with a chance in proportion to its squared distance to those before it."""

    def draw(i: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, distances = so_far
        chances = jnp.where(seen, jnp.log(jnp.clip(distances, CLOSEST, FARTHEST)), -jnp.inf)
        point = x[jax.random.categorical(jax.random.fold_in(key, i), chances)]
        distances = jnp.minimum(distances, jnp.sum(jnp.square(x - point), axis=1))
        return centroids.at[i].set(point), distances

    # Before the first one, all points are equally far.
    nothing = (jnp.zeros((k, x.shape[1]), x.dtype), jnp.full(len(x), jnp.inf, x.dtype))
    centroids, _ = jax.lax.fori_loop(0, k, draw, nothing)
    drawn: Array = centroids
    return drawn
