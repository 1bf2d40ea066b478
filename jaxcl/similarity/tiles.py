"""All pairs of two sets of rows, visited tile by tile.

A tile is the part of the [n, m] matrix of dot products that belongs to one run of queries and one
run of keys. No more than one exists at a time, so memory grows with the rows, not with the pairs.
Of one set of rows with itself the matrix is symmetric: `triangle` visits each pair of runs once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.typing import Array, Bool, Float, Int, NumpyArray, PyTree

MASKED = -1e9
"""Stands for minus infinity: finite, so that a fully masked row has no NaN gradient."""


class Rows(NamedTuple):
    """One side of the pairs."""

    x: Float[Array, "n d"]
    bias: Float[Array, "n"]
    """Added to the logits of this row as a key; MASKED hides it."""
    ids: Int[Array, "n"] | None
    """Rows with equal ids do not see each other; None: all do."""
    groups: Int[Array, "n"] | None = None
    """Rows of different groups do not see each other; None: all do."""


@dataclass(frozen=True)
class Tiling:
    """How two sets of rows are cut into runs."""

    n: int
    m: int
    rows: int
    """Queries of a tile."""
    columns: int
    """Keys of a tile."""
    triangle: bool = False
    """The keys are the queries; only tiles on and above the diagonal are visited."""

    @classmethod
    def of(cls, n: int, m: int, *, most: int, triangle: bool = False) -> "Tiling":
        """Tiles of at most `most` rows and columns (to the next eight), as equal as can be."""
        return cls(n, m, _run(n, most), _run(m, most), triangle)

    @property
    def places(self) -> Int[NumpyArray, "t 2"]:
        """For each tile, the number of its run of queries and of its run of keys."""
        down, across = -(-self.n // self.rows), -(-self.m // self.columns)
        tiles = [(i, j) for i in range(down) for j in range(i if self.triangle else 0, across)]
        return np.array(tiles, np.int32).reshape(-1, 2)


class Tile(NamedTuple):
    """What a visit sees."""

    logits: Float[Array, "t u"]
    """Scaled dot products, float32, without biases."""
    hidden: Bool[Array, "t u"] | None
    """Pairs that do not see each other; None: all do."""
    q: Rows
    k: Rows
    per_query: tuple[Float[Array, "t"], ...]
    per_key: tuple[Float[Array, "u"], ...]

    def shown(self, x: Float[Array, "t u"], otherwise: float = 0.0) -> Float[Array, "t u"]:
        """`x` where the pair counts."""
        return x if self.hidden is None else jnp.where(self.hidden, otherwise, x)


Visit = Callable[[Tile], tuple[PyTree, PyTree]]


def sweep(
    tiling: Tiling,
    q: Rows,
    k: Rows,
    scale: Float[Array, ""],
    visit: Visit,
    *,
    per_query: tuple[Array, ...] = (),
    per_key: tuple[Array, ...] = (),
    join: Callable[[Array, Array], Array] = jnp.add,
    neutral: float = 0.0,
) -> tuple[PyTree, PyTree]:
    """Visits every tile, and joins what the visits give to each query and to each key.

    Args:
      tiling: of the two sides.
      q, k: the sides; in a triangle both are the same.
      scale: factor of the dot products.
      visit: from a tile to what its queries ([t, ...] each) and its keys ([u, ...] each) get. In a
        triangle both are shaped alike, and a tile off the diagonal stands for its mirror image too.
      per_query, per_key: [n] and [m] numbers that the visits want to see; 0 for hidden rows that
        fill up the last tile.
      join: how two gains become one.
      neutral: what `join` leaves the other gain as it is with.

    Returns:
      what the queries got, [n, ...] each, and the keys, [m, ...] each; in a triangle twice the same
      tree, with both in it.
    """
    q_side = hidden_behind((q, per_query), -tiling.n % tiling.rows)
    k_side = hidden_behind((k, per_key), -tiling.m % tiling.columns)

    def tile(place: Array) -> tuple[PyTree, PyTree]:
        q_run, rows = _cut(q_side, place[0] * tiling.rows, tiling.rows)
        k_run, columns = _cut(k_side, place[1] * tiling.columns, tiling.columns)
        logits = scale * dots(q_run.x, k_run.x)
        return visit(Tile(logits, hidden(q_run, k_run), q_run, k_run, rows, columns))

    def both(gained: tuple[PyTree, PyTree], place: Array) -> tuple[tuple[PyTree, PyTree], None]:
        to_q, to_k = tile(place)
        first = _join_at(gained[0], to_q, place[0] * tiling.rows, join)
        return (first, _join_at(gained[1], to_k, place[1] * tiling.columns, join)), None

    def mirrored(gained: PyTree, place: Array) -> tuple[PyTree, None]:
        to_q, to_k = tile(place)
        gained = _join_at(gained, to_q, place[0] * tiling.rows, join)
        above = place[0] != place[1]
        to_k = jax.tree.map(lambda gain: jnp.where(above, gain, neutral), to_k)
        return _join_at(gained, to_k, place[1] * tiling.columns, join), None

    places = jnp.asarray(tiling.places)
    to_q, to_k = jax.eval_shape(tile, places[0])
    nothing = (_full(to_q, len(q_side[0].x), neutral), _full(to_k, len(k_side[0].x), neutral))
    if tiling.triangle:
        total, _ = jax.lax.scan(mirrored, nothing[0], places)
        gained = (total, total)
    else:
        gained, _ = jax.lax.scan(both, nothing, places)
    return (
        jax.tree.map(lambda x: x[: tiling.n], gained[0]),
        jax.tree.map(lambda x: x[: tiling.m], gained[1]),
    )


def hidden(q: Rows, k: Rows) -> Bool[Array, "n m"] | None:
    """Pairs that do not see each other, biases aside; None: all do."""
    pairs = None
    if q.ids is not None and k.ids is not None:
        pairs = q.ids[:, None] == k.ids[None, :]
    if q.groups is not None and k.groups is not None:
        apart = q.groups[:, None] != k.groups[None, :]
        pairs = apart if pairs is None else pairs | apart
    return pairs


def masked_logits(q: Rows, k: Rows, scale: float | Float[Array, ""]) -> Float[Array, "n m"]:
    """The whole matrix, biases in it; MASKED where a pair does not count."""
    unseen = (k.bias <= MASKED / 2)[None, :]
    apart = hidden(q, k)
    unseen = unseen if apart is None else unseen | apart
    return jnp.where(unseen, MASKED, scale * dots(q.x, k.x) + k.bias)


def dots(q: Float[Array, "n d"], k: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """All dot products; float32 sums, and float32 products unless the rows have fewer bits."""
    return jnp.matmul(q, k.T, preferred_element_type=_sums(q), precision="highest")


def product(g: Float[Array, "t u"], x: Float[Array, "u d"]) -> Float[Array, "t d"]:
    """`g @ x`, summed in float32; products in the rows' own type, which may be the fast one."""
    return jnp.matmul(g.astype(x.dtype), x, preferred_element_type=_sums(x), precision="highest")


