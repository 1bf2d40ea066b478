"""Reductions over all pairs of two sets of rows: the sums under every contrastive loss.

    logsumexp_pairs    log sum_j exp(s_ij + b_j)      of each query over the keys
    logsumexp_both     the same, and for each key over the queries, from one sweep
    logsumexp_among    the same of each row over the other rows of its set, at half the work
    softplus_pairs     sum_j log(1 + exp(s_ij + b_j))
    max_pairs          max_j s_ij + b_j, without gradient
    topk_pairs         the keys with the largest s_ij + b_j, without gradient

with s_ij = scale * q_i . k_j. Rows with equal ids do not see each other, rows of different groups
neither, and keys whose bias is minus infinity are seen by nobody. More keys (a queue, hard
negatives) join by `jnp.logaddexp` of two calls. With `normalize` rows count as directions; they are
then scaled tile by tile, and no scaled copy of them is kept. Either side may be a tuple of arrays,
the views of the same n examples, which have one id, group and bias: nobody need stack them.

Up to a million pairs the matrix is simply built ("dense"); beyond that it is made tile by tile,
forward and backward ("blocked"), so that memory grows with the rows and not with the pairs. Under
a mesh (`jax.set_mesh`) with an axis "data" the rows of both sides are taken to be spread over it;
keys are gathered while all of them fit in 256 MiB, and passed round a ring beyond that. All bodies
and transports give the same numbers up to the order of sums. There are kernels for GPUs ("gpu")
and, of log-sum-exps, for TPUs ("tpu"); they are not chosen by themselves, since no such chip has
timed them yet (`KERNELS`).

Sums are float32 whatever the rows. Rows of 32 bits are multiplied in full, which accelerators do
not do of their own accord. Rows of bfloat16 are multiplied as they are, directions too, which
accelerators do many times as fast; the weights of pairs are rounded to that type before they meet
rows in a gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp

from jaxcl.scale import platform
from jaxcl.similarity import transport as over
from jaxcl.similarity.largest import MAXIMUM, nearest
from jaxcl.similarity.logsumexp import LOG_SUM_EXP
from jaxcl.similarity.reduction import Pulled, Reduction, Sums, Wanted
from jaxcl.similarity.rows import Lengths
from jaxcl.similarity.softplus import SOFTPLUS
from jaxcl.similarity.tiles import MASKED, Rows, Side, masked_logits, views_of, whole
from jaxcl.similarity.transport import Spread, Transport
from jaxcl.typing import Array, Float, Int

Body = Literal["dense", "blocked", "tpu", "gpu"]
Views = TypeVar("Views", Array, tuple[Array, ...])
"""[n, d] rows, or the views of n examples, [n, d] each; of sums [n], or [n] for each view."""

DENSE_PAIRS = 2**20
"""Pairs up to which the whole matrix is built."""
GATHERED_BYTES = 2**28
"""Size of all keys up to which every device gets a copy of them."""
TILE = {"cpu": 512}
"""Rows and columns of a tile, by backend."""
OTHER_TILE = 4096
KERNELS: dict[str, Literal["tpu", "gpu"]] = {}
"""Body of many pairs by backend, where it was measured to be faster than "blocked"; nowhere yet."""


def logsumexp_pairs(
    q: Views,
    k: Array | tuple[Array, ...],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    bias: Float[Array, "m"] | None = None,
    normalize: bool = False,
    body: Body | None = None,
    transport: Transport | None = None,
) -> Views:
    """`log sum_j exp(scale * q_i . k_j + bias_j)` over the keys with another id than the query's.

    Gradients flow into `q`, `k`, `scale` and `bias`.

    Args:
      q: [n, d] queries, any float type, or a tuple of such arrays, views that share ids and groups;
        sums are float32.
      k: [m, d] keys, or a tuple of such arrays, which share ids, groups and bias.
      scale: factor of the dot products, 1 / temperature.
      q_ids: [n] a query does not see keys with its own id; None: it sees all.
      k_ids: [m] ids of the keys; given together with `q_ids`.
      q_groups: [n] a query sees only keys of its own group; None: it sees all.
      k_groups: [m] groups of the keys; given together with `q_groups`.
      bias: [m] added to the logits of each key; minus infinity hides it.
      normalize: rows of both sides count as directions (`unit_rows`).
      body: "dense" or "blocked"; None: by the number of pairs. "tpu", "gpu": its kernels.
      transport: "gather" or "ring" under a mesh; None: by the size of the keys.

    Returns:
      [n] float32, for each view of the queries; a query that sees no key gets about -1e9, and no
      gradient.

    Raises:
      ValueError: ids or groups are given for one side only, or the sides differ in width.
    """
    sides = _sides((q, None, q_ids, q_groups), (k, bias, k_ids, k_groups), normalize)
    if _dense(sides, body):
        return _as_given(q, _dense_logsumexp(*sides, scale))
    wanted = Wanted(biases=bias is not None)
    return _as_given(q, _reduced(LOG_SUM_EXP, sides, scale, wanted, body, transport).rows)


def logsumexp_both(
    q: Views,
    k: Views,
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    q_bias: Float[Array, "n"] | None = None,
    k_bias: Float[Array, "m"] | None = None,
    normalize: bool = False,
    body: Body | None = None,
    transport: Transport | None = None,
) -> tuple[Views, Views]:
    """Log-sum-exps of each query over the keys, and of each key over the queries, from one sweep.

    The second is `log sum_i exp(scale * q_i . k_j + q_bias_i)`. Otherwise as `logsumexp_pairs`.
    """
    sides = _sides((q, q_bias, q_ids, q_groups), (k, k_bias, k_ids, k_groups), normalize)
    if _dense(sides, body):
        rows, columns = _dense_logsumexp(*sides, scale), _dense_logsumexp(*sides[::-1], scale)
        return _as_given(q, rows), _as_given(k, columns)
    wanted = Wanted(columns=True, biases=q_bias is not None or k_bias is not None)
    sums = _reduced(LOG_SUM_EXP, sides, scale, wanted, body, transport)
    assert sums.columns is not None
    return _as_given(q, sums.rows), _as_given(k, sums.columns)


def logsumexp_among(
    z: Views,
    *,
    scale: float | Float[Array, ""] = 1.0,
    ids: Int[Array, "n"] | None = None,
    groups: Int[Array, "n"] | None = None,
    bias: Float[Array, "n"] | None = None,
    normalize: bool = False,
    body: Body | None = None,
    transport: Transport | None = None,
) -> Views:
    """`logsumexp_pairs(z, z, ...)` with the symmetry of the matrix used: half the work.

    Args:
      z: [n, d] rows, queries and keys at once, or a tuple of such arrays, the views of n examples.
      scale: factor of the dot products.
      ids: [n] a row sees the rows with another id; None: it does not see itself.
      groups: [n] a row sees only rows of its own group; None: it sees all.
      bias: [n] added to the logits of each row as a key.
      normalize, body, transport: as in `logsumexp_pairs`.

    Returns:
      [n] float32, for each view; a row that sees no other gets about -1e9, and no gradient.
    """
    side = _side(z, bias, ids, groups, normalize=normalize)
    if ids is None:
        own = jnp.arange(len(side) * len(side[0].x)).reshape(len(side), -1)
        side = tuple(rows._replace(ids=one) for rows, one in zip(side, own, strict=True))
    if _dense((side, side), body):
        return _as_given(z, _dense_logsumexp(side, side, scale))
    wanted = Wanted(biases=bias is not None)
    found = _reduced(LOG_SUM_EXP, (side, None), scale, wanted, body, transport)
    return _as_given(z, found.rows)


def softplus_pairs(
    q: Views,
    k: Array | tuple[Array, ...],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    bias: Float[Array, "m"] | None = None,
    normalize: bool = False,
    body: Literal["dense", "blocked", "gpu"] | None = None,
    transport: Transport | None = None,
) -> Views:
    """`sum_j log(1 + exp(scale * q_i . k_j + bias_j))`; arguments as in `logsumexp_pairs`.

    Returns:
      [n] float32, for each view of the queries; a query that sees no key gets 0.
    """
    sides = _sides((q, None, q_ids, q_groups), (k, bias, k_ids, k_groups), normalize)
    if _dense(sides, body):
        return _as_given(q, _by_hand(sides, scale, lambda x: jnp.sum(jax.nn.softplus(x), axis=1)))
    return _as_given(q, _reduced(SOFTPLUS, sides, scale, Wanted(), body, transport).rows)


def max_pairs(
    q: Views,
    k: Array | tuple[Array, ...],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    bias: Float[Array, "m"] | None = None,
    normalize: bool = False,
    body: Literal["dense", "blocked", "gpu"] | None = None,
    transport: Transport | None = None,
) -> Views:
    """The largest logit of each query; arguments as in `logsumexp_pairs`. No gradient flows.

    `k` may be `q` itself, with ids, which halves the work.
    """
    own = k is q and k_ids is q_ids and k_groups is q_groups
    of_q, of_k = (q, bias if own else None, q_ids, q_groups), (k, bias, k_ids, k_groups)
    sides, scale = jax.lax.stop_gradient((_sides(of_q, of_k, normalize), scale))
    if _dense(sides, body):
        return _as_given(q, _by_hand(sides, scale, lambda x: jnp.max(x, axis=1)))
    pair = (sides[0], None) if own else sides
    found = _reduced(MAXIMUM, pair, scale, Wanted(keys=False), body, transport)
    return _as_given(q, found.rows)


def topk_pairs(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    count: int,
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    bias: Float[Array, "m"] | None = None,
) -> tuple[Float[Array, "n c"], Int[Array, "n c"]]:
    """The `count` keys with the largest logits of each query, best first; ties in the keys' order.

    Arguments as in `logsumexp_pairs`. No gradient flows. Memory is that of some queries' logits.

    Returns:
      logits [n, count] float32, about -1e9 where a query sees fewer keys, and places [n, count]
      int32 among the keys, -1 there.

    Raises:
      ValueError: `count` is not between 1 and the number of keys.
    """
    if not 1 <= count <= len(k):
        raise ValueError(f"count={count} of {len(k)} keys")
    if q.shape[1] != k.shape[1]:
        raise ValueError(f"q has {q.shape[1]} columns and k {k.shape[1]}")
    sides = _sides((q, None, q_ids, q_groups), (k, bias, k_ids, k_groups))
    (rows,), (keys,) = (over.evenly(side, over.devices()) for side in jax.lax.stop_gradient(sides))
    scale = jax.lax.stop_gradient(jnp.asarray(scale, keys.bias.dtype))
    logits, places = over.per_query(partial(nearest, count=count), rows, keys, scale)
    return logits[: len(q)], places[: len(q)]


def _sides(q: tuple[Any, ...], k: tuple[Any, ...], normalize: bool = False) -> tuple[Side, Side]:
    if any((one is None) != (other is None) for one, other in zip(q[2:], k[2:], strict=True)):
        raise ValueError("ids, and groups, are given for both sides together or not at all")
    views, keys = _views(q[0]), _views(k[0])
    kind = _kind(views + keys)
    return _side(*q, normalize=normalize, kind=kind), _side(*k, normalize=normalize, kind=kind)


def _side(
    x: Array | tuple[Array, ...],
    bias: Array | None,
    ids: Array | None,
    groups: Array | None,
    *,
    normalize: bool,
    kind: Any = None,
) -> Side:
    views = _views(x)
    if len({view.shape for view in views}) != 1:
        raise ValueError(f"views must have one shape; got {[view.shape for view in views]}")
    views = [view.astype(kind or _kind(views)) for view in views]
    of_bias = jnp.promote_types(views[0].dtype, jnp.float32)
    given = jnp.zeros(len(views[0]), of_bias) if bias is None else jnp.asarray(bias, of_bias)
    ids, groups = (None if marks is None else jnp.asarray(marks) for marks in (ids, groups))
    return tuple(
        Rows(view, jnp.maximum(given, MASKED), ids, groups, Lengths.of(view) if normalize else None)
        for view in views
    )


def _views(x: Array | tuple[Array, ...]) -> list[Array]:
    return [jnp.asarray(view) for view in (x if isinstance(x, tuple) else (x,))]


def _kind(arrays: list[Array]) -> Any:
    """The type of all rows: what they have in common, but float32 for float16.

    The weights of pairs are smaller than any of its numbers.
    """
    kind = jnp.result_type(*arrays)
    return jnp.float32 if kind == jnp.float16 else kind


def _as_given(z: Views, found: tuple[Array, ...]) -> Views:
    """For each view, if there were several."""
    return found if isinstance(z, tuple) else found[0]


def _dense(sides: tuple[Side, Side], body: Body | None) -> bool:
    q, k = (side[0].x.shape for side in sides)
    if len(q) != 2 or len(k) != 2 or q[1] != k[1]:
        raise ValueError(f"q and k must be [n, d] and [m, d]; got {q} and {k}")
    pairs = len(sides[0]) * q[0] * len(sides[1]) * k[0]
    return body == "dense" or (body is None and pairs <= DENSE_PAIRS)


def _dense_logsumexp(q: Side, k: Side, scale: float | Array) -> tuple[Array, ...]:
    return _by_hand((q, k), scale, lambda logits: jax.nn.logsumexp(logits, axis=1))


def _by_hand(
    sides: tuple[Side, Side], scale: float | Array, reduce: Callable[[Array], Array]
) -> tuple[Array, ...]:
    """The reduction of the whole matrix's rows, for each view of the queries."""
    q, k = (whole(side) for side in sides)
    return views_of(reduce(masked_logits(q, k, scale)), len(sides[0]))


