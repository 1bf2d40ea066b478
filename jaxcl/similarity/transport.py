"""Pairs of rows that lie spread over a mesh: keys are gathered, or passed round a ring.

Each device holds its rows of both sides. `gather` copies all keys to every device, which then does
its queries' part in one sweep. In a `ring` the keys move from device to device with what they have
gained so far, so that none holds more than its share; it costs as many messages as devices. Both
give what one device would, up to the order of sums.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxcl.similarity.reduction import Gradients, Pulled, Reduction, Sums, Wanted, pulled_back
from jaxcl.similarity.tiles import Rows, Side, Tiling, hidden_behind
from jaxcl.typing import Array, Float, PyTree

AXIS = "data"
Transport = Literal["gather", "ring"]


@dataclass(frozen=True)
class Spread:
    """How one reduction over pairs runs, on one device or many.

    Rows of a set with itself (`own`) are given as both sides; their gradients come out as q's.
    """

    reduction: Reduction
    wanted: Wanted
    own: bool
    most: int
    """Rows and columns of a tile."""
    transport: Transport | None = None
    """None: all rows are on one device."""
    kernels: bool = False
    """Tiles are visited by kernels of a GPU."""

    def forward(self, q: Side, k: Side, scale: Float[Array, ""]) -> Sums:
        if self.transport is None:
            return self.reduction.forward(q, k, scale, self._tiling(q, k, self.own), self.wanted)
        run = self._gathered_forward if self.transport == "gather" else self._ring_forward
        rows = PartitionSpec(AXIS)
        sums: Sums = _on_mesh(run, (rows, rows, PartitionSpec()), rows)(q, k, scale)
        return sums

    def backward(
        self, q: Side, k: Side, scale: Float[Array, ""], sums: Sums, cotangents: Sums
    ) -> tuple[tuple[Pulled, ...], tuple[Pulled, ...] | None]:
        """Gradients of the queries' views and of the keys'; None where not wanted."""
        run = {None: self._backward, "gather": self._gathered_backward, "ring": self._ring_backward}

        def local(q: Side, k: Side, scale: Array, sums: Sums, cotangents: Sums) -> PyTree:
            found = run[self.transport](q, k, scale, sums, cotangents)
            on_k = None if found.k is None else pulled_back(k, found.k, scale)
            return pulled_back(q, found.q, scale), on_k

        rows = PartitionSpec(AXIS)
        if self.transport is not None:
            local = _on_mesh(local, (rows, rows, PartitionSpec(), rows, rows), rows)
        on_q, on_k = local(q, k, scale, sums, cotangents)
        return on_q, on_k

    def _backward(self, q: Side, k: Side, scale: Array, sums: Sums, cotangents: Sums) -> Gradients:
        return self.reduction.backward(
            q, k, scale, self._tiling(q, k, self.own), self.wanted,
            sums._replace(columns=self._key_side(sums)),
            cotangents._replace(columns=self._key_side(cotangents)),
        )  # fmt: skip

    def _tiling(self, q: Side, k: Side, triangle: bool = False) -> Tiling:
        return Tiling.of(q, k, most=self.most, triangle=triangle, kernels=self.kernels)

    def _part_forward(self, q: Side, k: Side, scale: Array) -> Sums:
        return self.reduction.forward(q, k, scale, self._tiling(q, k), self.wanted)

    def _part_backward(
        self, q: Side, k: Side, scale: Array, sums: Sums, cotangents: Sums
    ) -> Gradients:
        """Of these queries with these keys; of a set with itself only the queries' side."""
        wanted = replace(self.wanted, keys=self.wanted.keys and not self.own)
        tiling = self._tiling(q, k)
        return self.reduction.backward(q, k, scale, tiling, wanted, sums, cotangents)

    def _key_side(self, sums: Sums) -> tuple[Array, ...] | None:
        """What a query meets at its keys: of a set with itself, the rows' own numbers."""
        return sums.rows if self.own else sums.columns

    def _gathered_forward(self, q: Side, k: Side, scale: Array) -> Sums:
        sums = self._part_forward(q, _gather(k), scale)
        if sums.columns is None:
            return sums
        join = self.reduction.join_devices
        return sums._replace(columns=jax.tree.map(lambda x: join(x, AXIS), sums.columns))

    def _gathered_backward(
        self, q: Side, k: Side, scale: Array, sums: Sums, cotangents: Sums
    ) -> Gradients:
        everyones = _gather((k, self._key_side(sums), self._key_side(cotangents)))
        found = self._part_backward(
            q, everyones[0], scale, sums._replace(columns=everyones[1]),
            cotangents._replace(columns=everyones[2]),
        )  # fmt: skip
        scatter = partial(jax.lax.psum_scatter, axis_name=AXIS, tiled=True)
        return found._replace(k=jax.tree.map(scatter, found.k))

    def _ring_forward(self, q: Side, k: Side, scale: Array) -> Sums:
        def turn(_: int, carried: PyTree) -> PyTree:
            keys, sums = carried
            keys, columns = _pass_on((keys, sums.columns))
            part = self._part_forward(q, keys, scale)
            return keys, jax.tree.map(self.reduction.join, Sums(sums.rows, columns), part)

        first = self._part_forward(q, k, scale)
        _, (rows, columns) = jax.lax.fori_loop(1, _devices(), turn, (k, first))
        return Sums(rows, _pass_on(columns))

    def _ring_backward(
        self, q: Side, k: Side, scale: Array, sums: Sums, cotangents: Sums
    ) -> Gradients:
        guests = (k, self._key_side(sums), self._key_side(cotangents))

        def part(guests: PyTree) -> Gradients:
            keys, columns, from_columns = guests
            return self._part_backward(
                q, keys, scale, sums._replace(columns=columns),
                cotangents._replace(columns=from_columns),
            )  # fmt: skip

        def turn(_: int, carried: PyTree) -> PyTree:
            guests, found = carried
            guests, on_keys = _pass_on((guests, found.k))
            return guests, jax.tree.map(jnp.add, found._replace(k=on_keys), part(guests))

        _, found = jax.lax.fori_loop(1, _devices(), turn, (guests, part(guests)))
        on_k = _pass_on(found.k)
        return Gradients(found.q, on_k)