def _sums(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _run(count: int, most: int) -> int:
    runs = max(1, -(-count // most))
    return count if runs == 1 else -(-count // (8 * runs)) * 8


def hidden_behind(
    side: tuple[Rows, tuple[Array, ...]], extra: int
) -> tuple[Rows, tuple[Array, ...]]:
    """The side with `extra` rows at its end that nobody sees."""
    if not extra:
        return side

    def padded(x: Array, value: float) -> Array:
        return jnp.pad(x, ((0, extra),) + ((0, 0),) * (x.ndim - 1), constant_values=value)

    rows, numbers = side
    ids, groups = (None if x is None else padded(x, -1) for x in (rows.ids, rows.groups))
    rows = Rows(padded(rows.x, 0), padded(rows.bias, MASKED), ids, groups)
    return rows, tuple(padded(x, 0) for x in numbers)


def _cut(side: PyTree, start: Array, size: int) -> PyTree:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), side)


def _full(tree: PyTree, count: int, value: float) -> PyTree:
    return jax.tree.map(lambda x: jnp.full((count, *x.shape[1:]), value, x.dtype), tree)


def _join_at(
    total: PyTree, gain: PyTree, start: Array, join: Callable[[Array, Array], Array]
) -> PyTree:
    def one(total: Array, gain: Array) -> Array:
        before = jax.lax.dynamic_slice_in_dim(total, start, len(gain))
        return jax.lax.dynamic_update_slice_in_dim(total, join(before, gain), start, 0)

    return jax.tree.map(one, total, gain)
