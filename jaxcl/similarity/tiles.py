"""All pairs of two sets of rows, visited tile by tile.

A tile is the part of the [n, m] matrix of dot products that belongs to one run of queries and one
run of keys. No more than one exists at a time, so memory grows with the rows, not with the pairs.
Rows that count as directions are scaled as they are read, and views that come in several arrays
meet in the tiles, so neither is there twice. Rows of 16 bits stay such in all products, where
accelerators are many times as fast; it is the products that are then scaled. Of one set of rows
with itself the matrix is symmetric: `triangle` visits each pair of runs once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.similarity.rows import Lengths, short
from jaxcl.typing import Array, Bool, Float, Int, NumpyArray, PyTree

MASKED = -1e9
"""Stands for minus infinity: finite, so that a fully masked row has no NaN gradient."""


class Rows(NamedTuple):
    """Rows with what decides which of them see each other."""

    x: Float[Array, "n d"]
    bias: Float[Array, "n"]
    """Added to the logits of this row as a key; MASKED hides it."""
    ids: Int[Array, "n"] | None
    """Rows with equal ids do not see each other; None: all do."""
    groups: Int[Array, "n"] | None = None
    """Rows of different groups do not see each other; None: all do."""
    lengths: Lengths | None = None
    """Given: the rows count as directions, `lengths.divide(x)`; None: as they are."""
    factor: Float[Array, "n"] | None = None
    """Of this row in all its products; None: 1."""

    def read(self) -> "Rows":
        """As products take them: 16 bits stay 16 bits, and a factor is left."""
        if self.lengths is None:
            return self
        if short(self.x):
            x, factor = self.lengths.apart(self.x)
            return self._replace(x=x, lengths=None, factor=factor)
        return self._replace(x=self.seen(), lengths=None)

    def seen(self) -> Float[Array, "n d"]:
        """The rows as the pairs see them."""
        return self.x if self.lengths is None else self.lengths.divide(self.x)


Side = tuple[Rows, ...]
"""One side of the pairs: one array of rows, or several of equal length, the views of n examples."""


@dataclass(frozen=True)
class Tiling:
    """How two sides are cut into runs, in all their views at the same places."""

    n: int
    m: int
    rows: int
    """Queries of a tile, of each view."""
    columns: int
    """Keys of a tile, of each view."""
    triangle: bool = False
    """The keys are the queries; only tiles on and above the diagonal are visited."""
    kernels: bool = False
    """Tiles are visited by kernels of a GPU."""

    @classmethod
    def of(
        cls, q: Side, k: Side, *, most: int, triangle: bool = False, kernels: bool = False
    ) -> "Tiling":
        """Tiles of at most `most` rows and columns (to the next eight), as equal as can be."""
        n, m = len(q[0].x), len(k[0].x)
        return cls(n, m, _run(n, len(q), most), _run(m, len(k), most), triangle, kernels)

    @property
    def places(self) -> Int[NumpyArray, "t 2"]:
        """For each tile, the number of its run of queries and of its run of keys."""
        down, across = -(-self.n // self.rows), -(-self.m // self.columns)
        tiles = [(i, j) for i in range(down) for j in range(i if self.triangle else 0, across)]
        return np.array(tiles, np.int32).reshape(-1, 2)


class Pairs(NamedTuple):
    """What a visit sees: all pairs of a tile, or a block of them."""

    logits: Float[Array, "t u"]
    """Scaled dot products, float32, without biases."""
    hidden: Bool[Array, "t u"] | None
    """Pairs that do not see each other; None: all do."""
    q: Rows
    """Without the rows themselves."""
    k: Rows
    per_query: tuple[Float[Array, "t"], ...]
    per_key: tuple[Float[Array, "u"], ...]

    def shown(self, x: Float[Array, "t u"], otherwise: float = 0.0) -> Float[Array, "t u"]:
        """`x` where the pair counts."""
        return x if self.hidden is None else jnp.where(self.hidden, otherwise, x)


class Found(NamedTuple):
    """What a visit finds."""

    queries: PyTree = None
    """[t] numbers of each query."""
    keys: PyTree = None
    """[u] numbers of each key; in a triangle like those of the queries."""
    slope: Float[Array, "t u"] | None = None
    """Gradient of each logit, in a backward sweep."""


Visit = Callable[[Pairs], Found]
Run = tuple[Rows, tuple[Array, ...]]
"""Some rows of a side, and numbers of each that visits want to see."""
Join = Callable[[Array, Array], Array]
Numbers = tuple[tuple[Array, ...], ...]
"""For each view of a side, some numbers of each row; () for none."""


def sweep(
    tiling: Tiling,
    q: Side,
    k: Side,
    scale: Float[Array, ""],
    visit: Visit,
    *,
    per_query: Numbers = (),
    per_key: Numbers = (),
    join: Join = jnp.add,
    neutral: float = 0.0,
    keys: bool = True,
) -> tuple[PyTree, PyTree]:
    """Visits every tile, and joins what is found for each query and for each key.

    Args:
      tiling: of the two sides.
      q, k: the sides; in a triangle both are the same.
      scale: factor of the dot products.
      visit: from pairs to what is found of them. In a triangle a tile off the diagonal stands for
        its mirror image too.
      per_query, per_key: [n] and [m] numbers of each view that the visits want to see.
      join: how two findings become one.
      neutral: what `join` leaves the other finding as it is with.
      keys: the keys' gradients are wanted, in a backward sweep.

    Returns:
      what each view of the queries got, [n] each, and of the keys, [m] each; in a backward sweep
      ([n, d] gradient of the rows as the pairs see them, over the scale, and the numbers found)
      and likewise. In a triangle twice the same, with both in it.
    """
    sides = Runs.of(q, per_query, tiling.rows), Runs.of(k, per_key, tiling.columns)
    look = at_once
    if tiling.kernels:  # Pallas is slow to import, and few need it.
        from jaxcl.similarity.pallas_gpu import in_blocks

        look = partial(in_blocks, join=join, neutral=neutral)

    def tile(place: Array) -> list[PyTree]:
        """What each view of the run of queries gets, and of the run of keys."""
        of_q, of_k = (side.at(i) for side, i in zip(sides, place, strict=True))
        found = look(visit, of_q, of_k, scale)
        gains = found.queries, found.keys
        if found.slope is not None:
            q_run, k_run = of_q[0], of_k[0]
            to_q = over_factor(product(found.slope, k_run.x), q_run)
            gains = (to_q, found.queries), None
            if keys:
                to_k = over_factor(product_across(found.slope, q_run.x), k_run)
                gains = gains[0], (to_k, found.keys)
        return [
            by_view(side.fresh(gain, i, neutral), len(side.x))
            for side, gain, i in zip(sides, gains, place, strict=True)
        ]

    def joined(total: PyTree, gain: PyTree, start: Array) -> PyTree:
        def one(total: Array, gain: Array) -> Array:
            before = jax.lax.dynamic_slice_in_dim(total, start, len(gain))
            return jax.lax.dynamic_update_slice_in_dim(total, join(before, gain), start, 0)

        return jax.tree.map(one, total, gain)

    def both(gained: PyTree, place: Array) -> tuple[PyTree, None]:
        starts = (side.starts[i] for side, i in zip(sides, place, strict=True))
        return tuple(map(joined, gained, tile(place), starts)), None

    def mirrored(gained: PyTree, place: Array) -> tuple[PyTree, None]:
        to_q, to_k = tile(place)
        gained = joined(gained, to_q, sides[0].starts[place[0]])
        above = place[0] != place[1]
        to_k = jax.tree.map(lambda gain: jnp.where(above, gain, neutral), to_k)
        return joined(gained, to_k, sides[1].starts[place[1]]), None

    def nothing(gain: PyTree, count: int) -> PyTree:
        return jax.tree.map(lambda x: jnp.full((count, *x.shape[1:]), neutral, x.dtype), gain)

    places = jnp.asarray(tiling.places)
    to_q, to_k = jax.eval_shape(tile, places[0])
    at_first = nothing(to_q, tiling.n), nothing(to_k, tiling.m)
    if tiling.triangle:
        total, _ = jax.lax.scan(mirrored, at_first[0], places)
        return total, total
    gained, _ = jax.lax.scan(both, at_first, places)
    return gained


def at_once(visit: Visit, of_q: Run, of_k: Run, scale: Float[Array, ""]) -> Found:
    """What `visit` finds of a tile; the slope is that of the rows' own products."""
    return found_of(visit, scale * dots(of_q[0].x, of_k[0].x), of_q, of_k)