def _reduced(
    reduction: Reduction,
    sides: tuple[Side, Side | None],
    scale: float | Array,
    wanted: Wanted,
    body: Body | None,
    transport: Transport | None,
) -> Sums:
    """The reduction by tiles, here or over the mesh in force."""
    if body is None:
        body = KERNELS.get(platform())
    if body == "tpu" and reduction is LOG_SUM_EXP:  # Pallas is slow to import, and few need it.
        from jaxcl.similarity.pallas_tpu import LOG_SUM_EXP_TPU as reduction
    q, k = sides
    keys = q if k is None else k
    count = over.devices()
    if count == 1:
        transport = None
    elif transport is None:
        size = sum(rows.x.nbytes for rows in keys)
        transport = "gather" if size <= GATHERED_BYTES else "ring"
    most = TILE.get(platform(), OTHER_TILE)
    spread = Spread(reduction, wanted, k is None, most, transport, kernels=body == "gpu")
    n, m = len(q[0].x), len(keys[0].x)
    q, k = over.evenly(q, count), None if k is None else over.evenly(k, count)
    sums = _reduce(spread, q, k, jnp.asarray(scale, q[0].bias.dtype))
    return Sums(
        tuple(x[:n] for x in sums.rows),
        None if sums.columns is None else tuple(x[:m] for x in sums.columns),
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduce(spread: Spread, q: Side, k: Side | None, scale: Array) -> Sums:
    return spread.forward(q, q if k is None else k, scale)


def _reduce_forward(spread: Spread, q: Side, k: Side | None, scale: Array) -> tuple[Sums, Any]:
    sums = _reduce(spread, q, k, scale)
    return sums, (q, k, scale, sums)


def _reduce_backward(spread: Spread, kept: Any, cotangents: Sums) -> Any:
    q, k, scale, sums = kept
    on_q, on_k = spread.backward(q, q if k is None else k, scale, sums, cotangents)
    on_scale = sum(jnp.sum(pulled.along) for pulled in on_q)
    return _as_rows(on_q), _as_rows(on_k), (0.5 if k is None else 1.0) * on_scale


def _as_rows(pulled: tuple[Pulled, ...] | None) -> Side | None:
    return None if pulled is None else tuple(Rows(x, bias, None, None) for x, bias, _ in pulled)


_reduce.defvjp(_reduce_forward, _reduce_backward)