def per_query(
    search: Callable[[Rows, Rows, Array], PyTree], q: Rows, k: Rows, scale: Array
) -> PyTree:
    """A search of each query among all keys, each device for its own queries."""
    if devices() == 1:
        return search(q, k, scale)
    rows = PartitionSpec(AXIS)
    run = _on_mesh(
        lambda q, k, scale: search(q, _gather(k), scale), (rows, rows, PartitionSpec()), rows
    )
    return run(q, k, scale)


def devices() -> int:
    """Devices that rows are spread over in the mesh in force; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AXIS not in mesh.axis_names or AXIS in mesh.manual_axes:
        return 1
    return int(mesh.shape[AXIS])


def evenly(side: Side, count: int) -> Side:
    """The side, with so many hidden rows behind each view that `count` devices get equal shares."""
    return tuple(hidden_behind((rows, ()), -len(rows.x) % count)[0] for rows in side)


def _devices() -> int:
    return int(jax.lax.axis_size(AXIS))


def _gather(tree: PyTree) -> PyTree:
    return jax.tree.map(partial(jax.lax.all_gather, axis_name=AXIS, tiled=True), tree)


def _pass_on(tree: PyTree) -> PyTree:
    """To the next device of the ring; after as many turns as devices everything is home."""
    count = _devices()
    ring = [(i, (i + 1) % count) for i in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, ring), tree)


def _on_mesh(fn: Callable[..., Any], inputs: Any, outputs: Any) -> Callable[..., Any]:
    # The gradients here are written out, so nothing relies on the check of what is replicated.
    return jax.shard_map(fn, in_specs=inputs, out_specs=outputs, check_vma=False)