def found_of(visit: Visit, products: Float[Array, "t u"], of_q: Run, of_k: Run) -> Found:
    """What `visit` finds of pairs, from the scaled products of their rows."""
    (q, per_query), (k, per_key) = of_q, of_k
    logits = factored(products, q, k)
    found = visit(Pairs(logits, hidden(q, k), q, k, per_query, per_key))
    slope = None if found.slope is None else factored(found.slope, q, k)
    return found._replace(slope=slope)


def factored(x: Float[Array, "t u"], q: Rows, k: Rows) -> Float[Array, "t u"]:
    """What belongs to pairs, times the factors of both sides."""
    if q.factor is None or k.factor is None:
        return x
    return x * (q.factor[:, None] * k.factor[None, :])


def over_factor(x: Float[Array, "t d"], rows: Rows) -> Float[Array, "t d"]:
    """What belongs to rows, over their factor."""
    return x if rows.factor is None else x / rows.factor[:, None]


class Runs(NamedTuple):
    """A side in runs of rows; the last one ends where the side does."""

    x: tuple[Float[Array, "n d"], ...]
    """Each view."""
    marks: tuple[Any, ...]
    """The other fields of `Rows`, [r, t], in each run one view after the other."""
    numbers: tuple[Float[Array, "r t"], ...]
    starts: Int[Array, "r"]
    again: Bool[Array, "r t"] | None
    """Rows that the run before has as well, which count nothing here; None: there are none."""

    @classmethod
    def of(cls, side: Side, numbers: Numbers, size: int) -> "Runs":
        """Runs of `size` rows of each view."""
        count, views = len(side[0].x), len(side)
        nominal = np.arange(0, count, size)
        starts = np.minimum(nominal, count - size)
        places = starts[:, None] + np.arange(size)

        def laid_out(*views: Array) -> Array:
            # Once for all tiles: told to do it in each, XLA looks up the view for each pair.
            runs = [x.reshape(-1, size) if not count % size else x[places] for x in views]
            return jnp.concatenate(runs, axis=1)

        again = jnp.asarray(np.tile(places < nominal[:, None], views)) if count % size else None
        bias, *others = jax.tree.map(laid_out, *(rows[1:] for rows in side))
        given = jax.tree.map(laid_out, *(numbers or ((),) * views))
        if again is not None:
            bias = jnp.where(again, MASKED, bias)
            given = jax.tree.map(lambda x: jnp.where(again, 0, x), given)
        x = tuple(rows.x for rows in side)
        return cls(x, (bias, *others), given, jnp.asarray(starts), again)

    def at(self, run: Array) -> Run:
        """Rows of a run as the pairs see them, all views, and their numbers."""
        marks, numbers = jax.tree.map(lambda x: x[run], (self.marks, self.numbers))
        size = self.marks[0].shape[1] // len(self.x)
        x = [jax.lax.dynamic_slice_in_dim(view, self.starts[run], size) for view in self.x]
        rows = Rows(jnp.concatenate(x), *marks)
        return rows.read(), numbers

    def fresh(self, gain: PyTree, run: Array, neutral: float) -> PyTree:
        """The gains of a run without those of rows that it has again."""
        if self.again is None:
            return gain
        again = self.again[run]
        return jax.tree.map(
            lambda x: jnp.where(again.reshape(-1, *[1] * (x.ndim - 1)), neutral, x), gain
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
    return jnp.matmul(q, k.T, preferred_element_type=_sums(q), precision=precision(q))


def product(g: Float[Array, "t u"], x: Float[Array, "u d"]) -> Float[Array, "t d"]:
    """`g @ x`, summed in float32; products in the rows' own type, which may be the fast one."""
    return jnp.matmul(g.astype(x.dtype), x, preferred_element_type=_sums(x), precision=precision(x))


def product_across(g: Float[Array, "t u"], x: Float[Array, "t d"]) -> Float[Array, "u d"]:
    """`g.T @ x`, likewise, with no column of `g` read by itself.

    XLA on CPU takes twice as long for the plain form of tiles whose sides are powers of two, and
    would bring this one back to it but for the barriers (jax 0.10 and 0.12).
    """
    across = jax.lax.optimization_barrier(x.T)
    found = jnp.matmul(
        across, g.astype(x.dtype), preferred_element_type=_sums(x), precision=precision(x)
    )
    transposed: Array = jax.lax.optimization_barrier(found).T
    return transposed


def precision(x: Array) -> jax.lax.Precision:
    """Of products with such numbers: in full, whatever the chip would rather do with float32."""
    return jax.lax.Precision.DEFAULT if short(x) else jax.lax.Precision.HIGHEST


def _sums(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _run(count: int, views: int, most: int) -> int:
    """Rows of one view in a run of at most `most` (to the next eight) of all views."""
    runs = max(1, -(-count * views // most))
    unit = max(1, 8 // views)
    return min(count, -(-count // (unit * runs)) * unit)


def whole(side: Side) -> Rows:
    """All views in one array as the pairs see them, in the order of `side_by_side`."""
    views = [rows._replace(x=rows.seen(), lengths=None) for rows in side]
    joined: Rows = side_by_side(views)
    return joined


def side_by_side(views: Sequence[PyTree]) -> PyTree:
    """What belongs to each view in one array, all of an example together.

    So it stays on the device that has the example: over a mesh nothing moves.
    """

    def together(*parts: Array) -> Array:
        return jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])

    return jax.tree.map(together, *views)


def views_of(tree: PyTree, count: int) -> tuple[PyTree, ...]:
    """What belongs to each of `count` views that lie `side_by_side`."""
    parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), tree)
    return tuple(jax.tree.map(lambda x, view=view: x[:, view], parts) for view in range(count))


def hidden_behind(
    side: tuple[Rows, tuple[Array, ...]], extra: int
) -> tuple[Rows, tuple[Array, ...]]:
    """Rows and their numbers with `extra` rows at their end that nobody sees."""
    if not extra:
        return side

    def padded(x: Array, value: float) -> Array:
        return jnp.pad(x, ((0, extra),) + ((0, 0),) * (x.ndim - 1), constant_values=value)

    rows, numbers = side
    ids, groups = jax.tree.map(lambda x: padded(x, 0), (rows.ids, rows.groups))
    scaled = jax.tree.map(lambda x: padded(x, 1), (rows.lengths, rows.factor))
    rows = Rows(padded(rows.x, 0), padded(rows.bias, MASKED), ids, groups, *scaled)
    return rows, tuple(padded(x, 0) for x in numbers)


def in_place(
    change: Callable[[PyTree, PyTree], PyTree], beside: PyTree, gained: PyTree, size: int = 512
) -> PyTree:
    """`change(beside, gained)` of some rows at a time, written over `gained`.

    Of all rows at once, XLA on CPU keeps arrays as large as theirs on the way (jax 0.10 and 0.12).
    """
    runs, rest = divmod(len(beside.x), size)

    def one(start: int | Array, size: int, gained: PyTree) -> PyTree:
        run, before = (
            jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), tree)
            for tree in (beside, gained)
        )
        return jax.tree.map(
            lambda x, part: jax.lax.dynamic_update_slice_in_dim(x, part, start, 0),
            gained, change(run, before),
        )  # fmt: skip

    if runs:
        gained = jax.lax.fori_loop(0, runs, lambda i, gained: one(i * size, size, gained), gained)
    return one(runs * size, rest, gained) if rest else gained


def by_view(tree: PyTree, count: int) -> tuple[PyTree, ...]:
    """What belongs to each of `count` views that lie one after the other."""
    parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), tree)
    return tuple(jax.tree.map(lambda x, view=view: x[view], parts) for view in range(count))
