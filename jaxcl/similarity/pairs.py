"""Reductions over all pairs of two sets of rows: the sums under every contrastive loss.

    logsumexp_pairs    log sum_j exp(s_ij + b_j)      of each query over the keys
    logsumexp_both     the same, and for each key over the queries, from one sweep
    logsumexp_among    the same of each row over the other rows of its set, at half the work
    softplus_pairs     sum_j log(1 + exp(s_ij + b_j))
    max_pairs          max_j s_ij + b_j, without gradient
    topk_pairs         the keys with the largest s_ij + b_j, without gradient

with s_ij = scale * q_i . k_j. Rows with equal ids do not see each other, rows of different groups
neither, and keys whose bias is minus infinity are seen by nobody. More keys (a queue, hard
negatives) join by `jnp.logaddexp` of two calls.

Up to a million pairs the matrix is simply built ("dense"); beyond that it is made tile by tile,
forward and backward ("blocked"), so that memory grows with the rows and not with the pairs. Under
a mesh (`jax.set_mesh`) with an axis "data" the rows of both sides are taken to be spread over it;
keys are gathered while all of them fit in 256 MiB, and passed round a ring beyond that. All bodies
and transports give the same numbers up to the order of sums. Kernels ("tpu", "gpu") are there for
the log-sum-exps; they are not chosen by themselves, since no such chip has timed them yet.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxcl.similarity import transport as over
from jaxcl.similarity.largest import MAXIMUM, nearest
from jaxcl.similarity.logsumexp import LOG_SUM_EXP
from jaxcl.similarity.reduction import Reduction, Sums, Wanted
from jaxcl.similarity.softplus import SOFTPLUS
from jaxcl.similarity.tiles import MASKED, Rows, masked_logits
from jaxcl.similarity.transport import Spread, Transport
from jaxcl.typing import Array, Float, Int

Body = Literal["dense", "blocked", "tpu", "gpu"]

DENSE_PAIRS = 2**20
"""Pairs up to which the whole matrix is built."""
GATHERED_BYTES = 2**28
"""Size of all keys up to which every device gets a copy of them."""
TILE = {"cpu": 512}
"""Rows and columns of a tile, by backend."""
OTHER_TILE = 4096


def logsumexp_pairs(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    bias: Float[Array, "m"] | None = None,
    body: Body | None = None,
    transport: Transport | None = None,
) -> Float[Array, "n"]:
    """`log sum_j exp(scale * q_i . k_j + bias_j)` over the keys with another id than the query's.

    Gradients flow into `q`, `k`, `scale` and `bias`.

    Args:
      q: [n, d] queries, any float type; sums are float32.
      k: [m, d] keys.
      scale: factor of the dot products, 1 / temperature.
      q_ids: [n] a query does not see keys with its own id; None: it sees all.
      k_ids: [m] ids of the keys; given together with `q_ids`.
      q_groups: [n] a query sees only keys of its own group; None: it sees all.
      k_groups: [m] groups of the keys; given together with `q_groups`.
      bias: [m] added to the logits of each key; minus infinity hides it.
      body: "dense" or "blocked"; None: by the number of pairs. "tpu", "gpu": kernels.
      transport: "gather" or "ring" under a mesh; None: by the size of the keys.

    Returns:
      [n] float32; a query that sees no key gets about -1e9, and no gradient.

    Raises:
      ValueError: ids or groups are given for one side only, or the sides differ in width.
    """
    sides = _sides((q, None, q_ids, q_groups), (k, bias, k_ids, k_groups))
    if _dense(sides, body):
        return _dense_logsumexp(*sides, scale)
    wanted = Wanted(biases=bias is not None)
    return _reduced(_logsumexp(body), sides, scale, wanted, transport).rows


def logsumexp_both(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    q_bias: Float[Array, "n"] | None = None,
    k_bias: Float[Array, "m"] | None = None,
    body: Body | None = None,
    transport: Transport | None = None,
) -> tuple[Float[Array, "n"], Float[Array, "m"]]:
    """Log-sum-exps of each query over the keys, and of each key over the queries, from one sweep.

    The second is `log sum_i exp(scale * q_i . k_j + q_bias_i)`. Otherwise as `logsumexp_pairs`.
    """
    sides = _sides((q, q_bias, q_ids, q_groups), (k, k_bias, k_ids, k_groups))
    if _dense(sides, body):
        return _dense_logsumexp(*sides, scale), _dense_logsumexp(*sides[::-1], scale)
    wanted = Wanted(columns=True, biases=q_bias is not None or k_bias is not None)
    rows, columns = _reduced(_logsumexp(body), sides, scale, wanted, transport)
    assert columns is not None
    return rows, columns


def logsumexp_among(
    z: Float[Array, "n d"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    ids: Int[Array, "n"] | None = None,
    groups: Int[Array, "n"] | None = None,
    bias: Float[Array, "n"] | None = None,
    body: Body | None = None,
    transport: Transport | None = None,
) -> Float[Array, "n"]:
    """`logsumexp_pairs(z, z, ...)` with the symmetry of the matrix used: half the work.

    Args:
      z: [n, d] rows, queries and keys at once.
      scale: factor of the dot products.
      ids: [n] a row sees the rows with another id; None: it does not see itself.
      groups: [n] a row sees only rows of its own group; None: it sees all.
      bias: [n] added to the logits of each row as a key.
      body, transport: as in `logsumexp_pairs`.

    Returns:
      [n] float32; a row that sees no other gets about -1e9, and no gradient.
    """
    side = _side(z, bias, jnp.arange(len(z)) if ids is None else ids, groups)
    if _dense((side, side), body):
        return _dense_logsumexp(side, side, scale)
    wanted = Wanted(biases=bias is not None)
    return _reduced(_logsumexp(body), (side, None), scale, wanted, transport).rows


def softplus_pairs(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    bias: Float[Array, "m"] | None = None,
    body: Literal["dense", "blocked"] | None = None,
    transport: Transport | None = None,
) -> Float[Array, "n"]:
    """`sum_j log(1 + exp(scale * q_i . k_j + bias_j))`; arguments as in `logsumexp_pairs`.

    Returns:
      [n] float32; a query that sees no key gets 0.
    """
    sides = _sides((q, None, q_ids, q_groups), (k, bias, k_ids, k_groups))
    if _dense(sides, body):
        return jnp.sum(jax.nn.softplus(masked_logits(*sides, scale)), axis=1)
    return _reduced(SOFTPLUS, sides, scale, Wanted(), transport).rows


def max_pairs(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
    q_groups: Int[Array, "n"] | None = None,
    k_groups: Int[Array, "m"] | None = None,
    bias: Float[Array, "m"] | None = None,
    body: Literal["dense", "blocked"] | None = None,
    transport: Transport | None = None,
) -> Float[Array, "n"]:
    """The largest logit of each query; arguments as in `logsumexp_pairs`. No gradient flows.

    `k` may be `q` itself, with ids, which halves the work.
    """
    own = k is q and k_ids is q_ids and k_groups is q_groups
    sides = _sides((q, bias if own else None, q_ids, q_groups), (k, bias, k_ids, k_groups))
    sides, scale = jax.lax.stop_gradient((sides, scale))
    if _dense(sides, body):
        return jnp.max(masked_logits(*sides, scale), axis=1)
    pair = (sides[0], None) if own else sides
    return _reduced(MAXIMUM, pair, scale, Wanted(keys=False), transport).rows


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
    sides = _sides((q, None, q_ids, q_groups), (k, bias, k_ids, k_groups))
    if sides[0].x.shape[1] != sides[1].x.shape[1]:
        raise ValueError(f"q has {sides[0].x.shape[1]} columns and k {sides[1].x.shape[1]}")
    rows, keys = (over.evenly(side, over.devices()) for side in jax.lax.stop_gradient(sides))
    scale = jax.lax.stop_gradient(jnp.asarray(scale, keys.bias.dtype))
    logits, places = over.per_query(partial(nearest, count=count), rows, keys, scale)
    return logits[: len(q)], places[: len(q)]


def _sides(q: tuple[Any, ...], k: tuple[Any, ...]) -> tuple[Rows, Rows]:
    if any((one is None) != (other is None) for one, other in zip(q[2:], k[2:], strict=True)):
        raise ValueError("ids, and groups, are given for both sides together or not at all")
    return _side(*q), _side(*k)


def _side(x: Array, bias: Array | None, ids: Array | None, groups: Array | None) -> Rows:
    x = jnp.asarray(x)
    kind = jnp.promote_types(x.dtype, jnp.float32)
    given = jnp.zeros(len(x), kind) if bias is None else jnp.asarray(bias, kind)
    ids, groups = (None if marks is None else jnp.asarray(marks) for marks in (ids, groups))
    return Rows(x, jnp.maximum(given, MASKED), ids, groups)


def _dense(sides: tuple[Rows, Rows], body: Body | None) -> bool:
    q, k = sides
    if q.x.ndim != 2 or k.x.ndim != 2 or q.x.shape[1] != k.x.shape[1]:
        raise ValueError(f"q and k must be [n, d] and [m, d]; got {q.x.shape} and {k.x.shape}")
    return body == "dense" or (body is None and len(q.x) * len(k.x) <= DENSE_PAIRS)


def _logsumexp(body: Body | None) -> Reduction:
    # Pallas is slow to import, and few need it.
    if body == "tpu":
        from jaxcl.similarity.pallas_tpu import LOG_SUM_EXP_TPU

        return LOG_SUM_EXP_TPU
    if body == "gpu":
        from jaxcl.similarity.pallas_gpu import LOG_SUM_EXP_GPU

        return LOG_SUM_EXP_GPU
    return LOG_SUM_EXP


def _dense_logsumexp(q: Rows, k: Rows, scale: float | Array) -> Float[Array, "n"]:
    return jax.nn.logsumexp(masked_logits(q, k, scale), axis=1)


def _reduced(
    reduction: Reduction,
    sides: tuple[Rows, Rows | None],
    scale: float | Array,
    wanted: Wanted,
    transport: Transport | None,
) -> Sums:
    """The reduction by tiles, here or over the mesh in force."""
    q, k = sides
    keys = q if k is None else k
    count = over.devices()
    if count == 1:
        transport = None
    elif transport is None:
        transport = "gather" if keys.x.nbytes <= GATHERED_BYTES else "ring"
    most = TILE.get(jax.default_backend(), OTHER_TILE)
    spread = Spread(reduction, wanted, k is None, most, transport)
    n, m = len(q.x), len(keys.x)
    q, k = over.evenly(q, count), None if k is None else over.evenly(k, count)
    sums = _reduce(spread, q, k, jnp.asarray(scale, q.bias.dtype))
    return Sums(sums.rows[:n], None if sums.columns is None else sums.columns[:m])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduce(spread: Spread, q: Rows, k: Rows | None, scale: Array) -> Sums:
    return spread.forward(q, q if k is None else k, scale)


def _reduce_forward(spread: Spread, q: Rows, k: Rows | None, scale: Array) -> tuple[Sums, Any]:
    sums = _reduce(spread, q, k, scale)
    return sums, (q, k, scale, sums)


def _reduce_backward(spread: Spread, kept: Any, cotangents: Sums) -> Any:
    q, k, scale, sums = kept
    found = spread.backward(q, q if k is None else k, scale, sums, cotangents)

    def side(rows: Rows | None, x: Array | None, bias: Array | None) -> Rows | None:
        if rows is None or x is None:
            return None
        zeros = jnp.zeros_like(rows.bias)
        return Rows(x.astype(rows.x.dtype), zeros if bias is None else bias, None, None)

    return side(q, found.q, found.q_bias), side(k, found.k, found.k_bias), found.scale


_reduce.defvjp(_reduce_forward, _reduce_backward)
